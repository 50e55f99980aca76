// The documents of docs/api say what the table of types says: every route, nothing stale, every reference there.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { listRoutes } from "../api/arm-router.ts";
import { makeDocuments, makeWholeDocument } from "./documents.ts";
import { everyType } from "./every-type.ts";

const folder = join(import.meta.dirname, "../../../docs/api");
const table = await everyType();

const referenceShape = z.strictObject({ $ref: z.string() });
const parameterShape = z.strictObject({
  name: z.string(),
  in: z.enum(["path", "query", "header"]),
  required: z.boolean(),
  schema: z.record(z.string(), z.unknown()),
});
const responseShape = z.strictObject({
  description: z.string().min(1),
  headers: z.record(z.string(), z.unknown()).optional(),
  content: z.record(z.string(), z.strictObject({ schema: z.unknown() })).optional(),
});
const operationShape = z.looseObject({
  operationId: z.string().regex(/^\w+$/),
  tags: z.array(z.string()),
  parameters: z.array(z.union([referenceShape, parameterShape])).optional(),
  requestBody: z.strictObject({ required: z.boolean(), content: z.record(z.string(), z.unknown()) }).optional(),
  responses: z.record(z.string().regex(/^(\d{3}|default)$/), z.union([referenceShape, responseShape])),
  "x-watari-right": z.string(),
});
const methods = ["get", "head", "put", "patch", "post", "delete"] as const;
const pathShape = z.strictObject({
  parameters: z.array(z.union([referenceShape, parameterShape])),
  get: operationShape.optional(),
  head: operationShape.optional(),
  put: operationShape.optional(),
  patch: operationShape.optional(),
  post: operationShape.optional(),
  delete: operationShape.optional(),
});
const documentShape = z.strictObject({
  openapi: z.literal("3.1.1"),
  info: z.strictObject({ title: z.string(), version: z.string() }),
  servers: z.array(z.unknown()),
  security: z.array(z.unknown()),
  paths: z.record(z.string().startsWith("/"), pathShape),
  components: z.record(z.string(), z.record(z.string(), z.unknown())),
});

test("the committed documents are those of this table of types", async () => {
  const renew = "docs/api is stale: run ./watari dev openapi and commit what it wrote";
  const made = makeDocuments(table);
  const present = (await readdir(folder)).filter((name) => name.endsWith(".json") && !name.endsWith(".schema.json"));
  assert.deepEqual(
    present.toSorted(),
    made.map(({ namespace }) => `${namespace}.json`),
    renew,
  );
  for (const { namespace, document } of made) {
    const committed: unknown = JSON.parse(await readFile(join(folder, `${namespace}.json`), "utf8"));
    // A difference is megabytes long, and the command writes what is right.
    assert.ok(isDeepStrictEqual(committed, JSON.parse(JSON.stringify(document))), `${namespace}: ${renew}`);
  }
});

test("every document is OpenAPI 3.1: known members, references that lead somewhere, operation ids that are there once", () => {
  for (const document of [...makeDocuments(table).map((each) => each.document), makeWholeDocument(table)]) {
    const { paths, components } = documentShape.parse(document);
    const ids = Object.values(paths).flatMap((path) =>
      methods.flatMap((method) => z.object({ operationId: z.string() }).safeParse(path[method]).data?.operationId ?? []),
    );
    assert.equal(new Set(ids).size, ids.length, ids.filter((id, index) => ids.indexOf(id) !== index).join(", "));
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map((found) => found[1] ?? "");
    for (const reference of references) {
      const [, kind = "", name = ""] = /^#\/components\/(\w+)\/(\w+)$/.exec(reference) ?? [];
      assert.ok(components[kind]?.[name] !== undefined, reference);
    }
    for (const [path, item] of Object.entries(paths)) {
      const named = [...path.matchAll(/\{([^}]+)\}/g)].map((found) => found[1]);
      const declared = z.array(z.looseObject({ name: z.string().optional() })).parse(item.parameters);
      assert.deepEqual(
        named,
        declared.flatMap(({ name }) => name ?? []),
        path,
      );
    }
  }
});

test("every route of the table is documented with its right", () => {
  const documented = new Set<string>();
  const { paths } = documentShape.parse(makeWholeDocument(table));
  for (const item of Object.values(paths))
    for (const method of methods) {
      const right = z.object({ "x-watari-right": z.string() }).safeParse(item[method]);
      if (right.success) documented.add(`${method.toUpperCase()} ${right.data["x-watari-right"]}`);
    }
  for (const { method, action } of listRoutes(table)) assert.ok(documented.has(`${method} ${action}`), `${method} ${action}`);
});
