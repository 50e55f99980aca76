// The hub killed at each call that a migration makes to the outside: another hub ends it, and the two sides never run at once.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { systemClock } from "../../base/clock.ts";
import type { FaultCode } from "../../contract/errors.ts";
import { readJob } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimHub, simVault } from "./sim/sim-hub.ts";
import { openSimSite } from "./sim/sim-site.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

/** Calls of a whole migration; the last kill comes after it has ended and so changes nothing. */
const callsOfMigration = 24;
/** Calls of one whose fence fails and of its rollback. */
const callsOfRollback = 20;

const migrateBody = {
  properties: {
    sourceSiteOperations: "Required",
    providerSpecificDetails: { instanceType: "InMageAzureV2", network: "prod", probe: { port: 80, path: "/", timeoutSeconds: 1 } },
  },
};

interface Outcome {
  readonly jobState: string;
  readonly sourceIsOn: boolean;
  readonly isFrozen: boolean;
  readonly landed: readonly string[];
  readonly ranBoth: boolean;
}

/** Runs a migration in a hub that kills itself at a call; a second hub, which is idle before, ends it. */
async function migrateWithKill(killAtCall: number, failure?: { readonly kind: "fence"; readonly code: FaultCode }): Promise<Outcome> {
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
    if (failure !== undefined) site.appliance.failures.set(failure.kind, { times: 1, code: failure.code });

    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, "sim", "sim-hub-process.ts"), JSON.stringify({ address: database.address, folder, killAtCall })],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    const exit = once(child, "exit");
    await once(child.stdout, "data");
    await using submitter = await openSimHub({ ...options, jobs: { leaseMs: 1000, pollMs: 20, jobsMax: 0 } });
    const begun = await submitter.call("POST", `${item}/unplannedFailover`, migrateBody);
    const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(begun.headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation");
    await Promise.race([exit, ended(jobId)]);
    if (child.signalCode === null) child.kill("SIGTERM");
    await exit;
    await using second = await openSimHub({ ...options, jobs: { leaseMs: 1000, pollMs: 20 } });
    const jobState = await ended(jobId);
    const source = site.sources[0];
    return {
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

describe("a migration whose hub is killed", { concurrency: 4 }, () => {
  for (let call = 1; call <= callsOfMigration; call++)
    it(`lands when the kill comes at call ${call}`, async () => {
      const outcome = await migrateWithKill(call);
      assert.deepEqual(outcome, { jobState: "succeeded", sourceIsOn: false, isFrozen: false, landed: ["web"], ranBoth: false });
    });
});

describe("a rollback whose hub is killed", { concurrency: 4 }, () => {
  for (let call = 9; call <= callsOfRollback; call++)
    it(`ends with the source running when the kill comes at call ${call}`, async () => {
      const outcome = await migrateWithKill(call, { kind: "fence", code: "FenceUnconfirmed" });
      assert.deepEqual(outcome, { jobState: "failed", sourceIsOn: true, isFrozen: false, landed: [], ranBoth: false });
    });
});
