// The hub killed at each call that a migration makes to the outside: another hub ends it, and the two sides never run at once.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { readJob } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimHub, simVault } from "./sim/sim-hub.ts";
import { openSimSite, type SimSite } from "./sim/sim-site.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

/** Calls to the outside, each with a moment before and a moment after it. One more shows that these are all. */
const callsOfMigration = 22;
const fenceCall = 9;
const callsOfFailedFence = 16;
const callsOfFailedLaunch = 19;

const migrateBody = {
  properties: {
    sourceSiteOperations: "Required",
    providerSpecificDetails: { instanceType: "InMageAzureV2", network: "prod", probe: { port: 80, path: "/", timeoutSeconds: 1 } },
  },
};

interface Outcome {
  readonly wasKilled: boolean;
  readonly jobState: string;
  readonly sourceIsOn: boolean;
  readonly isFrozen: boolean;
  readonly landed: readonly string[];
  readonly ranBoth: boolean;
}

/** Runs a migration in a hub that kills itself at a call; a second hub, which is idle before, ends it. */
async function migrateWithKill(killAtCall: number, prepare?: (site: SimSite) => void): Promise<Outcome> {
  await using database = await cluster.openFreshDatabase();
  const folder = await mkdtemp(join(tmpdir(), "wk-"));
  try {
    const options = { database, folder, limits: { probeSeconds: 1 } };
    // Makes the calls, takes no job away from the hub that will be killed.
    const first = await openSimHub({ ...options, jobs: { leaseMs: 1000, pollMs: 20 } });
    await using site = await openSimSite(first, folder, ["web"]);
    const id = site.sources[0]?.discovered.infrastructureId ?? "";
    const item = `${site.container}/replicationProtectedItems/${id}`;
    const settle = async (method: string, path: string, body: object): Promise<string> => {
      const answer = await first.call(method, path, body);
      return /operationStatuses\/([0-9a-f-]+)/.exec(answer.headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation");
    };
    const ended = async (jobId: string): Promise<string> => {
      for (;;) {
        const job = await readJob(database.db, jobId);
        if (job?.endedAt !== undefined) return job.state;
        await systemClock.sleep(20);
      }
    };
    const enable = {
      properties: {
        protectableItemId: `${site.container}/replicationProtectableItems/${id}`,
        policyId: `${simVault}/replicationPolicies/default`,
        providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "root" },
      },
    };
    assert.equal(await ended(await settle("PUT", item, enable)), "succeeded");
    await first[Symbol.asyncDispose]();
    prepare?.(site);

    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, "sim", "sim-hub-child.ts"), JSON.stringify({ address: database.address, folder, killAtCall })],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    const exit = once(child, "exit");
    await once(child.stdout, "data");
    await using submitter = await openSimHub({ ...options, jobs: { leaseMs: 1000, pollMs: 20, jobsMax: 0 } });
    const begun = await submitter.call("POST", `${item}/unplannedFailover`, migrateBody);
    const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(begun.headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation");
    await Promise.race([exit, ended(jobId)]);
    child.kill("SIGTERM");
    await exit;
    await using second = await openSimHub({ ...options, jobs: { leaseMs: 1000, pollMs: 20 } });
    const jobState = await ended(jobId);
    const source = site.sources[0];
    return {
      wasKilled: child.signalCode === "SIGKILL",
      jobState,
      sourceIsOn: source?.isOn === true,
      isFrozen: source?.frozenUntilMs !== undefined,
      landed: await second.target.list(),
      ranBoth: second.journal.read("web").ranBoth,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const landed: Outcome = { wasKilled: true, jobState: "succeeded", sourceIsOn: false, isFrozen: false, landed: ["web"], ranBoth: false };
const rolledBack: Outcome = { wasKilled: true, jobState: "failed", sourceIsOn: true, isFrozen: false, landed: [], ranBoth: false };
const upTo = (first: number, last: number): readonly number[] => Array.from({ length: last - first + 1 }, (_, index) => first + index);

describe("a migration whose hub is killed", { concurrency: 4 }, () => {
  for (const call of upTo(1, callsOfMigration))
    it(`lands when the kill comes at call ${call}`, async () => assert.deepEqual(await migrateWithKill(call), landed));

  it("makes no more calls than these", async () =>
    assert.deepEqual(await migrateWithKill(callsOfMigration + 1), { ...landed, wasKilled: false }));
});

describe("a rollback whose hub is killed", { concurrency: 4 }, () => {
  const fenceFails = (site: SimSite): void => void site.appliance.failures.set("fence", { times: 1, code: "FenceUnconfirmed" });
  for (const call of upTo(fenceCall, callsOfFailedFence))
    it(`ends with the source running when the fence failed and the kill comes at call ${call}`, async () =>
      assert.deepEqual(await migrateWithKill(call, fenceFails), rolledBack));

  /** The simulated target cannot hydrate a disk without its mark. */
  const launchFails = (site: SimSite): void => void site.sources[0]?.disks[0]?.content.bytes.fill(1, 0, 16);
  for (const call of upTo(fenceCall, callsOfFailedLaunch))
    it(`ends with the source running when the launch failed and the kill comes at call ${call}`, async () =>
      assert.deepEqual(await migrateWithKill(call, launchFails), rolledBack));

  it("makes no more calls than these", async () => {
    assert.equal((await migrateWithKill(callsOfFailedFence + 1, fenceFails)).wasKilled, false);
    assert.equal((await migrateWithKill(callsOfFailedLaunch + 1, launchFails)).wasKilled, false);
  });
});
