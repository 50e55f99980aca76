// Holds every answer against its description: for tests and trials. A hub that serves people does not have it.

import { z } from "zod";
import type { AnsweredCall, AnswerWatch } from "../api/arm-call.ts";
import type { TypeAnswers } from "./answers/answer-parts.ts";
import { answersOf, errorAnswer, keptOf, operationStatus, tenantAnswers } from "./answers/answers.ts";

const problemsShownMax = 10;

/** `fail` is told of each answer that has a member which is not described, or lacks one, or has one of another kind. */
export function createAnswerCheck(fail: (problem: string) => void): AnswerWatch {
  /** Names of members that clients have sent, at any depth: where a type keeps what it does not know, only these may come back. */
  const sent = new Set<string>();
  const check = (
    what: string,
    shape: z.ZodType | "nothing",
    answer: { readonly status: number; readonly body?: unknown },
    kept: Kept,
  ): void => {
    const { status, body } = answer;
    const problems = shape === "nothing" ? ["answers a body, and nothing is described"] : problemsOf(shape, body, { kept, sent });
    if (problems.length > 0) fail(`${what} ${status}: ${problems.slice(0, problemsShownMax).join("; ")}`);
  };
  return {
    onAnswer: (told) => {
      addNames(told.sent, sent);
      const answers = answersOf(told.type);
      // A type of a test's own: that none of the hub's is without a description is held by a test of the table.
      if (answers === undefined || told.answer.body === undefined) return;
      const kept = told.what === "resource" || told.what === "list" ? keptOf(told.type) : "nothing";
      const shape = shapeOf(told, answers);
      const what = `${told.method} ${told.type.type}${told.action === undefined ? "" : `/${told.action}`} (${told.what})`;
      if (shape === undefined) fail(`${what}: no answer is described`);
      else if (told.what !== "list") check(what, shape, told.answer, kept);
      else for (const item of itemsOf(told)) check(what, shape, { status: told.answer.status, body: item }, kept);
    },
    onSent: ({ route, status, body }) => {
      if (status >= 400) check(`a refusal of ${route}`, errorAnswer, { status, body }, "nothing");
      else if (route in tenantAnswers) check(route, tenantAnswers[route] ?? "nothing", { status, body }, "beside");
    },
  };
}

/** A wrong answer is a fault of the hub's own: no caller may catch it. */
export function endProgram(problem: string): void {
  queueMicrotask(() => {
    throw new Error(`assertion failed: an answer is not as docs/api says: ${problem}`);
  });
}

type Kept = ReturnType<typeof keptOf>;

function shapeOf({ what, type, action = "", answer }: AnsweredCall, answers: TypeAnswers): z.ZodType | "nothing" | undefined {
  switch (what) {
    case "resource":
    case "list":
      return answers.resource;
    case "action":
      return answers.actions?.[action];
    case "collectionAction":
      return answers.collectionActions?.[action];
    case "call":
      return answers.call;
    case "operationStatus":
      return operationStatus;
    case "operationResult": {
      // Of a write, or of one of the actions: of the one that it fits.
      const shapes = [answers.resource, ...Object.values(answers.actions ?? {})].filter((shape) => shape !== "nothing");
      return (
        shapes.find((shape) => shape.safeParse(toJson(answer.body)).success) ?? (keptOf(type) === "nothing" ? answers.resource : undefined)
      );
    }
  }
}

/** A collection that answers one object has no list. */
function itemsOf({ type, answer }: AnsweredCall): readonly unknown[] {
  if (type.source?.whole !== undefined) return [answer.body];
  return pageShape.parse(answer.body).value;
}

const pageShape = z.strictObject({ value: z.array(z.unknown()), nextLink: z.string().optional() });

function problemsOf(
  shape: z.ZodType,
  body: unknown,
  known: { readonly kept: Kept; readonly sent: ReadonlySet<string> },
): readonly string[] {
  const parsed = shape.safeParse(toJson(body));
  return parsed.success
    ? []
    : wrongOf(parsed.error.issues, known).map(({ path, message }) => `${path.map(String).join(".") || "(whole)"}: ${message}`);
}

type Issue = Pick<z.core.$ZodIssue, "path" | "message">;

function wrongOf(
  issues: readonly z.core.$ZodIssue[],
  known: { readonly kept: Kept; readonly sent: ReadonlySet<string> },
): readonly Issue[] {
  return issues.flatMap((issue): readonly Issue[] => {
    if (issue.code === "invalid_union" && issue.errors.some((branch) => branch.length > 0 && wrongOf(branch, known).length === 0))
      return [];
    if (issue.code !== "unrecognized_keys") return [issue];
    const mayStand = known.kept === "everything" || (known.kept === "beside" && issue.path[0] !== "properties");
    return issue.keys.flatMap((key) =>
      mayStand && known.sent.has(key) ? [] : [{ path: [...issue.path, key], message: "is answered and not described" }],
    );
  });
}

/** As it goes over the wire: without what is undefined. */
function toJson(body: unknown): unknown {
  return body === undefined ? undefined : JSON.parse(JSON.stringify(body));
}

function addNames(value: unknown, names: Set<string>): void {
  if (typeof value !== "object" || value === null) return;
  for (const [name, inner] of Object.entries(value)) {
    if (!Array.isArray(value)) names.add(name);
    addNames(inner, names);
  }
}
