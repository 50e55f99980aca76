// Every operation of both vault clients is decided: it works, or is refused with its code and the reason. The table is coverage.tsv.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { refusalArguments } from "./coverage-refusals.ts";
import { journeySteps, removeSite } from "./coverage-journey.ts";
import { everyOperation, openWorld, type CoverageWorld } from "./coverage-world.ts";
import { createAnswerPolicy, readDocuments } from "./documented-answers.ts";
import { startRig, type Rig } from "./rig.ts";

type Verdict =
  /** `file` has the test that calls it; this test unless told. */
  | { readonly kind: "works"; readonly operation: string; readonly file: string }
  | { readonly kind: "refused"; readonly operation: string; readonly code: string }
  /** Being built: called all the same, and never an error of the hub. */
  | { readonly kind: "pending"; readonly operation: string };

const thisFile = "coverage.test.ts";

/** Lines of operation, verdict, and code or test file. */
async function readTable(): Promise<readonly Verdict[]> {
  const text = await readFile(join(import.meta.dirname, "coverage.tsv"), "utf8");
  return text
    .trimEnd()
    .split("\n")
    .slice(1)
    .map((line) => {
      const [operation = "", verdict = "", detail = ""] = line.split("\t");
      if (verdict === "works") return { kind: "works", operation, file: detail };
      if (verdict === "pending") return { kind: "pending", operation };
      assert.equal(verdict, "refused", line);
      return { kind: "refused", operation, code: detail };
    });
}

const table = await readTable();
/** Answers that are not as docs/api says. */
const problems = new Set<string>();
let rig: Rig;
let world: CoverageWorld;
before(async () => {
  const started = await startRig({ machines: 3 });
  const additionalPolicies = [createAnswerPolicy(await readDocuments(), problems)];
  rig = { ...started, clientOptions: { ...started.clientOptions, additionalPolicies } };
  world = await openWorld(rig);
});
after(async () => await rig[Symbol.asyncDispose]());

it("every operation of the clients has its line, and no line is of an operation that is gone", () => {
  assert.deepEqual(
    table.map(({ operation }) => operation),
    [...everyOperation(rig).keys()].toSorted(),
  );
});

describe("an operation that works", () => {
  for (const { title, run } of journeySteps) it(title, async () => await run(world));
});

describe("an operation that is refused", () => {
  for (const verdict of table)
    if (verdict.kind === "refused")
      it(`${verdict.operation} is ${verdict.code}, and says why`, async () => await assertRefused(verdict.operation, verdict.code));
    else if (verdict.kind === "pending") it(`${verdict.operation} is not decided yet`, async () => await assertNoError(verdict.operation));
});

describe("an operation that works, after all others", () => {
  it("removes the site", async () => await removeSite(world));

  it("is called by this journey or by the test that the table names", async () => {
    for (const verdict of table) {
      if (verdict.kind !== "works") continue;
      const { operation, file } = verdict;
      if (file === thisFile) assert.ok(world.answered.has(operation), `${operation} was not called`);
      else {
        const [, group = "", name = ""] = /\/(\w+)\.(\w+)$/.exec(operation) ?? [];
        // Tests give a group a short name of their own, so the group and the call are looked for apart.
        const call = new RegExp(`\\.(${name}|begin${name.slice(0, 1).toUpperCase()}${name.slice(1)}(AndWait)?)\\(`);
        const text = await readFile(join(import.meta.dirname, file), "utf8");
        assert.ok(new RegExp(`\\.${group}\\b`).test(text) && call.test(text), `${file} does not call ${operation}`);
      }
    }
  });
});

it("every answer to all of these calls is as docs/api says", () => {
  assert.deepEqual([...problems], []);
});

async function refusalOf(operation: string): Promise<unknown> {
  return await world.call(operation, refusalArguments[operation]).then(
    () => undefined,
    (error: unknown) => error,
  );
}

async function assertNoError(operation: string): Promise<void> {
  const refusal = await refusalOf(operation);
  if (refusal === undefined) return;
  assert.ok(refusal instanceof Error && "statusCode" in refusal, operation);
  assert.ok(typeof refusal.statusCode === "number" && refusal.statusCode < 500, refusal.message);
}

async function assertRefused(operation: string, code: string): Promise<void> {
  const refusal = await refusalOf(operation);
  assert.ok(refusal instanceof Error && "code" in refusal && "statusCode" in refusal, operation);
  assert.equal(refusal.code, code, refusal.message);
  assert.ok(typeof refusal.statusCode === "number" && refusal.statusCode < 500, refusal.message);
  assert.match(refusal.message, /^could not .+: .{10,}/, operation);
  assert.doesNotMatch(refusal.message, /does not have it$|is not supported here$/, operation);
}
