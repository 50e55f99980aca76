// Many machines enabled at once: none waits for a second database connection while it holds one, and every twin is still refused.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { Fault } from "../../contract/errors.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimHub, simVault } from "./sim/sim-hub.ts";
import { openSimSite } from "./sim/sim-site.ts";

/** Four times the connections of a pool. */
const machineCount = 64;

let cluster: TestCluster;
let folder: string;
before(async () => {
  cluster = await startTestCluster();
  folder = await mkdtemp(join(tmpdir(), "we-"));
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe("enabling many machines at once", () => {
  it("ends for each in a job of its own, and for the same machine in two items once", async () => {
    await using database = await cluster.openFreshDatabase();
    // The jobs are not run here: this is about the calls.
    await using hub = await openSimHub({ database, folder, limits: {}, jobs: { leaseMs: 15_000, pollMs: 1000, jobsMax: 0 } });
    const names = Array.from({ length: machineCount }, (_, index) => `machine-${index}`);
    await using site = await openSimSite(hub, folder, names);
    const enable = async (infrastructureId: string, itemName: string): Promise<number> => {
      const answer = await hub.call("PUT", `${site.container}/replicationProtectedItems/${itemName}`, {
        properties: {
          protectableItemId: `${site.container}/replicationProtectableItems/${infrastructureId}`,
          policyId: `${simVault}/replicationPolicies/default`,
          providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "root" },
        },
      });
      return answer.status;
    };
    const ids = site.sources.map((source) => source.discovered.infrastructureId);
    const twin = ids[0] ?? assert.fail("no machine");
    const refusedTwins = [enable(twin, "twin-1"), enable(twin, "twin-2")];
    const ends = await Promise.allSettled([...ids.map(async (id) => await enable(id, id)), ...refusedTwins]);
    const refused = ends.flatMap((end) => (end.status === "rejected" ? [end.reason instanceof Fault ? end.reason.code : end.reason] : []));
    assert.deepEqual(refused, ["AlreadyProtected", "AlreadyProtected"]);
    const jobs = await sql<{ count: number }>`select count(distinct target_id)::int as count from jobs`.execute(database.db);
    assert.equal(jobs.rows[0]?.count, machineCount);
  });
});

describe("a transaction", () => {
  it("refuses to ask the pool for a second connection, and lets what it left behind ask later", async () => {
    await using database = await cluster.openFreshDatabase();
    const { db } = database;
    const ask = async (): Promise<unknown> => await sql`select 1`.execute(db);
    await assert.rejects(db.transaction().execute(ask), /asked through that transaction/);
    await assert.rejects(db.connection().execute(ask), /asked through that transaction/);
    const gate = Promise.withResolvers<void>();
    const later = await db.transaction().execute(async () => ({ asked: gate.promise.then(ask) }));
    gate.resolve();
    await later.asked;
  });
});
