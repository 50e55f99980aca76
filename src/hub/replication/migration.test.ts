// The migration control plane against a simulated site: the whole journey, each order failed, never both sides running.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { Fault, type FaultCode } from "../../contract/errors.ts";
import type { ApplianceOrder } from "../../contract/appliance-protocol.ts";
import { readJob, readSteps } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { parseItem } from "./item.ts";
import { openSimHub, simGroup, simVault, type SimHub, type SimHubOptions } from "./sim/sim-hub.ts";
import { openSimSite, type SimSite } from "./sim/sim-site.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

interface Stage extends AsyncDisposable {
  readonly hub: SimHub;
  readonly site: SimSite;
  /** Path of the first machine's protected item. */
  readonly item: string;
}

async function openStage(options: Partial<SimHubOptions> = {}, names: readonly string[] = ["web"]): Promise<Stage> {
  const database = await cluster.openFreshDatabase();
  const folder = await mkdtemp(join(tmpdir(), "wr-"));
  const hub = await openSimHub({ database, folder, limits: { probeSeconds: 1 }, jobs: { leaseMs: 2000, pollMs: 20 }, ...options });
  const site = await openSimSite(hub, folder, names);
  const close = async (): Promise<void> => {
    await hub[Symbol.asyncDispose]();
    await site[Symbol.asyncDispose]();
    await database[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  };
  return { hub, site, item: `${site.container}/replicationProtectedItems/${idOf(site, 0)}`, [Symbol.asyncDispose]: close };
}

const idOf = (site: SimSite, index: number): string => site.sources[index]?.discovered.infrastructureId ?? "";

const enableBody = (site: SimSite, index = 0): object => ({
  properties: {
    protectableItemId: `${site.container}/replicationProtectableItems/${idOf(site, index)}`,
    policyId: `${simVault}/replicationPolicies/default`,
    providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "root" },
  },
});
const probe = { port: 8080, path: "/", timeoutSeconds: 1 };
const testBody = {
  properties: { networkType: "NoNetworkAttachAsInput", providerSpecificDetails: { instanceType: "InMageAzureV2", probe } },
};
const migrateBody = {
  properties: { sourceSiteOperations: "Required", providerSpecificDetails: { instanceType: "InMageAzureV2", network: "prod", probe } },
};

/** Calls, and waits for the job that the call began; answers its final state. */
async function change(
  hub: SimHub,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ readonly jobId: string; readonly state: string }> {
  const answer = await hub.call(method, path, body);
  const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(answer.headers?.["azure-asyncoperation"] ?? "")?.[1];
  assert.ok(jobId !== undefined, `${method} ${path} begins an operation`);
  for (;;) {
    const job = await readJob(hub.services.database.db, jobId);
    if (job?.endedAt !== undefined) return { jobId, state: job.state };
    await systemClock.sleep(10);
  }
}

const bodyShape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({
    protectionState: z.string().optional(),
    testFailoverState: z.string().optional(),
    allowedOperations: z.array(z.string()).optional(),
  }),
});
async function get(hub: SimHub, path: string): Promise<z.infer<typeof bodyShape>["properties"]> {
  return bodyShape.parse((await hub.call("GET", path)).body).properties;
}
async function list(hub: SimHub, path: string): Promise<readonly z.infer<typeof bodyShape>[]> {
  return z.object({ value: z.array(bodyShape) }).parse((await hub.call("GET", path)).body).value;
}

async function evidenceOf(hub: SimHub, jobId: string): Promise<Record<string, unknown>> {
  const steps = await readSteps(hub.services.database.db, jobId);
  return Object.assign({}, ...steps.map((step) => step.evidence)) as Record<string, unknown>;
}

async function protect(stage: Stage): Promise<void> {
  const { state } = await change(stage.hub, "PUT", stage.item, enableBody(stage.site));
  assert.equal(state, "succeeded");
}

