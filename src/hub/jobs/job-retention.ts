// Takes away jobs and operations that ended long ago, so that years of work do not fill a database. What they did stays in the audit trail.

import { sql, type RawBuilder } from "kysely";
import { toTimestamp } from "../../base/clock.ts";
import type { Queryable } from "./job.ts";

export interface JobLimits {
  /** Of jobs with their steps, logs and evidence, counted from when they were asked for. */
  readonly jobAgeDaysMax: number;
  readonly jobsPerVaultMax: number;
  /** Of the operations that clients poll. */
  readonly operationAgeDaysMax: number;
  /** Removed by one transaction. */
  readonly batch: number;
}

const limitsDefault: JobLimits = { jobAgeDaysMax: 180, jobsPerVaultMax: 1_000_000, operationAgeDaysMax: 30, batch: 500 };
const dayMs = 24 * 3600_000;

/** In small transactions; what has not ended is never touched. Several hubs may do it at once. Answers how many rows of both went. */
export async function pruneJobs(
  db: Queryable,
  { nowMs, limits: given, signal }: { readonly nowMs: number; readonly limits?: Partial<JobLimits>; readonly signal?: AbortSignal },
): Promise<number> {
  const limits = { ...limitsDefault, ...given };
  const oldestJob = toTimestamp(nowMs - limits.jobAgeDaysMax * dayMs);
  const oldestOperation = toTimestamp(nowMs - limits.operationAgeDaysMax * dayMs);
  // An operation goes with its job or before it: a job that is there answers for itself.
  let removed = await removeAll(limits.batch, signal, async () => await removeOperations(db, oldestOperation, limits.batch));
  for (const scope of await scopesOf(db)) {
    const edges = await sql<{ created_at: string }>`select created_at from jobs where scope = ${scope}
      order by created_at desc, job_id desc offset ${limits.jobsPerVaultMax} limit 1`.execute(db);
    const edge = edges.rows[0]?.created_at;
    const isDue =
      edge === undefined
        ? sql`created_at < ${oldestJob}::timestamptz`
        : sql`(created_at < ${oldestJob}::timestamptz or created_at <= ${edge}::timestamptz)`;
    removed += await removeAll(limits.batch, signal, async () => await removeJobs(db, scope, isDue, limits.batch));
  }
  return removed;
}

async function removeOperations(db: Queryable, before: string, batch: number): Promise<number> {
  const gone = await sql`delete from operations where operation_id in (
    select operation_id from operations where ended_at < ${before}::timestamptz limit ${batch} for update skip locked) returning 1`.execute(
    db,
  );
  return gone.rows.length;
}

async function removeJobs(db: Queryable, scope: string, isDue: RawBuilder<unknown>, batch: number): Promise<number> {
  const gone = await sql`delete from jobs where job_id in (
    select job_id from jobs where scope = ${scope} and ${isDue} and ended_at is not null
    order by created_at, job_id limit ${batch} for update skip locked) returning 1`.execute(db);
  return gone.rows.length;
}

/** One step of the index a vault, not one of each job. */
async function scopesOf(db: Queryable): Promise<readonly string[]> {
  const found = await sql<{ scope: string }>`with recursive scopes(scope) as (
      (select scope from jobs order by scope limit 1)
      union all select (select jobs.scope from jobs where jobs.scope > scopes.scope order by jobs.scope limit 1) from scopes where scopes.scope is not null)
    select scope from scopes where scope is not null`.execute(db);
  return found.rows.map((row) => row.scope);
}

async function removeAll(batch: number, signal: AbortSignal | undefined, remove: () => Promise<number>): Promise<number> {
  for (let removed = 0; ;) {
    signal?.throwIfAborted();
    const count = await remove();
    removed += count;
    if (count < batch) return removed;
  }
}
