// Actions of a protected item beside the plain migration: points, resynchronisation, a lost site, dismissed errors, refusals.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { Fault, toReport, type FaultCode } from "../../contract/errors.ts";
import { readSteps } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { landedShape } from "./landed.ts";
import { simVault } from "./sim/sim-hub.ts";
import { openSimStage, simProvider, type SimStage } from "./sim/sim-stage.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const isFault = (code: FaultCode) => (error: unknown) => error instanceof Fault && error.code === code;
const migrateBody = (details: object = {}, over: object = {}): object => ({
  properties: { ...over, providerSpecificDetails: { ...simProvider, network: "prod", ...details } },
});
const pointNames = async ({ list, item }: SimStage): Promise<readonly string[]> =>
  (await list(`${item}/recoveryPoints`)).map(({ name }) => name);
const evidenceOf = async ({ hub }: SimStage, jobId: string): Promise<Record<string, unknown>> =>
  Object.assign({}, ...(await readSteps(hub.services.database.db, jobId)).map((step) => step.evidence)) as Record<string, unknown>;

describe("recovery points of a migration", { concurrency: 4 }, () => {
  it("are changed before the commit, as often as wanted, with the source off all the time", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await stage.done("POST", "unplannedFailover", migrateBody());
    const [final = "", ...older] = await pointNames(stage);
    const oldest = older.at(-1) ?? "";
    assert.equal((await stage.get())["failoverRecoveryPointId"], `${stage.item}/recoveryPoints/${final}`);
    const apply = (recoveryPointId: string): object => ({ properties: { recoveryPointId, providerSpecificDetails: simProvider } });
    await stage.done("POST", "applyRecoveryPoint", apply(`${stage.item}/recoveryPoints/${oldest}`));
    const changed = await stage.get();
    assert.equal(changed["failoverRecoveryPointId"], `${stage.item}/recoveryPoints/${oldest}`);
    assert.deepEqual(changed.allowedOperations, ["Commit", "CancelFailover", "ChangePit"]);
    await stage.done("POST", "applyRecoveryPoint", apply(final));
    assert.deepEqual([await stage.hub.target.list(), stage.site.sources[0]?.isOn], [["web"], false]);
    await assert.rejects(
      stage.hub.call("POST", `${stage.item}/applyRecoveryPoint`, apply("00000000-0000-7000-8000-000000000000")),
      isFault("InputInvalid"),
    );
    await stage.done("POST", "failoverCommit");
    await assert.rejects(stage.hub.call("POST", `${stage.item}/applyRecoveryPoint`, apply(final)), isFault("StateConflict"));
    assert.equal(stage.hub.journal.read("web").ranBoth, false);
  });

  it("can be chosen for the migration itself: by id, and by type", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await stage.done("POST", "repairReplication");
    const oldest = (await pointNames(stage)).at(-1) ?? "";
    await assert.rejects(
      stage.hub.call("POST", `${stage.item}/unplannedFailover`, migrateBody({ recoveryPointType: "LatestApplicationConsistent" })),
      isFault("ReplicationNotReady"),
    );
    const jobId = await stage.done("POST", "unplannedFailover", migrateBody({ recoveryPointId: oldest }));
    const evidence = await evidenceOf(stage, jobId);
    assert.equal(evidence["pointId"], oldest);
    assert.equal(evidence["quiescedAt"], undefined);
    assert.deepEqual(stage.site.appliance.done, ["protect", "verify", "fence"]);
    await stage.done("POST", "failoverCancel");
    const latest = (await pointNames(stage))[0];
    const again = await stage.done("POST", "unplannedFailover", migrateBody({ recoveryPointType: "LatestCrashConsistent" }));
    assert.equal((await evidenceOf(stage, again))["pointId"], latest);
  });
});

