// Old jobs and operations go with everything that hangs on them; what has not ended stays, however old.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sql } from "kysely";
import { fromTimestamp } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import type { Database } from "../db/database.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { pruneJobs } from "./job-retention.ts";

const nowMs = fromTimestamp("2026-06-01T00:00:00Z");
let cluster: TestCluster;
let database: Database;
before(async () => {
  cluster = await startTestCluster();
  database = await cluster.openFreshDatabase();
});
after(async () => {
  await database[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

async function addJob(scope: string, ageDays: number, state: "failed" | "inProgress"): Promise<string> {
  const jobId = systemRandom.uuid();
  const { db } = database;
  const at = sql`to_timestamp(${nowMs / 1000}) - ${ageDays} * interval '1 day'`;
  const end = state === "failed" ? at : sql`null`;
  await sql`insert into jobs (job_id, kind, title, scope, target_id, target_name, lock_key, actor, parameters, state, created_at, ended_at)
    values (${jobId}, 'Trial', 'trial', ${scope}, 't', 't', ${jobId}, 'test', '{}', ${state}, ${at}, ${end})`.execute(db);
  await sql`insert into job_steps (job_id, name, title, position) values (${jobId}, 'one', 'one', 0)`.execute(db);
  await sql`insert into operations (operation_id, resource_id, action, status, percent, started_at, ended_at)
    values (${jobId}, 't', 'Trial', ${state === "failed" ? "Failed" : "InProgress"}, 0, ${at}, ${end})`.execute(db);
  return jobId;
}

async function ids(table: "jobs" | "job_steps" | "operations"): Promise<ReadonlySet<string>> {
  const column = sql.ref(table === "operations" ? "operation_id" : "job_id");
  const found = await sql<{ id: string }>`select ${column} as id from ${sql.table(table)}`.execute(database.db);
  return new Set(found.rows.map(({ id }) => id));
}

test("jobs and operations go when they are old or too many, and never before they ended", async () => {
  const old = await addJob("/v", 181, "failed");
  const working = await addJob("/v", 400, "inProgress");
  const recent = [await addJob("/v", 100, "failed"), await addJob("/v", 1, "failed")];
  const others = [await addJob("/w", 3, "failed"), await addJob("/w", 2, "failed"), await addJob("/w", 1, "failed")];
  const removed = await pruneJobs(database.db, { nowMs, limits: { batch: 2 } });
  assert.equal(removed, 3);
  assert.deepEqual(await ids("jobs"), new Set([working, ...recent, ...others]));
  assert.deepEqual(await ids("job_steps"), await ids("jobs"));
  assert.deepEqual(await ids("operations"), new Set([working, recent[1], ...others]));
  assert.equal((await ids("jobs")).has(old), false);
  await pruneJobs(database.db, { nowMs, limits: { jobsPerVaultMax: 2, batch: 1 } });
  assert.deepEqual(await ids("jobs"), new Set([working, recent[0], recent[1], others[1], others[2]]));
  await pruneJobs(database.db, { nowMs, limits: { jobsPerVaultMax: 1 } });
  assert.deepEqual(await ids("jobs"), new Set([working, recent[1], others[2]]));
});
