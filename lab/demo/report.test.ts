// The rule behind "ok": every single thing that can be wrong must make it false.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type DemoMeasurements, problemsOf, toReport } from "./report.ts";

const root = "ab".repeat(32);
const good: DemoMeasurements = {
  seconds: 300,
  steps: [{ name: "x", seconds: 1 }],
  setupSeconds: 180,
  disks: [
    { id: "serial-1", sizeBytes: 1, sourceRoot: root, targetRoot: root },
    { id: "serial-2", sizeBytes: 1, sourceRoot: root, targetRoot: root },
  ],
  recoveryPoints: 5,
  replication: { readBytes: 1, sentBytes: 1, storedBytes: 1, initialSeconds: 60 },
  agent: { residentBytes: 1, cpuSeconds: 1, longestFreezeMs: 200, tracking: [] },
  testMigration: { orderToProbeSeconds: 40, hydrationSeconds: 1, rawBootToProbeSeconds: 30 },
  ledger: { lastBefore: 10, firstAfter: 11, missing: 0, damaged: 0, downtimeSeconds: 40 },
  forbiddenPackets: 0,
  forbiddenFlows: [],
  leftovers: [],
};

describe("the demo's report", () => {
  test("is ok when everything was proved", () => {
    assert.deepEqual(problemsOf(good), []);
    assert.equal(toReport(good).ok, true);
  });

  const faults: readonly (readonly [string, Partial<DemoMeasurements>])[] = [
    ["no steps", { steps: [] }],
    ["an unmeasured set-up", { setupSeconds: 0 }],
    ["a slow set-up", { setupSeconds: 180.1 }],
    ["one disk only", { disks: good.disks.slice(0, 1) }],
    ["unequal roots", { disks: good.disks.map((disk) => ({ ...disk, targetRoot: "cd".repeat(32) })) }],
    ["empty roots", { disks: good.disks.map((disk) => ({ ...disk, sourceRoot: "", targetRoot: "" })) }],
    ["too few points", { recoveryPoints: 1 }],
    ["nothing moved", { replication: { ...good.replication, sentBytes: 0 } }],
    ["no yardstick", { testMigration: { ...good.testMigration, rawBootToProbeSeconds: 0 } }],
    ["an unread ledger", { ledger: { ...good.ledger, lastBefore: 0, firstAfter: 1 } }],
    ["a gap", { ledger: { ...good.ledger, firstAfter: 13 } }],
    ["a lost record", { ledger: { ...good.ledger, firstAfter: 10 } }],
    ["a missing record", { ledger: { ...good.ledger, missing: 1 } }],
    ["a damaged record", { ledger: { ...good.ledger, damaged: 1 } }],
    ["a forbidden packet", { forbiddenPackets: 1 }],
    ["an unread counter", { forbiddenPackets: -1 }],
    ["something left", { leftovers: ["process 1"] }],
  ];
  for (const [name, change] of faults) {
    test(`is not ok with ${name}`, () => assert.equal(toReport({ ...good, ...change }).ok, false));
  }
});
