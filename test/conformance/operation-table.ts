// A table of every operation of a client's groups: what works, and what is refused with which code and why; each line is called for real.

import assert from "node:assert/strict";
import { it } from "node:test";
import { z } from "zod";

export type Line = { readonly call: () => Promise<unknown> } & (
  | { readonly kind: "works" }
  | { readonly kind: "refused"; readonly code: string; readonly why: string }
);

/** `call` asserts what it was answered. */
export function works(call: () => Promise<unknown>): Line {
  return { kind: "works", call };
}

/** `why` is part of the message that people read. */
export function refused(code: string, why: string, call: () => Promise<unknown>): Line {
  return { kind: "refused", code, why, call };
}

const errorShape = z.looseObject({ code: z.string() });
/** All that the clients say of a page that was refused, beside its code. */
const pageWords = "Pagination failed";

/** Makes a test of each line. `groups` are the client's, by name; names of the lines are "group.operation". */
export function checkTable(groups: Readonly<Record<string, () => object>>, lines: Readonly<Record<string, Line>>): void {
  for (const [name, line] of Object.entries(lines))
    it(`${name} ${line.kind === "works" ? "works" : `is refused: ${line.code}, ${line.why}`}`, async () => {
      if (line.kind === "works") await line.call();
      else
        await assert.rejects(line.call, (error: unknown) => {
          const message = error instanceof Error ? error.message : "";
          assert.equal(errorShape.parse(error).code, line.code, message);
          assert.ok(message.includes(line.why) || message.startsWith(pageWords), message);
          return true;
        });
    });
  it("every operation of these groups has its line", () => {
    const operations = Object.entries(groups).flatMap(([group, open]) => namesOf(open()).map((operation) => `${group}.${operation}`));
    const known = new Set(Object.keys(lines).map((name) => name.split(" ", 1)[0]));
    assert.ok(operations.length > 0);
    assert.deepEqual(
      [...new Set(operations)].filter((operation) => !known.has(operation)),
      [],
    );
  });
}

/** Operations that go on have three names: create, beginCreate, beginCreateAndWait. */
function namesOf(group: object): readonly string[] {
  const own = Object.entries(group).flatMap(([name, value]) => (typeof value === "function" ? [name] : []));
  const prototype: unknown = Object.getPrototypeOf(group);
  const inherited = prototype === Object.prototype || prototype === null ? [] : Object.getOwnPropertyNames(prototype);
  return [...own, ...inherited]
    .filter((name) => name !== "constructor" && !/^_|Paging(Page|All)$/.test(name))
    .map((name) => name.replace(/AndWait$/, "").replace(/^begin([A-Z])/, (_all, first: string) => first.toLowerCase()));
}