/** A list shows the machine as a GET does, also while nothing was heard of it. */
async function proveListed(hub: SimHub, item: string): Promise<void> {
  const { db } = hub.services.database;
  const { facts } = parseItem((await hub.services.resources.get(item)).properties);
  assert.ok(facts !== undefined);
  const shown = async () => {
    const [listed, ...others] = await list(hub, `${simVault}/replicationProtectedItems`);
    assert.deepEqual([listed?.["id"], others], [item, []]);
    const details = [listed?.properties, await get(hub, item)].map((properties) => detailsShape.parse(properties).providerSpecificDetails);
    assert.deepEqual(details[0], details[1]);
    return details[0];
  };
  assert.equal((await shown())?.osVersion, facts.osName);
  const silent = await db.deleteFrom("machine_states").returningAll().execute();
  assert.equal((await shown())?.osVersion, facts.osName);
  assert.equal((await shown())?.agentVersion, "");
  for (const row of silent)
    await db
      .insertInto("machine_states")
      .values({ ...row, report: JSON.stringify(row.report) })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
}

const detailsShape = z.object({
  providerSpecificDetails: z.object({
    ...{ osVersion: z.string(), agentVersion: z.string(), sourceVmCpuCount: z.number() },
    ...{ vmNics: z.array(z.unknown()), azureVMDiskDetails: z.array(z.unknown()) },
  }),
});

const isFault = (code: FaultCode) => (error: unknown) => error instanceof Fault && error.code === code;

