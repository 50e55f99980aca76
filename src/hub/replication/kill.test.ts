// Every kind of job, its hub killed or paused: another hub ends it the same, the two sides never run at once, nothing is left over.
// Here in the midst of each step and of each undo; `npm run proof -- durability` strikes at every moment.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { killCases } from "./kill-cases.ts";
import { runFailTrial, runKillTrial, type KillCase } from "./kill-trial.ts";
import { openSimHub } from "./sim/sim-hub.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

describe("the kill matrix", () => {
  it("has a case for every kind of job", async () => {
    await using database = await cluster.openFreshDatabase();
    const folder = await mkdtemp(join(tmpdir(), "wk-"));
    try {
      await using hub = await openSimHub({ database, folder, limits: {}, jobs: { leaseMs: 1000, pollMs: 20 } });
      assert.deepEqual(
        hub.jobKinds.filter((kind) => !killCases.some((kase) => kase.kind === kind)),
        [],
        "add a case to kill-cases.ts",
      );
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

/** The moments in whose midst a step or an undo has done its work and nothing says so yet; of a rollback its undos. */
const isInside = (kase: KillCase, moment: string): boolean => {
  // The steps of a plan's machines have cases of their own: one of each operation's stands for all, beside the plan's own.
  if (kase.kind.startsWith("RecoveryPlan")) return /^(group1Machines|launch|remove|check) ran$/.test(moment);
  return (kase.ends === "failed" ? / undo ran$/ : / ran$/).test(moment);
};

async function strikeInside(kase: KillCase): Promise<void> {
  const whole = await runKillTrial(cluster, kase, { how: "none", at: 0 });
  assert.equal(whole.end.jobState, kase.ends);
  assert.deepEqual([whole.end.ranBoth, whole.end.orphans], [false, []]);
  const inside = whole.moments.flatMap((moment, index) => (isInside(kase, moment) ? [index + 1] : []));
  // Kinds with one step are struck in it both ways, longer ones at each step one way or the other.
  for (const [turn, at] of inside.entries())
    for (const how of inside.length === 1 ? (["kill", "pause"] as const) : [turn % 3 === 2 ? ("pause" as const) : ("kill" as const)]) {
      const struck = await runKillTrial(cluster, kase, { how, at });
      assert.equal(struck.wasStruck, true);
      assert.deepEqual(struck.end, whole.end, `${how} at ${whole.moments[at - 1]}`);
    }
}

/**
 * The target was given up and the source is not on yet: the cancel is allowed again, and goes on from there. A removed machine is gone,
 * as it was ordered.
 */
const givenUpAfter: ReadonlySet<string> = new Set(["CancelFailover remove", "RecoveryPlanCancelFailover remove", "MachineRemoval remove"]);

describe("a job that fails after the work of a step", { concurrency: 4 }, () => {
  for (const kase of killCases.filter((each) => each.ends === "succeeded"))
    it(`leaves one side able to run, nothing frozen and nothing over: ${kase.kind}`, async () => {
      for (let stepAt = 1; ; stepAt++) {
        const { end, failedStep, undoFaults } = await runFailTrial(cluster, kase, stepAt);
        if (failedStep === undefined) return assert.ok(stepAt > 1, "the job has steps");
        assert.deepEqual(
          [end.jobState, end.ranBoth, end.isFrozen, undoFaults, end.orphans],
          ["failed", false, false, [], []],
          `after the step ${failedStep}`,
        );
        const isGivenUp = givenUpAfter.has(`${kase.kind} ${failedStep}`);
        assert.equal(
          end.sourceIsOn !== end.landed.includes("web"),
          !isGivenUp,
          `after the step ${failedStep} exactly one side has the machine`,
        );
      }
    });
});

describe("a job whose hub is struck", { concurrency: 4 }, () => {
  for (const kase of killCases)
    it(`ends as if nothing had been: ${kase.kind}, ${kase.name}`, async () => {
      await strikeInside(kase);
    });
});
