// The way of a move: from nothing to each end, and from everywhere between to the same end.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { nextStep, type Seen, type SeenItem, type Step } from "./next-step.ts";

const toEnd = { until: "end", outcome: { kind: "start" } } as const;
const toTest = { until: "test", outcome: { kind: "start" } } as const;
const filesAtEnd = { until: "end", outcome: { kind: "files" } } as const;
const filesAtTest = { until: "test", outcome: { kind: "files" } } as const;
type Wish = typeof toEnd | typeof toTest | typeof filesAtEnd | typeof filesAtTest;

const fresh: Seen = { item: undefined, landedName: undefined, exported: undefined, done: { isTested: false, isExported: false } };
const replicating: SeenItem = {
  protectionState: "Protected",
  testFailoverState: "None",
  isTested: false,
  jobId: "j",
  finalPointId: undefined,
};

/** The hub's side of the way: what each step leads to when it succeeds. */
function after(seen: Seen, step: Step): Seen {
  const { item = replicating } = seen;
  switch (step.kind) {
    case "protect":
      return { ...seen, item: replicating };
    case "clear":
      return { ...seen, item: undefined };
    case "wait":
      return { ...seen, item: { ...item, ...ended(item) } };
    case "test":
      return {
        ...seen,
        item: { ...item, testFailoverState: "TestMigrationSucceeded", isTested: true },
        done: { ...seen.done, isTested: true },
      };
    case "cleanUp":
      return { ...seen, item: { ...item, testFailoverState: "None", isTested: true }, done: { ...seen.done, isTested: true } };
    case "export":
      return { ...seen, exported: { pointId: "p", isFinal: step.pointId !== undefined }, done: { ...seen.done, isExported: true } };
    case "cutOver":
      return { ...seen, item: { ...item, protectionState: "UnplannedFailoverCommitPending", finalPointId: "p" }, landedName: "web" };
    case "cancel":
      return { ...seen, item: { ...item, protectionState: "Protected" }, landedName: undefined };
    case "commit":
      return { ...seen, item: { ...item, protectionState: "CommitFailoverCompleted" } };
    case "complete":
      return { ...seen, item: undefined };
    case "discard":
      return { ...seen, landedName: undefined };
    case "end":
      return seen;
  }
}

/** Where a job under way leads. */
function ended({ protectionState, testFailoverState }: SeenItem): Partial<SeenItem> {
  if (testFailoverState === "TestMigrationInProgress") return { testFailoverState: "TestMigrationSucceeded", isTested: true };
  if (testFailoverState === "TestMigrationCleanupInProgress") return { testFailoverState: "None", isTested: true };
  const next: Readonly<Record<string, string>> = {
    EnablingProtection: "Protected",
    InitialReplicationInProgress: "Protected",
    UnplannedFailoverInitiated: "UnplannedFailoverCommitPending",
    CancelFailoverInProgressOnRecovery: "Protected",
    CommitFailoverInProgressOnRecovery: "CommitFailoverCompleted",
    DisablingProtection: "DisablingFailed",
  };
  return { protectionState: next[protectionState] ?? protectionState, finalPointId: "p" };
}

function way(begun: Seen, wish: Wish): readonly string[] {
  const kinds: string[] = [];
  let seen = begun;
  for (let count = 0; count < 20; count++) {
    const step = nextStep(seen, wish);
    kinds.push(step.kind === "end" ? step.reached : step.kind);
    if (step.kind === "end") return kinds;
    seen = after(seen, step);
  }
  throw new Error(`no end: ${kinds.join(" ")}`);
}

describe("nextStep", () => {
  it("goes the whole way from nothing, for each wish", () => {
    assert.deepEqual(way(fresh, toEnd), ["protect", "test", "cleanUp", "cutOver", "commit", "complete", "landed"]);
    assert.deepEqual(way(fresh, toTest), ["protect", "test", "cleanUp", "tested"]);
    assert.deepEqual(way(fresh, filesAtTest), ["protect", "test", "cleanUp", "export", "tested"]);
    const files = ["protect", "test", "cleanUp", "cutOver", "export", "commit", "complete", "discard", "exported"];
    assert.deepEqual(way(fresh, filesAtEnd), files);
  });

  it("goes on from every state to the same end and never protects a protected machine again", () => {
    const states = [
      "EnablingProtection",
      "InitialReplicationInProgress",
      "Protected",
      "UnplannedFailoverInitiated",
      "UnplannedFailoverFailed",
      "UnplannedFailoverCommitPending",
      "CancelFailoverInProgressOnRecovery",
      "CancelFailoverFailedOnRecovery",
      "CommitFailoverInProgressOnRecovery",
      "CommitFailoverFailedOnRecovery",
      "CommitFailoverCompleted",
    ];
    for (const protectionState of states) {
      const isLanded = /Commit|Initiated/.test(protectionState);
      const item = { ...replicating, protectionState };
      const seen = { ...fresh, item, landedName: isLanded ? "web" : undefined };
      const steps = way(seen, toEnd);
      assert.equal(steps.at(-1), "landed", protectionState);
      assert.ok(!steps.includes("protect"), protectionState);
    }
  });

  it("waits for a test under way, cleans up one that was left, and tests again when asked for a test only", () => {
    const under = { ...fresh, item: { ...replicating, testFailoverState: "TestMigrationInProgress" } };
    assert.deepEqual(way(under, toTest), ["wait", "cleanUp", "tested"]);
    const tested = { ...fresh, item: { ...replicating, isTested: true } };
    assert.deepEqual(way(tested, toTest), ["test", "cleanUp", "tested"]);
    assert.equal(nextStep(tested, toEnd).kind, "cutOver");
    const failed = { ...fresh, item: { ...replicating, testFailoverState: "TestMigrationFailed" } };
    assert.equal(nextStep(failed, toEnd).kind, "test");
  });

  it("takes a protection that failed away before it begins anew", () => {
    const failed = { ...fresh, item: { ...replicating, protectionState: "EnablingFailed" } };
    assert.deepEqual(way(failed, toTest).slice(0, 2), ["clear", "protect"]);
  });

  it("never commits a machine that is to become files before they are written", () => {
    const pending = { ...replicating, protectionState: "UnplannedFailoverCommitPending", finalPointId: "p" };
    const seen: Seen = { ...fresh, item: pending, landedName: "web" };
    assert.deepEqual(nextStep(seen, filesAtEnd), { kind: "export", pointId: "p" });
    const earlier = { pointId: "older", isFinal: false };
    assert.deepEqual(nextStep({ ...seen, exported: earlier }, filesAtEnd), { kind: "export", pointId: "p" });
    assert.equal(nextStep({ ...seen, exported: { pointId: "p", isFinal: true } }, filesAtEnd).kind, "commit");
  });

  it("keeps a landed machine whose files were only those of an earlier point", () => {
    const seen: Seen = { ...fresh, landedName: "web", exported: { pointId: "older", isFinal: false } };
    assert.deepEqual(nextStep(seen, filesAtEnd), { kind: "end", reached: "landed" });
  });
});
