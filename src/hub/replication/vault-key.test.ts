// Promises of a vault's keys: changed by a job, counted, never destroyed while needed, by themselves once unused when asked; never shown.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { systemClock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import { keyNameOf } from "../db/vault-keys.ts";
import type { JobOrder } from "../jobs/job-engine.ts";
import { readJob } from "../jobs/job-store.ts";
import type { JobRecord } from "../jobs/job.ts";
import { readVaultKeys } from "../resources/vault-keys.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { lookAtKeys } from "./key-keeper.ts";
import { openSimHub, simVault, type SimHub } from "./sim/sim-hub.ts";
import { openSimSite, type SimSite } from "./sim/sim-site.ts";

let cluster: TestCluster;
let hub: SimHub;
let site: SimSite;
const closing = new AsyncDisposableStack();

before(async () => {
  cluster = closing.use(await startTestCluster());
  const folder = await mkdtemp(join(tmpdir(), "wv-"));
  closing.defer(async () => await rm(folder, { recursive: true, force: true }));
  const database = closing.use(await cluster.openFreshDatabase());
  hub = closing.use(await openSimHub({ database, folder, limits: {}, jobs: { leaseMs: 5000, pollMs: 20 } }));
  site = closing.use(await openSimSite(hub, folder, ["web"]));
});
after(async () => await closing.disposeAsync());

const keyPath = (generation: number): string => `${simVault}/watariKeyGenerations/${generation}`;
const item = (): string => `${site.container}/replicationProtectedItems/${site.sources[0]?.discovered.infrastructureId}`;
const isRefused = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof Fault && error.code === code && message.test(error.message);

async function untilEnded(jobId: string): Promise<JobRecord> {
  for (;;) {
    const job = await readJob(hub.services.database.db, jobId);
    if (job?.endedAt !== undefined) return job;
    await systemClock.sleep(20);
  }
}

async function run(method: string, path: string, body: object = {}): Promise<JobRecord> {
  const { headers } = await hub.call(method, path, body);
  return await untilEnded(
    /operationStatuses\/([0-9a-f-]+)/.exec(headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation"),
  );
}

interface Shown {
  readonly name: string;
  readonly properties: Readonly<Record<string, unknown>> & {
    readonly sealed?: { readonly packCount: number; readonly recoveryPointCount: number };
  };
}

async function shown(): Promise<readonly Shown[]> {
  const { body } = await hub.call("GET", `${simVault}/watariKeyGenerations`);
  return (body as { readonly value: readonly Shown[] }).value; // Every ARM list has it.
}

async function protect(): Promise<void> {
  const properties = {
    protectableItemId: `${site.container}/replicationProtectableItems/${site.sources[0]?.discovered.infrastructureId}`,
    policyId: `${simVault}/replicationPolicies/default`,
    providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "root" },
  };
  assert.equal((await run("PUT", item(), { properties })).state, "succeeded");
}

describe("The key of a vault", () => {
  it("has one generation at first, which cannot be destroyed", async () => {
    assert.deepEqual(
      (await shown()).map(({ name, properties }) => [name, properties["state"]]),
      [["1", "Current"]],
    );
    await assert.rejects(hub.call("DELETE", keyPath(1)), isRefused("StateConflict", /it is current/));
    await assert.rejects(hub.call("PUT", keyPath(3), { properties: {} }), isRefused("InputInvalid", /the next one is 2/));
  });

  it("is changed by a job, and what it seals is counted; points of before and after are read", async () => {
    await protect();
    assert.equal((await run("PUT", keyPath(2), { properties: {} })).state, "succeeded");
    assert.deepEqual(
      (await shown()).map(({ name, properties }) => [name, properties["state"]]),
      [
        ["1", "Former"],
        ["2", "Current"],
      ],
    );
    assert.equal((await run("POST", `${item()}/repairReplication`)).state, "succeeded");
    assert.equal((await run("POST", `${keyPath(2)}/count`)).state, "succeeded");
    const [first, second] = await shown();
    assert.ok((first?.properties.sealed?.packCount ?? 0) > 0 && (first?.properties.sealed?.recoveryPointCount ?? 0) > 0);
    assert.ok((second?.properties.sealed?.recoveryPointCount ?? 0) > 0);
    assert.equal(
      (
        await run("POST", `${item()}/testFailover`, {
          properties: { providerSpecificDetails: { instanceType: "InMageAzureV2", probe: { port: 80, path: "/", timeoutSeconds: 1 } } },
        })
      ).state,
      "succeeded",
    );
    assert.equal((await run("POST", `${item()}/testFailoverCleanup`)).state, "succeeded");
  });

  it("is not destroyed while something is sealed with it, and stays usable", async () => {
    const job = await run("DELETE", keyPath(1));
    assert.deepEqual([job.state, job.fault?.id], ["failed", "StateConflict"]);
    assert.ok(Number(job.fault?.evidence["packCount"]) > 0);
    assert.deepEqual((await readVaultKeys({ db: hub.services.database.db, secrets: hub.services.secrets }, simVault)).keys.size, 2);
  });

  it("goes by itself once nothing is sealed with it, when that was asked for", async () => {
    assert.equal((await run("POST", `${item()}/remove`)).state, "succeeded");
    await hub.call("PUT", keyPath(1), { properties: { destroyWhenUnused: true } });
    const jobIds: string[] = [];
    const { services, openReader } = hub;
    const submit = async (order: JobOrder): Promise<string> => {
      const jobId = await hub.submit(order);
      jobIds.push(jobId);
      return jobId;
    };
    await lookAtKeys({ services, openReader }, { submit }, { countEveryMs: 0, signal: new AbortController().signal });
    const [jobId] = jobIds;
    assert.equal((await untilEnded(jobId ?? assert.fail("a job was begun"))).state, "succeeded");
    assert.deepEqual(
      (await shown()).map(({ name }) => name),
      ["2"],
    );
    assert.equal(await services.secrets.find(simVault, keyNameOf(1)), undefined);
    await protect();
  });

  it("is in no job, order, event or operation", async () => {
    const keys = await readVaultKeys({ db: hub.services.database.db, secrets: hub.services.secrets }, simVault);
    for (const table of ["jobs", "job_steps", "job_log", "orders", "operations", "events"]) {
      const found = await sql<{ text: string }>`select coalesce(string_agg(t::text, ' '), '') as text from ${sql.table(table)} t`.execute(
        hub.services.database.db,
      );
      for (const key of keys.keys.values())
        for (const form of ["base64", "hex", "base64url"] as const)
          assert.equal(found.rows[0]?.text.includes(Buffer.from(key).toString(form)), false, table);
    }
  });

  it("is not changed while an appliance is too old to take it", async () => {
    const applianceId = parseApplianceId(/replicationFabrics\/([^/]+)/.exec(site.container)?.[1] ?? "");
    await hub.services.appliances.seen(applianceId, 3);
    await assert.rejects(hub.call("PUT", keyPath(3), { properties: {} }), isRefused("ProtocolVersionUnsupported", /takeVaultKeys/));
  });
});