describe("application-consistent points", () => {
  const pointsOf = async (stage: SimStage): Promise<readonly unknown[]> =>
    (await stage.list(`${stage.item}/recoveryPoints`)).map(({ properties }) => properties["recoveryPointType"]);

  it("are made as the policy asks, can be chosen, and say as an event why one was missed", async () => {
    await using stage = await openSimStage(cluster);
    const policy = { providerSpecificInput: { ...simProvider, pointIntervalSeconds: 3600, appConsistentFrequencyInMinutes: 60 } };
    await stage.hub.call("PUT", `${simVault}/replicationPolicies/default`, { properties: policy });
    await stage.protect();
    assert.equal(stage.site.sources[0]?.policy?.applicationIntervalMinutes, 60);
    assert.deepEqual(await pointsOf(stage), ["ApplicationConsistent"]);
    const [consistent] = await pointNames(stage);
    const [source] = stage.site.sources;
    assert.ok(source !== undefined);
    source.scriptsFault = toReport(new Fault("ScriptFailed", "--pre ended with 7", { evidence: { output: "no space" } }));
    await stage.done("POST", "repairReplication");
    assert.deepEqual(await pointsOf(stage), ["CrashConsistent", "ApplicationConsistent"]);
    const events = (await stage.list(`${simVault}/replicationEvents`)).map(({ properties }) => properties);
    const missed = events.filter((event) => event["eventCode"] === "ApplicationConsistentPointMissed");
    assert.equal(missed.length, 1);
    assert.match(JSON.stringify(missed[0]), /--pre ended with 7/);
    const jobId = await stage.done("POST", "unplannedFailover", migrateBody({ recoveryPointType: "LatestApplicationConsistent" }));
    assert.equal((await evidenceOf(stage, jobId))["pointId"], consistent);
  });
});

describe("a migration without the source's site", { concurrency: 4 }, () => {
  const without = migrateBody({}, { sourceSiteOperations: "NotRequired" });

  it("is refused while anything says that the source runs", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const { state, fault } = await stage.change("POST", `${stage.item}/unplannedFailover`, without);
    assert.equal(state, "failed");
    assert.match(fault, /the source may still run/);
    assert.equal((await stage.get()).protectionState, "Protected");
    assert.deepEqual(await stage.hub.target.list(), []);
  });

  it("lands from the latest processed point once the site is lost, and leaves the order to switch the source off", async () => {
    await using stage = await openSimStage(cluster, { limits: { probeSeconds: 1, silentSeconds: 0 } });
    await stage.protect();
    await stage.site.appliance[Symbol.asyncDispose]();
    const [latest] = await pointNames(stage);
    const jobId = await stage.done("POST", "unplannedFailover", without);
    assert.equal((await evidenceOf(stage, jobId))["pointId"], latest);
    const left = await stage.hub.services.database.db
      .selectFrom("orders")
      .select(["kind", "job_id"])
      .where("state", "=", "queued")
      .execute();
    assert.deepEqual(left, [{ kind: "fence", job_id: null }]);
    assert.deepEqual(await stage.hub.target.list(), ["web"]);
  });
});

describe("a resynchronisation", { concurrency: 4 }, () => {
  it("makes the agent compare everything, and tells when and what it repaired", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await stage.done("POST", "repairReplication");
    assert.deepEqual(stage.site.appliance.done, ["protect", "verify"]);
    assert.equal((await pointNames(stage)).length, 2);
    assert.equal((await stage.get()).protectionState, "Protected");
  });

  it("leaves its fault as a health error that can be dismissed, once", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    stage.site.appliance.failures.set("verify", { times: 1, code: "AgentSilent" });
    assert.equal((await stage.change("POST", `${stage.item}/repairReplication`)).state, "failed");
    const { healthErrors = [], ...failed } = await stage.get();
    assert.equal(failed["replicationHealth"], "Warning");
    assert.deepEqual(
      healthErrors.map(({ errorCode, customerResolvability }) => [errorCode, customerResolvability]),
      [["AgentSilent", "Allowed"]],
    );
    const dismiss = { properties: { healthErrors: healthErrors.map(({ errorId }) => ({ healthErrorId: errorId })) } };
    await stage.done("POST", "resolveHealthErrors", dismiss);
    assert.deepEqual((await stage.get()).healthErrors, []);
    await assert.rejects(stage.hub.call("POST", `${stage.item}/resolveHealthErrors`, dismiss), isFault("InputInvalid"));
  });
});

