// Recovery plans against a simulated site: waves in order, people between them, what a failure and a cancel leave, few places for many.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { z } from "zod";
import { systemClock, toTimestamp } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { forEachParallel } from "../../base/semaphore.ts";
import type { SealedPointReport } from "../../contract/appliance-protocol.ts";
import { Fault, type FaultCode } from "../../contract/errors.ts";
import { parseMachineId, parsePointId } from "../../contract/ids.ts";
import { resumeJob } from "../jobs/job-control.ts";
import type { JobRecord } from "../jobs/job.ts";
import { readJob } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimHub, simVault, type SimHub, type SimHubOptions } from "./sim/sim-hub.ts";
import { openSimSite, type SimSite } from "./sim/sim-site.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

interface Stage extends AsyncDisposable {
  readonly hub: SimHub;
  readonly site: SimSite;
  /** Paths of the protected items, in the order of the machines' names. */
  readonly items: readonly string[];
}

const plan = `${simVault}/replicationRecoveryPlans/plan`;
const probe = { port: 80, path: "/", timeoutSeconds: 1 };
const details = [{ instanceType: "InMageAzureV2", recoveryPointType: "Latest", probe }];
const failoverDirection = "PrimaryToRecovery";
const testBody = { properties: { failoverDirection, networkType: "NoNetworkAttachAsInput", providerSpecificDetails: details } };
const failoverBody = { properties: { failoverDirection, sourceSiteOperations: "Required", providerSpecificDetails: details } };
const cleanupBody = { properties: { comments: "looked well" } };