describe("a migration", { concurrency: 4 }, () => {
  it("goes from discovery to completion through the ARM dialect", async () => {
    await using stage = await openStage();
    const { hub, site, item } = stage;
    assert.equal((await list(hub, `${simVault}/replicationFabrics`)).length, 1);
    assert.deepEqual(
      (await list(hub, `${simVault}/replicationPolicies`)).map((policy) => policy.name),
      ["default"],
    );
    assert.equal((await list(hub, `${site.container}/replicationProtectableItems`))[0]?.properties["protectionStatus"], "Unprotected");

    await protect(stage);
    const item1 = await get(hub, item);
    assert.equal(item1.protectionState, "Protected");
    assert.equal(item1["replicationHealth"], "Normal");
    assert.deepEqual(item1.allowedOperations, ["TestFailover", "UnplannedFailover", "DisableProtection", "RepairReplication"]);
    await proveListed(hub, item);
    assert.equal((await list(hub, `${item}/recoveryPoints`)).length, 1);

    const tested = await change(hub, "POST", `${item}/testFailover`, testBody);
    assert.equal(tested.state, "succeeded");
    assert.equal((await get(hub, item)).testFailoverState, "TestMigrationSucceeded");
    const testEvidence = await evidenceOf(hub, tested.jobId);
    assert.equal(testEvidence["probeBody"], "hello from web");
    assert.ok(typeof testEvidence["orderToProbeSeconds"] === "number");
    assert.deepEqual(await hub.target.list(), ["web-test"]);
    assert.equal((await list(hub, `${simGroup}/providers/Microsoft.Compute/virtualMachines`)).length, 1);
    await assert.rejects(hub.call("POST", `${item}/unplannedFailover`, migrateBody), isFault("StateConflict"));
    assert.equal((await change(hub, "POST", `${item}/testFailoverCleanup`, { properties: { comments: "fine" } })).state, "succeeded");
    assert.deepEqual(await hub.target.list(), []);
    assert.deepEqual(await list(hub, `${simGroup}/providers/Microsoft.Compute/virtualMachines`), []);

    const migrated = await change(hub, "POST", `${item}/unplannedFailover`, migrateBody);
    assert.equal(migrated.state, "succeeded");
    const evidence = await evidenceOf(hub, migrated.jobId);
    assert.deepEqual(evidence["equalRoots"], evidence["sourceRoots"]);
    assert.ok(Number(evidence["downtimeSeconds"]) >= 0);
    assert.equal((await get(hub, item)).protectionState, "UnplannedFailoverCommitPending");
    assert.deepEqual([site.sources[0]?.isOn, (await hub.target.status("web")).power], [false, "running"]);
    assert.equal((await hub.target.status("web")).bytesToFill, 0);

    assert.equal((await change(hub, "POST", `${item}/failoverCommit`)).state, "succeeded");
    const complete = {
      properties: { disableProtectionReason: "MigrationComplete", replicationProviderInput: { instanceType: "InMageAzureV2" } },
    };
    assert.equal((await change(hub, "POST", `${item}/remove`, complete)).state, "succeeded");
    await assert.rejects(hub.call("GET", item), isFault("NotFound"));
    assert.deepEqual(hub.journal.read("web"), { lines: ["source web on", "source web off", "target web on"], ranBoth: false });
    assert.equal((await list(hub, `${simVault}/replicationJobs`)).length, 6);
    assert.deepEqual(site.appliance.done.at(-1), "unprotect");
  });

  it("can be cancelled before the commit, and the source runs again", async () => {
    await using stage = await openStage();
    const { hub, item, site } = stage;
    await protect(stage);
    assert.equal((await change(hub, "POST", `${item}/unplannedFailover`, migrateBody)).state, "succeeded");
    assert.equal((await change(hub, "POST", `${item}/failoverCancel`)).state, "succeeded");
    assert.equal((await get(hub, item)).protectionState, "Protected");
    assert.deepEqual([site.sources[0]?.isOn, await hub.target.list()], [true, []]);
    assert.equal(hub.journal.read("web").ranBoth, false);
  });

  it("lands under the name and in the network that a PATCH gave", async () => {
    await using stage = await openStage();
    const { hub, item } = stage;
    await protect(stage);
    const patch = {
      properties: {
        recoveryAzureVMName: "Web Server",
        selectedRecoveryAzureNetworkId: `${simGroup}/providers/Microsoft.Network/virtualNetworks/prod`,
      },
    };
    assert.equal((await hub.call("PATCH", item, patch)).status, 202);
    const body = { properties: { providerSpecificDetails: { instanceType: "InMageAzureV2" } } };
    assert.equal((await change(hub, "POST", `${item}/unplannedFailover`, body)).state, "succeeded");
    assert.deepEqual(await hub.target.list(), ["web-server"]);
    const [machine] = await list(hub, `${simGroup}/providers/Microsoft.Compute/virtualMachines`);
    assert.deepEqual(z.looseObject({ network: z.unknown() }).parse(machine?.properties["watari"]).network, { kind: "named", name: "prod" });
    await assert.rejects(hub.call("PATCH", item, patch), isFault("StateConflict"));
    const held = `${simGroup}/providers/Microsoft.Compute/virtualMachines/web-server`;
    await assert.rejects(hub.call("DELETE", held), isFault("StateConflict"));
  });

  it("serves a test machine's recovery point again after the hub was restarted", async () => {
    const database = await cluster.openFreshDatabase();
    const folder = await mkdtemp(join(tmpdir(), "wr-"));
    const options = { database, folder, limits: { probeSeconds: 1 }, jobs: { leaseMs: 2000, pollMs: 20 } };
    const first = await openSimHub(options);
    const site = await openSimSite(first, folder, ["web"]);
    const item = `${site.container}/replicationProtectedItems/${idOf(site, 0)}`;
    await change(first, "PUT", item, enableBody(site));
    await change(first, "POST", `${item}/testFailover`, testBody);
    await first[Symbol.asyncDispose]();
    const second = await openSimHub(options);
    assert.equal((await second.target.probe("web-test", probe, 1)).kind, "answered");
    assert.equal((await change(second, "POST", `${item}/testFailoverCleanup`, {})).state, "succeeded");
    assert.deepEqual(await second.target.list(), []);
    await second[Symbol.asyncDispose]();
    await site[Symbol.asyncDispose]();
    await database[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  const failures: readonly [ApplianceOrder["kind"], FaultCode][] = [
    ["verify", "AgentSilent"],
    ["point", "AgentSilent"],
    ["quiesce", "FreezeFailed"],
    ["fence", "FenceUnconfirmed"],
  ];
  for (const [kind, code] of failures)
    it(`leaves the source running when the order ${kind} fails, and works when called again`, async () => {
      await using stage = await openStage();
      await protect(stage);
      stage.site.appliance.failures.set(kind, { times: 1, code });
      await failsAndRecovers(stage, code);
    });

  for (const call of ["before launch", "after launch", "before probe", "after probe", "before fill"])
    it(`rolls back when the target fails ${call}, and works when called again`, async () => {
      let isArmed = false;
      const onCall = (name: string): void => {
        if (name !== call || !isArmed) return;
        isArmed = false;
        throw new Fault("ConnectionFailed", "the target failed as told", { retry: "never" });
      };
      await using stage = await openStage({ onCall });
      await protect(stage);
      isArmed = true;
      await failsAndRecovers(stage, "ConnectionFailed");
      assert.deepEqual(
        stage.hub.journal.read("web").lines.slice(0, 3),
        ["source web on", "source web off", ...journalAfter(call)].slice(0, 3),
      );
    });

  const journalAfter = (call: string): readonly string[] => (call === "before launch" ? ["target web off"] : ["target web on"]);

  it("stops before the fence when source and replica differ", async () => {
    await using stage = await openStage();
    await protect(stage);
    stage.site.appliance.tellsWrongRoots = true;
    const { jobId, state } = await change(stage.hub, "POST", `${stage.item}/unplannedFailover`, migrateBody);
    assert.deepEqual([state, (await readJob(stage.hub.services.database.db, jobId))?.fault?.id], ["failed", "RootsDiffer"]);
    assert.equal(stage.site.appliance.done.includes("fence"), false);
    assert.equal(stage.site.sources[0]?.frozenUntilMs, undefined);
    assert.equal((await get(stage.hub, stage.item)).protectionState, "Protected");
  });

  it("does not land when the hold may have ended before the source was off", async () => {
    await using stage = await openStage({ limits: { holdSeconds: 0.001 } });
    await protect(stage);
    const { jobId, state } = await change(stage.hub, "POST", `${stage.item}/unplannedFailover`, migrateBody);
    assert.deepEqual([state, (await readJob(stage.hub.services.database.db, jobId))?.fault?.id], ["failed", "QuiesceVoid"]);
    assert.deepEqual([stage.site.sources[0]?.isOn, await stage.hub.target.list()], [true, []]);
  });

  it("does not switch the source on while a target that could not be removed exists", async () => {
    let isBroken = true;
    const onCall = (name: string): void => {
      if (isBroken && (name === "before probe" || name === "before remove"))
        throw new Fault("Internal", "the target is broken", { retry: "never" });
    };
    await using stage = await openStage({ onCall });
    const { hub, site, item } = stage;
    await protect(stage);
    assert.equal((await change(hub, "POST", `${item}/unplannedFailover`, migrateBody)).state, "failed");
    assert.equal((await get(hub, item)).protectionState, "UnplannedFailoverFailed");
    assert.deepEqual([site.sources[0]?.isOn, await hub.target.list()], [false, ["web"]]);
    isBroken = false;
    assert.equal((await change(hub, "POST", `${item}/failoverCancel`)).state, "succeeded");
    assert.deepEqual([site.sources[0]?.isOn, await hub.target.list(), hub.journal.read("web").ranBoth], [true, [], false]);
  });
});

/** A migration that fails leaves the source on, thawed and protected, and nothing on the target; the next one succeeds. */
async function failsAndRecovers({ hub, site, item }: Stage, code: FaultCode): Promise<void> {
  const { jobId, state } = await change(hub, "POST", `${item}/unplannedFailover`, migrateBody);
  assert.equal(state, "failed");
  const job = await readJob(hub.services.database.db, jobId);
  assert.equal(job?.fault?.id, code);
  const steps = await readSteps(hub.services.database.db, jobId);
  assert.deepEqual(
    steps.filter((step) => step.undoState === "failed"),
    [],
  );
  const source = site.sources[0];
  assert.deepEqual([source?.isOn, source?.frozenUntilMs, await hub.target.list()], [true, undefined, []]);
  assert.equal((await get(hub, item)).protectionState, "Protected");
  assert.deepEqual(await list(hub, `${simGroup}/providers/Microsoft.Compute/virtualMachines`), []);
  assert.equal((await change(hub, "POST", `${item}/unplannedFailover`, migrateBody)).state, "succeeded");
  assert.equal(hub.journal.read("web").ranBoth, false);
}

describe("enabling replication", { concurrency: 4 }, () => {
  it("is refused for a machine that is protected, also under another name", async () => {
    await using stage = await openStage();
    await protect(stage);
    const other = `${stage.site.container}/replicationProtectedItems/other`;
    await assert.rejects(stage.hub.call("PUT", other, enableBody(stage.site)), isFault("AlreadyProtected"));
    assert.equal((await change(stage.hub, "PUT", stage.item, enableBody(stage.site))).state, "succeeded");
    assert.equal(stage.site.appliance.done.filter((kind) => kind === "protect").length, 1);
  });

  it("is refused for a clone, a missing role, an unknown account and an unknown machine, and leaves nothing", async () => {
    let hasRole = false;
    await using stage = await openStage({ hasStorageRole: () => hasRole }, ["web", "clone"]);
    const { hub, site, item } = stage;
    await assert.rejects(hub.call("PUT", item, enableBody(site)), isFault("StorageRoleMissing"));
    hasRole = true;
    const unknown = {
      properties: {
        protectableItemId: `${site.container}/replicationProtectableItems/none`,
        providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "root" },
      },
    };
    await assert.rejects(hub.call("PUT", item, unknown), isFault("MachineNotDiscovered"));
    const account = {
      properties: {
        ...unknown.properties,
        protectableItemId: `${site.container}/replicationProtectableItems/${idOf(site, 0)}`,
        providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "nobody" },
      },
    };
    await assert.rejects(hub.call("PUT", item, account), isFault("InputInvalid"));
    assert.deepEqual(await list(hub, `${simVault}/replicationProtectedItems`), []);
    await protect(stage);
    const [web, clone] = site.sources;
    assert.ok(web !== undefined && clone !== undefined);
    clone.discovered.smbiosUuid = web.discovered.smbiosUuid;
    await site.appliance.discover([clone]);
    await assert.rejects(
      hub.call("PUT", `${site.container}/replicationProtectedItems/clone`, enableBody(site, 1)),
      isFault("MachineCloned"),
    );
  });

  it("works after the repair by the same call when the push fails", async () => {
    await using stage = await openStage();
    const { hub, site, item } = stage;
    site.appliance.failures.set("protect", { times: 1, code: "GuestPasswordWrong" });
    assert.equal((await change(hub, "PUT", item, enableBody(site))).state, "failed");
    const failed = await get(hub, item);
    assert.equal(failed.protectionState, "EnablingFailed");
    assert.match(JSON.stringify(failed["healthErrors"]), /GuestPasswordWrong/);
    assert.equal(site.sources[0]?.hasAgent, false);
    await protect(stage);
    const repaired = await get(hub, item);
    assert.deepEqual([repaired.protectionState, repaired["healthErrors"]], ["Protected", []]);
    assert.equal((await list(hub, `${simVault}/replicationProtectedItems`)).length, 1);
    // The same call again is answered with what stands.
    await protect(stage);
    assert.equal((await get(hub, item)).protectionState, "Protected");
  });

  it("leaves the machine clean when the push fails, and works after a removal", async () => {
    await using stage = await openStage();
    const { hub, site, item } = stage;
    site.appliance.failures.set("protect", { times: 1, code: "GuestPasswordWrong" });
    assert.equal((await change(hub, "PUT", item, enableBody(site))).state, "failed");
    assert.equal((await get(hub, item)).protectionState, "EnablingFailed");
    assert.equal((await change(hub, "POST", `${item}/remove`, {})).state, "succeeded");
    await protect(stage);
  });

  it("is undone when it is cancelled while the agent is pushed", async () => {
    await using stage = await openStage();
    const { hub, site, item } = stage;
    site.appliance.slownessMs = 300;
    const answer = await hub.call("PUT", item, enableBody(site));
    const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(answer.headers?.["azure-asyncoperation"] ?? "")?.[1] ?? "";
    while ((await readSteps(hub.services.database.db, jobId)).every((step) => step.name !== "install" || step.state !== "running"))
      await systemClock.sleep(10);
    await hub.call("POST", `${simVault}/replicationJobs/${jobId}/cancel`, {});
    let job = await readJob(hub.services.database.db, jobId);
    while (job?.endedAt === undefined) {
      await systemClock.sleep(10);
      job = await readJob(hub.services.database.db, jobId);
    }
    assert.equal(job.state, "cancelled");
    assert.equal(site.sources[0]?.hasAgent, false);
  });
});
