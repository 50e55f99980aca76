// $filter: what is written is what is read, whatever else is refused by its own code, and memory and database agree.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { ArmFault } from "./arm-errors.ts";
import { parseFilter, passesFilter, type Filter, type FilterFields } from "./filter.ts";

const fields: FilterFields = {
  name: { kind: "text", path: ["name"] },
  "properties/state": { kind: "text", path: ["properties", "state"] },
  count: { kind: "number", path: ["properties", "count"] },
  isGood: { kind: "boolean", path: ["properties", "isGood"] },
  startTime: { kind: "time", path: ["properties", "startTime"] },
};
const grammar = { fields, calls: ["atScope", "assignedTo"] };
const read = (text: string): Filter => parseFilter(text, grammar);

/** Writes a tree as a client would. */
function write(filter: Filter): string {
  switch (filter.kind) {
    case "call":
      return `${filter.name}(${filter.value === undefined ? "" : quote(filter.value)})`;
    case "compare": {
      const isTime = fields[filter.field]?.kind === "time";
      const value = isTime
        ? quote(toTimestamp(Number(filter.value)))
        : typeof filter.value === "string"
          ? quote(filter.value)
          : String(filter.value);
      return `${filter.field} ${filter.operator} ${value}`;
    }
    case "and":
    case "or":
      return `(${filter.parts.map(write).join(` ${filter.kind} `)})`;
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

const ordered = fc.constantFrom("eq", "ne", "gt", "ge", "lt", "le");
const equality = fc.constantFrom("eq", "ne");
const comparison = fc.oneof(
  fc.record({
    kind: fc.constant("compare"),
    field: fc.constantFrom("name", "properties/state"),
    operator: equality,
    value: fc.string({ maxLength: 12 }),
  }),
  fc.record({ kind: fc.constant("compare"), field: fc.constant("count"), operator: ordered, value: fc.integer({ min: -5, max: 5 }) }),
  fc.record({ kind: fc.constant("compare"), field: fc.constant("isGood"), operator: equality, value: fc.boolean() }),
  fc.record({
    kind: fc.constant("compare"),
    field: fc.constant("startTime"),
    operator: ordered,
    value: fc.integer({ min: 0, max: 4 }).map((day) => day * 86_400_000),
  }),
  fc.record({
    kind: fc.constant("call"),
    name: fc.constantFrom("atScope", "assignedTo"),
    value: fc.option(fc.string({ maxLength: 5 }), { nil: undefined }),
  }),
);
const { filter: filters } = fc.letrec<{ filter: unknown }>((tie) => ({
  filter: fc.oneof(
    { maxDepth: 4 },
    comparison,
    fc.record({ kind: fc.constantFrom("and", "or"), parts: fc.array(tie("filter"), { minLength: 2, maxLength: 3 }) }),
  ),
}));
const answers = fc.record({
  name: fc.string({ maxLength: 3 }),
  properties: fc.record({
    state: fc.constantFrom("Good", "Bad", undefined),
    count: fc.integer({ min: -5, max: 5 }),
    isGood: fc.boolean(),
    startTime: fc.integer({ min: 0, max: 4 }).map((day) => toTimestamp(day * 86_400_000)),
  }),
});

function isInvalidFilter(error: unknown): boolean {
  return error instanceof ArmFault && error.armCode === "InvalidFilter" && error.httpStatus === 400 && error.target === "$filter";
}

test("a written filter is read as it was meant", () => {
  fc.assert(
    fc.property(filters, (given) => {
      const filter = given as Filter; // The arbitrary above makes nothing else.
      assert.deepEqual(read(write(read(write(filter)))), read(write(filter)));
    }),
  );
});

test("a filter passes what plain logic passes", () => {
  const judge = (filter: Filter, answer: unknown): boolean =>
    filter.kind === "and"
      ? filter.parts.every((part) => judge(part, answer))
      : filter.kind === "or"
        ? filter.parts.some((part) => judge(part, answer))
        : passesFilter(filter, fields, answer);
  fc.assert(
    fc.property(filters, answers, (given, answer) => {
      const filter = given as Filter; // As above.
      assert.equal(passesFilter(read(write(filter)), fields, answer), judge(filter, answer));
    }),
  );
});

test("any other text is refused by its own code, and nothing else is thrown", () => {
  const words = fc.constantFrom("name", "count", "eq", "and", "or", "(", ")", "'x'", "5", "true", "not", "2026-01-01", ",", "''", "'");
  const texts = fc.oneof(
    fc.string({ maxLength: 60 }),
    fc.array(words, { maxLength: 12 }).map((parts) => parts.join(" ")),
  );
  fc.assert(
    fc.property(texts, (text) => {
      try {
        read(text);
      } catch (error) {
        assert.ok(isInvalidFilter(error), String(error));
      }
    }),
    { numRuns: 500 },
  );
});

test("and binds closer than or, and names and words are read without case", () => {
  assert.deepEqual(read("NAME EQ 'a' OR count gt 1 AND count le 3"), {
    kind: "or",
    parts: [
      { kind: "compare", field: "name", operator: "eq", value: "a" },
      {
        kind: "and",
        parts: [
          { kind: "compare", field: "count", operator: "gt", value: 1 },
          { kind: "compare", field: "count", operator: "le", value: 3 },
        ],
      },
    ],
  });
});

test("times are read with and without quotes, zone and OData's prefix", () => {
  for (const text of [
    "2026-01-02",
    "'2026-01-02'",
    "2026-01-02T00:00:00Z",
    "'2026-01-02T00:00:00'",
    "datetime'2026-01-02T00:00:00Z'",
    "'2026-01-02T01:00:00+01:00'",
  ])
    assert.deepEqual(
      read(`startTime ge ${text}`),
      { kind: "compare", field: "startTime", operator: "ge", value: fromTimestamp("2026-01-02T00:00:00Z") },
      text,
    );
});

test("fields that the type does not name, orders of texts and unknown functions are refused", () => {
  for (const text of [
    "secret eq 'x'",
    "name gt 'a'",
    "count eq 'x'",
    "substringof('a', name)",
    "name eq",
    "name eq 'a' name",
    "((name eq 'a')",
    "isGood eq 1",
    "",
  ])
    assert.throws(() => read(text), isInvalidFilter, text);
  assert.throws(() => read(`${"(".repeat(40)}name eq 'a'${")".repeat(40)}`), isInvalidFilter);
  assert.throws(() => read(`name eq '${"x".repeat(5000)}'`), isInvalidFilter);
});
