// How a cut-over ends: committed by hand, at once, after probes, or taken back by probes and by the clock; fenced by hand; with its predicted downtime.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { resumeJob } from "./sim/resume-job.ts";
import { readSteps } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { findLanded } from "./landed.ts";
import { simGroup } from "./sim/sim-hub.ts";
import { openSimStage, simProvider, type SimStage } from "./sim/sim-stage.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const migrateBody = (more: object = {}): object => ({
  properties: { sourceSiteOperations: "Required", providerSpecificDetails: { ...simProvider, network: "prod", ...more } },
});

async function evidenceOf({ hub }: SimStage, jobId: string): Promise<Record<string, unknown>> {
  const steps = await readSteps(hub.services.database.db, jobId);
  return Object.assign({}, ...steps.map((step) => step.evidence)) as Record<string, unknown>;
}

async function untilState(stage: SimStage, state: string): Promise<void> {
  while ((await stage.get()).protectionState !== state) await systemClock.sleep(20);
}

const silent = { kind: "serial", text: "nobody says this", timeoutSeconds: 1 };

describe("the end of a cut-over", { concurrency: 4 }, () => {
  it("is a commit by itself, where that is wanted and what must pass has passed", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const nothingAsked = stage.change("POST", `${stage.item}/unplannedFailover`, migrateBody({ commit: { mode: "afterProbes" } }));
    await assert.rejects(nothingAsked, { code: "InputInvalid" });
    await stage.done("POST", "unplannedFailover", migrateBody({ commit: { mode: "afterProbes" }, actions: [{ kind: "ssh" }] }));
    assert.equal((await stage.get()).protectionState, "CommitFailoverCompleted");
    assert.deepEqual([stage.site.sources[0]?.isOn, await stage.hub.target.list()], [false, ["web"]]);
  });

  it("is the way back, when an action that must pass does not", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const wish = migrateBody({ commit: { mode: "afterProbes" }, actions: [{ kind: "ssh" }, silent] });
    const { state, fault } = await stage.change("POST", `${stage.item}/unplannedFailover`, wish);
    assert.deepEqual([state, (await stage.get()).protectionState], ["failed", "Protected"]);
    assert.match(fault, /did not pass/);
    assert.deepEqual([stage.site.sources[0]?.isOn, await stage.hub.target.list()], [true, []]);
    assert.equal(stage.hub.journal.read("web").ranBoth, false);
  });

  it("is the way back, when nobody has committed in time", async () => {
    // Minutes pass by the clock that the hub is given.
    let aheadMs = 0;
    const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + aheadMs };
    await using stage = await openSimStage(cluster, { clock, limits: { watchMs: 30, probeSeconds: 1 } });
    await stage.protect();
    await stage.done("POST", "unplannedFailover", migrateBody({ commit: { mode: "byHand", minutesMax: 30 } }));
    assert.equal((await stage.get()).protectionState, "UnplannedFailoverCommitPending");
    aheadMs = 31 * 60_000;
    await untilState(stage, "Protected");
    assert.deepEqual([stage.site.sources[0]?.isOn, await stage.hub.target.list()], [true, []]);
    assert.equal(stage.hub.journal.read("web").ranBoth, false);
  });

  it("is compared with what was predicted before it began", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const predicted = async () =>
      z
        .looseObject({
          seconds: z.number(),
          confidence: z.string(),
          parts: z.array(z.looseObject({ name: z.string(), basis: z.string() })),
        })
        .parse((await stage.hub.call("POST", `${stage.item}/predictDowntime`, {})).body);
    assert.equal((await predicted()).confidence, "low");
    await stage.done("POST", "rehearse", { properties: { actions: [{ kind: "ssh" }] } });
    assert.equal((await predicted()).parts.find(({ name }) => name === "boot")?.basis, "own");
    const first = await evidenceOf(stage, await stage.done("POST", "unplannedFailover", migrateBody()));
    const comparison = z.looseObject({ actualSeconds: z.number(), predictedSeconds: z.number(), isWithinRange: z.boolean() });
    assert.equal(comparison.parse(first["downtime"]).isWithinRange, false, "seconds were assumed, and a simulated source takes none");
    await stage.done("POST", "failoverCancel", {});
    assert.equal((await predicted()).confidence, "high");
  });

  it("may be fenced by hand: a person says so by name, and the source must not be heard of again", async () => {
    await using stage = await openSimStage(cluster, { limits: { probeSeconds: 1, handFenceSeconds: 0.3 } });
    await stage.protect();
    const [source] = stage.site.sources;
    const begin = async (): Promise<string> => {
      const answer = await stage.hub.call("POST", `${stage.item}/unplannedFailover`, migrateBody({ fence: "byHand" }));
      return /operationStatuses\/([0-9a-f-]+)/.exec(answer.headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation");
    };
    const refused = await resumeJob(stage, await begin(), "done");
    assert.deepEqual([refused.state, source?.isOn, await stage.hub.target.list()], ["failed", true, []]);
    assert.match(refused.fault, /comment does not say so/);

    const jobId = await begin();
    const done = await resumeJob(stage, jobId, "web is off", () => {
      // As a person does at the hypervisor.
      if (source !== undefined) source.isOn = false;
    });
    assert.deepEqual([done.state, await stage.hub.target.list()], ["succeeded", ["web"]]);
    assert.equal((await evidenceOf(stage, jobId))["fencedBy"], "test");
    assert.ok(!stage.site.appliance.done.includes("fence"));
  });

  it("of a promoted test machine lands what was tested with the final disks, and only then takes the test away", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await assert.rejects(stage.hub.call("POST", `${stage.item}/promote`, migrateBody()), { code: "StateConflict" });
    await stage.done("POST", "testFailover", { properties: { providerSpecificDetails: { ...simProvider } } });
    const failed = await stage.change("POST", `${stage.item}/promote`, migrateBody({ actions: [silent] }));
    assert.equal(failed.state, "failed");
    assert.deepEqual([(await stage.get()).testFailoverState, await stage.hub.target.list()], ["TestMigrationSucceeded", ["web-test"]]);
    assert.equal(stage.site.sources[0]?.isOn, true);

    stage.site.sources[0]?.write(systemClock.nowMs(), 77);
    const evidence = await evidenceOf(stage, await stage.done("POST", "promote", migrateBody()));
    assert.ok(evidence["testRemovedAt"] !== undefined);
    const landed = await findLanded(stage.hub.services.database.db, `${simGroup}/providers/Microsoft.Compute/virtualMachines/web`);
    assert.equal(landed?.purpose === "migrated" ? landed.pointId : undefined, evidence["pointId"]);
    assert.deepEqual(
      [(await stage.get()).protectionState, (await stage.get()).testFailoverState],
      ["UnplannedFailoverCommitPending", "None"],
    );
    assert.deepEqual([await stage.hub.target.list(), stage.hub.journal.read("web").ranBoth], [["web"], false]);
  });
});
