// Every kind of job, its hub killed or paused: another hub ends it the same, the two sides never run at once, nothing is left over.
// Here each step fails once and each job is struck once in the midst of a step; `npm run proof -- durability` strikes at every moment, in every way.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { killCases } from "./kill-cases.ts";
import { runFailTrial, runKillTrial, wrongAfterFailure, type KillCase } from "./kill-trial.ts";
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
const isInside = (kase: KillCase, moment: string): boolean => (kase.ends === "failed" ? / undo ran$/ : / ran$/).test(moment);

/** One of them for each case, another one for the next case, by kill and by pause in turn; the proof strikes at all of them and between them. */
async function strikeInside(kase: KillCase, turn: number): Promise<void> {
  const whole = await runKillTrial(cluster, kase, { how: "none", at: 0 });
  assert.equal(whole.end.jobState, kase.ends);
  assert.deepEqual([whole.end.ranBoth, whole.end.orphans], [false, []]);
  const found = whole.moments.flatMap((moment, index) => (isInside(kase, moment) ? [index + 1] : []));
  // A job that fails in its first step may have nothing to undo.
  const inside = found.length > 0 ? found : whole.moments.map((_, index) => index + 1);
  const at = inside[turn % inside.length] ?? assert.fail("a job has a step");
  const how = turn % 3 === 2 ? "pause" : "kill";
  const struck = await runKillTrial(cluster, kase, { how, at });
  assert.equal(struck.wasStruck, true);
  assert.deepEqual(struck.end, whole.end, `${how} at ${whole.moments[at - 1]}`);
}

describe("a job that fails after the work of a step", { concurrency: 4 }, () => {
  // The steps of a plan's machines are those of the other kinds, and a promotion's those of a migration; the proof fails these too.
  const isSameAsOther = ({ kind, name }: KillCase): boolean => kind.startsWith("RecoveryPlan") || name === "promotes a test";
  for (const kase of killCases.filter((each) => each.ends === "succeeded" && !isSameAsOther(each)))
    it(`leaves one side able to run, nothing frozen and nothing over: ${kase.kind}`, async () => {
      for (let stepAt = 1; ; stepAt++) {
        const outcome = await runFailTrial(cluster, kase, stepAt);
        if (outcome.failedStep === undefined) return assert.ok(stepAt > 1, "the job has steps");
        assert.deepEqual(wrongAfterFailure(kase, outcome), [], `after the step ${outcome.failedStep}`);
      }
    });
});

describe("a job whose hub is struck", { concurrency: 4 }, () => {
  for (const [turn, kase] of killCases.entries())
    it(`ends as if nothing had been: ${kase.kind}, ${kase.name}`, async () => {
      await strikeInside(kase, turn);
    });
});