/** A site whose machines are all protected and know their network. */
async function openStage(names: readonly string[], options: Partial<SimHubOptions> = {}, group?: string): Promise<Stage> {
  const database = await cluster.openFreshDatabase();
  const folder = await mkdtemp(join(tmpdir(), "wp-"));
  const limits = { probeSeconds: 1, pollMs: 20 };
  const hub = await openSimHub({ database, folder, limits, jobs: { leaseMs: 2000, pollMs: 20 }, ...options });
  const site = await openSimSite(hub, folder, names);
  const close = async (): Promise<void> => {
    await hub[Symbol.asyncDispose]();
    await site[Symbol.asyncDispose]();
    await database[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  };
  const items = site.sources.map((source) => `${site.container}/replicationProtectedItems/${source.discovered.infrastructureId}`);
  if (group !== undefined) {
    const providerSpecificInput = { instanceType: "InMageAzureV2", pointIntervalSeconds: 3600, multiVmSyncStatus: "Enable" };
    await hub.call("PUT", `${simVault}/replicationPolicies/default`, { properties: { providerSpecificInput } });
  }
  const more = group === undefined ? {} : { multiVmGroupName: group };
  await forEachParallel(items, 4, async (item, index) => await protect(hub, site, { item, index, more }));
  return { hub, site, items, [Symbol.asyncDispose]: close };
}

async function protect(
  hub: SimHub,
  site: SimSite,
  { item, index, more }: { readonly item: string; readonly index: number; readonly more: object },
): Promise<void> {
  const protectableItemId = `${site.container}/replicationProtectableItems/${site.sources[index]?.discovered.infrastructureId}`;
  const providerSpecificDetails = { instanceType: "InMageAzureV2", runAsAccountId: "root", ...more };
  const policyId = `${simVault}/replicationPolicies/default`;
  const enabled = await change(hub, "PUT", item, { properties: { protectableItemId, policyId, providerSpecificDetails } });
  assert.equal(enabled.state, "succeeded");
  await hub.call("PATCH", item, { properties: { selectedRecoveryAzureNetworkId: "prod" } });
}

async function begin(hub: SimHub, method: string, path: string, body?: unknown): Promise<string> {
  const answer = await hub.call(method, path, body);
  const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(answer.headers?.["azure-asyncoperation"] ?? "")?.[1];
  assert.ok(jobId !== undefined, `${method} ${path} begins an operation`);
  return jobId;
}

async function until(hub: SimHub, jobId: string, isReached: (job: JobRecord) => boolean): Promise<JobRecord> {
  for (;;) {
    const job = await readJob(hub.services.database.db, jobId);
    if (job !== undefined && isReached(job)) return job;
    await systemClock.sleep(10);
  }
}

/** The job's state, with its fault where it has one: what a failed check shows. */
const toEnd = ({ state, fault }: JobRecord): unknown => (fault === undefined ? state : [state, fault.message, fault.evidence]);

const hasEnded = (job: JobRecord): boolean => job.endedAt !== undefined;

async function change(hub: SimHub, method: string, path: string, body?: unknown): Promise<JobRecord> {
  return await until(hub, await begin(hub, method, path, body), hasEnded);
}

interface GroupWish {
  readonly items: readonly string[];
  readonly start?: readonly object[];
  readonly machinesAtOnceMax?: number;
  readonly window?: object;
}

const planBody = (site: SimSite, groups: readonly GroupWish[]): object => ({
  properties: {
    primaryFabricId: site.container.split("/replicationProtectionContainers/")[0],
    recoveryFabricId: "Microsoft Azure",
    failoverDeploymentModel: "ResourceManager",
    groups: groups.map(({ items, start = [], ...more }) => ({
      ...more,
      groupType: "Boot",
      replicationProtectedItems: items.map((id) => ({ id })),
      startGroupActions: start,
      endGroupActions: [],
    })),
  },
});

const manual = (instanceType = "ManualActionDetails"): object => ({
  actionName: "look",
  failoverTypes: ["TestFailover"],
  failoverDirections: [failoverDirection],
  customDetails: { instanceType, description: "ask the owners" },
});

const planShape = z.looseObject({
  allowedOperations: z.array(z.string()),
  currentScenarioStatus: z.string(),
  currentScenario: z.looseObject({ scenarioName: z.string(), jobId: z.string() }).optional(),
  groups: z.array(z.looseObject({ replicationProtectedItems: z.array(z.looseObject({ id: z.string() })) })),
});

async function readPlan(hub: SimHub): Promise<z.infer<typeof planShape>> {
  return z.object({ properties: planShape }).parse((await hub.call("GET", plan)).body).properties;
}

/** Jobs of one kind in the order in which they began. */
async function jobsOf(
  hub: SimHub,
  kind: string,
): Promise<readonly { readonly name: string; readonly began: string; readonly ended: string }[]> {
  const found = await sql<{ name: string; began: string; ended: string }>`select target_name as name, created_at as began, ended_at as ended
    from jobs where kind = ${kind} order by created_at`.execute(hub.services.database.db);
  return found.rows;
}

const isFault =
  (code: FaultCode, evidence: RegExp = /./) =>
  (error: unknown): boolean =>
    error instanceof Fault && error.code === code && evidence.test(JSON.stringify([error.message, error.evidence]));

describe("a recovery plan", { concurrency: 4 }, () => {
  it("begins migrations within its window only, and as many at once as the group says", async () => {
    // Hours pass by the clock that the hub is given.
    let aheadMs = 0;
    const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + aheadMs };
    await using stage = await openStage(["web", "db"], { clock });
    const { hub, site, items } = stage;
    const hoursOn = (hours: number): string => toTimestamp(systemClock.nowMs() + hours * 3600_000).slice(11, 16);
    const window = { from: hoursOn(2), to: hoursOn(4) };
    await hub.call("PUT", plan, planBody(site, [{ items, machinesAtOnceMax: 1, window }]));
    const wrong = { ...window, from: "25:00" };
    await assert.rejects(hub.call("PUT", plan, planBody(site, [{ items, window: wrong }])), isFault("InputInvalid"));
    assert.deepEqual(toEnd(await change(hub, "POST", `${plan}/testFailover`, testBody)), "succeeded", "a test is not held up");
    assert.deepEqual(toEnd(await change(hub, "POST", `${plan}/testFailoverCleanup`, cleanupBody)), "succeeded");
    const jobId = await begin(hub, "POST", `${plan}/unplannedFailover`, failoverBody);
    await until(hub, jobId, ({ text }) => text.includes(`2 wait for the window, which opens at`));
    assert.deepEqual(await jobsOf(hub, "UnplannedFailover"), []);
    aheadMs = 3 * 3600_000;
    assert.deepEqual(toEnd(await until(hub, jobId, hasEnded)), "succeeded");
    const [first, second] = await jobsOf(hub, "UnplannedFailover");
    assert.ok(first !== undefined && second !== undefined && first.ended <= second.began, "one after the other");
  });

  it("is stored, listed, changed and removed, and refuses what it could not run", async () => {
    await using stage = await openStage(["web", "db"]);
    const { hub, site, items } = stage;
    const [web = "", db = ""] = items;
    const put = async (groups: readonly GroupWish[]): Promise<unknown> => await hub.call("PUT", plan, planBody(site, groups));
    await assert.rejects(put([{ items: [] }]), isFault("InputInvalid", /no protected item/));
    await assert.rejects(put([{ items: [web] }, { items: [web.toUpperCase()] }]), isFault("InputInvalid", /more than once/));
    await assert.rejects(put([{ items: [web, `${web}x`] }]), isFault("InputInvalid", /do not exist.*x"/));
    await assert.rejects(put([{ items: [web], start: [manual("AutomationRunbookActionDetails")] }]), isFault("InputInvalid", /runbooks/));
    await assert.rejects(put([{ items: [web], start: [manual("ScriptActionDetails")] }]), isFault("InputInvalid", /no scripts/));
    await put([{ items: [db] }, { items: [web] }]);
    const made = await readPlan(hub);
    assert.deepEqual(made.allowedOperations, ["TestFailover", "UnplannedFailover"]);
    assert.deepEqual(
      made.groups.map((group) => group.replicationProtectedItems.map((item) => item.id)),
      [[db], [web]],
    );
    const groups = [{ groupType: "Boot", replicationProtectedItems: [{ id: web }] }];
    await hub.call("PATCH", plan, { properties: { groups } });
    assert.equal((await readPlan(hub)).groups.length, 1);
    assert.equal(
      z.object({ value: z.array(z.unknown()) }).parse((await hub.call("GET", `${simVault}/replicationRecoveryPlans`)).body).value.length,
      1,
    );
    for (const action of ["plannedFailover", "reProtect"])
      await assert.rejects(hub.call("POST", `${plan}/${action}`, {}), isFault("OperationNotSupported"));
    await assert.rejects(hub.call("POST", `${plan}/failoverCommit`), isFault("StateConflict", /web: Protected/));
    await hub.call("DELETE", plan);
    await assert.rejects(hub.call("GET", plan), isFault("NotFound"));
  });

  it("tests, cleans up, migrates and commits its groups one after the other", async () => {
    await using stage = await openStage(["db", "web", "app"]);
    const { hub, site, items } = stage;
    const [db = "", ...others] = items;
    await hub.call("PUT", plan, planBody(site, [{ items: [db] }, { items: others }]));
    for (const [action, body, kind] of [
      ["testFailover", testBody, "TestFailover"],
      ["testFailoverCleanup", cleanupBody, "TestFailoverCleanup"],
      ["unplannedFailover", failoverBody, "UnplannedFailover"],
      ["failoverCommit", undefined, "CommitFailover"],
    ] as const) {
      assert.deepEqual(toEnd(await change(hub, "POST", `${plan}/${action}`, body)), "succeeded", action);
      const [first, ...later] = await jobsOf(hub, kind);
      assert.equal(first?.name, "db");
      assert.equal(later.length, 2);
      for (const each of later) assert.ok(each.began > (first?.ended ?? ""), `${kind}: the second group waits for the first`);
    }
    const done = await readPlan(hub);
    assert.deepEqual([done.currentScenarioStatus, done.allowedOperations], ["Succeeded", []]);
    assert.deepEqual((await hub.target.list()).toSorted(), ["app", "db", "web"]);
    assert.ok(site.sources.every((source) => !source.isOn));
  });

  it("goes back as a whole when its migration is cancelled before the commit", async () => {
    await using stage = await openStage(["web", "db"]);
    const { hub, site, items } = stage;
    await hub.call("PUT", plan, planBody(site, [{ items }]));
    assert.equal(toEnd(await change(hub, "POST", `${plan}/unplannedFailover`, failoverBody)), "succeeded");
    assert.deepEqual((await readPlan(hub)).allowedOperations, ["Commit", "CancelFailover"]);
    assert.equal(toEnd(await change(hub, "POST", `${plan}/failoverCancel`)), "succeeded");
    assert.deepEqual(await hub.target.list(), []);
    assert.ok(site.sources.every((source) => source.isOn));
  });

  it("waits for a person at a manual action and is not changed while it runs", async () => {
    await using stage = await openStage(["web"]);
    const { hub, site, items } = stage;
    await hub.call("PUT", plan, planBody(site, [{ items, start: [manual()] }]));
    const jobId = await begin(hub, "POST", `${plan}/testFailover`, testBody);
    await until(hub, jobId, (job) => job.state === "suspended");
    assert.deepEqual(await jobsOf(hub, "TestFailover"), []);
    await assert.rejects(hub.call("DELETE", plan), isFault("StateConflict"));
    await assert.rejects(hub.call("POST", `${plan}/testFailover`, testBody), isFault("StateConflict"));
    await resumeJob(hub.services.database.db, jobId, { by: "owner", comments: "go on" });
    assert.equal((await until(hub, jobId, hasEnded)).state, "succeeded");
  });

  it("ends the group of a machine that failed, begins no other, and goes on from there when it is called again", async () => {
    await using stage = await openStage(["web", "db", "app"]);
    const { hub, site, items } = stage;
    const [web = "", db = "", app = ""] = items;
    await hub.call("PUT", plan, planBody(site, [{ items: [web, db] }, { items: [app] }]));
    site.appliance.failures.set("fence", { times: 1, code: "FenceUnconfirmed" });
    const failed = await change(hub, "POST", `${plan}/unplannedFailover`, failoverBody);
    assert.equal(failed.state, "failed");
    assert.equal(failed.fault?.id, "PlanMachinesFailed");
    assert.match(JSON.stringify(failed.fault.evidence), /(web|db): FenceUnconfirmed: .*job/);
    assert.equal((await jobsOf(hub, "UnplannedFailover")).length, 2);
    assert.equal((await hub.target.list()).length, 1);
    assert.equal(toEnd(await change(hub, "POST", `${plan}/unplannedFailover`, failoverBody)), "succeeded");
    assert.equal((await jobsOf(hub, "UnplannedFailover")).length, 4);
    assert.deepEqual((await hub.target.list()).toSorted(), ["app", "db", "web"]);
  });

  it("ends between two groups when it is cancelled", async () => {
    await using stage = await openStage(["web", "db"]);
    const { hub, site, items } = stage;
    const [web = "", db = ""] = items;
    await hub.call("PUT", plan, planBody(site, [{ items: [web] }, { items: [db] }]));
    site.appliance.slownessMs = 100;
    const jobId = await begin(hub, "POST", `${plan}/unplannedFailover`, failoverBody);
    while ((await jobsOf(hub, "UnplannedFailover")).length === 0) await systemClock.sleep(10);
    await hub.call("POST", `${simVault}/replicationJobs/${jobId}/cancel`);
    assert.equal((await until(hub, jobId, hasEnded)).state, "cancelled");
    const jobs = await jobsOf(hub, "UnplannedFailover");
    assert.deepEqual(
      jobs.map((job) => [job.name, job.ended !== null]),
      [["web", true]],
    );
    assert.deepEqual(await hub.target.list(), ["web"]);
    assert.equal((await readPlan(hub)).currentScenarioStatus, "Cancelled");
  });

  it("moves twenty machines in a hub that runs two jobs at once", async () => {
    const names = Array.from({ length: 20 }, (_, index) => `m${index}`);
    await using stage = await openStage(names, { jobs: { leaseMs: 4000, pollMs: 20, jobsMax: 2 } });
    const { hub, site, items } = stage;
    await hub.call("PUT", plan, planBody(site, [{ items: items.slice(0, 12) }, { items: items.slice(12) }]));
    assert.equal(toEnd(await change(hub, "POST", `${plan}/testFailover`, testBody)), "succeeded");
    assert.equal((await hub.target.list()).length, 20);
  });

  it("lands the machines of a group at one moment, when it is asked to, and says when they have none", async () => {
    await using stage = await openStage(["web", "db"], {}, "shop");
    const { hub, site, items } = stage;
    const { db } = hub.services.database;
    await hub.call("PUT", plan, planBody(site, [{ items: items.slice(0, 1) }, { items: items.slice(1) }]));
    const bodyOf = (recoveryPointType: string): object => ({
      properties: {
        failoverDirection,
        networkType: "NoNetworkAttachAsInput",
        providerSpecificDetails: [{ ...details[0], recoveryPointType, useMultiVmSyncPoint: "Enable" }],
      },
    });
    await assert.rejects(hub.call("POST", `${plan}/testFailover`, bodyOf("Latest")), isFault("InputInvalid", /Latest/));
    await assert.rejects(hub.call("POST", `${plan}/testFailover`, bodyOf("LatestProcessed")), isFault("ReplicationNotReady", /shop.*web/));

    // What the appliance reports of the points that these machines have: they are of one moment.
    const group = { groupId: systemRandom.uuid(), groupPointId: systemRandom.uuid(), timeMs: 1_700_000_000_000, memberCount: 2 };
    await sql`update points set report = report || ${JSON.stringify({ group })}::jsonb`.execute(db);
    const together = await sql<{ machine_id: string; point_id: string }>`select machine_id, point_id from points`.execute(db);
    // Newer ones, of each machine alone, and of a group of which a third member has none.
    for (const { machine_id: machineId } of together.rows)
      for (const lone of [
        {},
        { group: { ...group, groupPointId: systemRandom.uuid() } },
        { group: { ...group, groupPointId: uuidOfThree, timeMs: 1_900_000_000_000, memberCount: 3 } },
      ])
        await hub.services.points.add(simVault, [newerPoint(machineId, lone)]);

    const job = await change(hub, "POST", `${plan}/testFailover`, bodyOf("LatestProcessed"));
    assert.equal(toEnd(job), "succeeded");
    const used = await sql<{ point: string }>`select parameters->>'pointId' as point from jobs where kind = 'TestFailover'`.execute(db);
    assert.deepEqual(used.rows.map(({ point }) => point).toSorted(), together.rows.map(({ point_id: point }) => point).toSorted());
  });
});

const uuidOfThree = systemRandom.uuid();

function newerPoint(machineId: string, more: object): SealedPointReport {
  const timeMs = 1_950_000_000_000;
  return {
    ...{ pointId: parsePointId(systemRandom.uuid()), machineId: parseMachineId(machineId), timeMs, sealedAt: toTimestamp(timeMs) },
    ...{ consistency: "crash", disks: [], readBytes: 0, sentBytes: 0, storedBytes: 0, frozenMs: 1, mode: "delta" },
    ...more,
  };
}
