// Holds what a hub answers against the committed documents of docs/api: the path, the status and the body of every answer.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";

const folder = join(import.meta.dirname, "../../docs/api");
const contentShape = z.looseObject({ content: z.looseObject({ "application/json": z.looseObject({ schema: z.unknown() }) }).optional() });
const operationShape = z.looseObject({ responses: z.record(z.string(), z.unknown()) });
const documentShape = z.looseObject({
  paths: z.record(z.string(), z.record(z.string(), z.unknown())),
  components: z.looseObject({ schemas: z.record(z.string(), z.unknown()), responses: z.record(z.string(), z.unknown()) }),
});
type Document = z.infer<typeof documentShape>;

export interface SeenAnswer {
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly body: unknown;
}

export interface DocumentedAnswers {
  /** Undefined when the answer is as documented; else what is not. */
  problemOf(answer: SeenAnswer): string | undefined;
}

export async function readDocuments(): Promise<DocumentedAnswers> {
  const names = (await readdir(folder)).filter((name) => /^[A-Z][A-Za-z]+\.[A-Za-z]+\.json$/.test(name));
  const documents = await Promise.all(
    names.map(async (name) => documentShape.parse(JSON.parse(await readFile(join(folder, name), "utf8")))),
  );
  const routes = documents.flatMap((document) =>
    Object.entries(document.paths).map(([path, item]) => ({ document, path, pattern: toPattern(path), item })),
  );
  const parsers = new Map<unknown, z.ZodType>();
  return {
    problemOf: ({ method, url, status, body }) => {
      const path = decodeURIComponent(new URL(url).pathname)
        .replaceAll(/\/{2,}/g, "/")
        .replace(/\/$/, "");
      const fitting = routes.filter(({ pattern, item }) => pattern.test(path) && item[method.toLowerCase()] !== undefined);
      // The path with the fewest parameters is meant: {vault}/replicationJobs/export beside {vault}/replicationJobs/{name}.
      const [route] = fitting.toSorted((left, right) => parameterCount(left.path) - parameterCount(right.path));
      if (route === undefined) return status === 404 || status === 405 ? undefined : `${method} ${path} is not documented`;
      const { responses } = operationShape.parse(route.item[method.toLowerCase()]);
      const response = responses[String(status)] ?? (status >= 400 ? responses["default"] : undefined);
      if (response === undefined) return `${method} ${route.path} answered ${status}, which is not documented`;
      const schema = contentShape.parse(resolve(route.document, response)).content?.["application/json"].schema;
      if (schema === undefined || body === undefined || body === "") return undefined;
      let parser = parsers.get(schema);
      if (parser === undefined) parsers.set(schema, (parser = z.fromJSONSchema(JSON.parse(inlined(route.document, schema)))));
      const parsed = parser.safeParse(body);
      return parsed.success ? undefined : `${method} ${route.path} ${status}: ${z.prettifyError(parsed.error)}`;
    },
  };
}

function toPattern(path: string): RegExp {
  const escaped = path.replaceAll(/[.*+?^$()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll("{scope}", ".+").replaceAll(/\{[^}]+\}/g, "[^/]+")}$`, "i");
}

function parameterCount(path: string): number {
  return [...path.matchAll(/\{/g)].length + (path.includes("{scope}") ? 10 : 0);
}

function resolve(document: Document, value: unknown): unknown {
  const reference = z.object({ $ref: z.string() }).safeParse(value).data?.$ref;
  const name = reference?.split("/").at(-1) ?? "";
  if (reference === undefined) return value;
  return (reference.startsWith("#/components/responses/") ? document.components.responses : document.components.schemas)[name];
}

/** The schema with every reference in its place: none of the documents' schemas holds itself. */
function inlined(document: Document, schema: unknown): string {
  return JSON.stringify(schema, (_name, value: unknown) => {
    const target = resolve(document, value);
    return target === value ? value : JSON.parse(inlined(document, target));
  });
}

/** For the `additionalPolicies` of an SDK's client: every answer is held against the documents, and what differs is kept. */
export function createAnswerPolicy(documented: DocumentedAnswers, problems: Set<string>) {
  return {
    position: "perRetry" as const,
    policy: {
      name: "documentedAnswers",
      sendRequest: async <
        Request extends { readonly method: string; readonly url: string },
        Response extends { readonly status: number; readonly bodyAsText?: string | null },
      >(
        request: Request,
        next: (request: Request) => Promise<Response>,
      ): Promise<Response> => {
        const response = await next(request);
        const text = response.bodyAsText ?? "";
        const problem = documented.problemOf({ ...request, status: response.status, body: text === "" ? undefined : JSON.parse(text) });
        if (problem !== undefined) problems.add(problem);
        assert.ok(problems.size < 100, "too many answers are not as documented");
        return response;
      },
    },
  };
}