describe("the agent and its disks", { concurrency: 4 }, () => {
  it("are changed while the machine is replicated: a disk left out and taken in again, and what lands follows", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const remove = (diskId: string): object => ({
      properties: { providerSpecificDetails: { instanceType: "A2A", vmManagedDisksIds: [diskId] } },
    });
    const shown = async (): Promise<unknown> =>
      z
        .object({ protectedDisks: z.array(z.object({ diskId: z.string() })) })
        .parse((await stage.get()).providerSpecificDetails)
        .protectedDisks.map(({ diskId }) => diskId);
    await stage.done("POST", "removeDisks", remove("disk-1"));
    assert.deepEqual(await shown(), ["disk-0"]);
    for (const wrong of ["disk-0", "disk-1", "disk-7"])
      await assert.rejects(stage.hub.call("POST", `${stage.item}/removeDisks`, remove(wrong)), isFault("InputInvalid"), wrong);
    const jobId = await stage.done("POST", "unplannedFailover", migrateBody());
    assert.ok(Array.isArray((await evidenceOf(stage, jobId))["equalRoots"]));
    const landed = await stage.hub.services.resources.list({
      under: "",
      isDeep: true,
      type: "Microsoft.Compute/virtualMachines",
      countMax: 9,
    });
    assert.deepEqual(
      landed.flatMap(({ properties }) => landedShape.parse(properties).launch.disks.map(({ diskId }) => diskId)),
      ["disk-0"],
    );
    await stage.done("POST", "failoverCancel");
    await stage.done("POST", "addDisks", {
      properties: { providerSpecificDetails: { instanceType: "A2A", vmManagedDisks: [{ diskId: "disk-1" }] } },
    });
    assert.deepEqual(await shown(), ["disk-0", "disk-1"]);
  });

  it("are left as they were when the point of the new choice cannot be made", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    stage.site.appliance.failures.set("point", { times: 1, code: "AgentSilent" });
    const body = { properties: { providerSpecificDetails: { ...simProvider, disksToRemove: [{ diskId: "disk-1" }] } } };
    assert.equal((await stage.change("POST", `${stage.item}/removeDisks`, body)).state, "failed");
    assert.deepEqual([...(stage.site.sources[0]?.excludedDisks ?? [])], []);
  });

  it("is updated by the appliance, by an account that it has", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await assert.rejects(
      stage.hub.call("POST", `${stage.item}/updateMobilityService`, { properties: { runAsAccountId: "nobody" } }),
      isFault("InputInvalid"),
    );
    await stage.done("POST", "updateMobilityService", { properties: { runAsAccountId: "root" } });
    assert.equal((await stage.get()).providerSpecificDetails?.["agentVersion"], "sim-2");
  });
});

describe("a protected item refuses", { concurrency: 4 }, () => {
  it("what the provider does not have, saying what to call", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    for (const action of ["plannedFailover", "reProtect", "switchProvider"])
      await assert.rejects(stage.hub.call("POST", `${stage.item}/${action}`, { properties: {} }), isFault("OperationNotSupported"), action);
    const refused = [
      ["testFailover", { failoverDirection: "RecoveryToPrimary" }, {}, "OperationNotSupported"],
      ["testFailover", {}, { osUpgradeVersion: "Windows Server 2022" }, "OperationNotSupported"],
      ["testFailover", { networkType: "VmNetworkAsInput" }, { network: undefined }, "InputInvalid"],
      ["unplannedFailover", { failoverDirection: "RecoveryToPrimary" }, {}, "OperationNotSupported"],
      ["unplannedFailover", {}, { osUpgradeVersion: "x" }, "OperationNotSupported"],
      ["unplannedFailover", {}, { recoveryPointId: "not-an-id" }, "InputInvalid"],
    ] as const;
    for (const [action, over, details, code] of refused)
      await assert.rejects(stage.hub.call("POST", `${stage.item}/${action}`, migrateBody(details, over)), isFault(code), action);
  });
});
