// Lists of a vault's jobs, newest first, in pages whose cost does not depend on what came before them.

import { sql, type RawBuilder } from "kysely";
import type { JobRecord, JobState, Queryable } from "./job.ts";
import { jobColumns, toJob, type JobRow } from "./job-store.ts";

/** What all jobs of an answer have; texts are compared without case. */
export interface JobWish {
  /** When the job was asked for. */
  readonly startAt?: string;
  readonly endAt?: string;
  readonly states?: readonly JobState[];
  /** Id, kind or title. */
  readonly name?: string;
  /** Name of the fabric that the job's object is or lies under. */
  readonly fabricName?: string;
  /** Type segments of the job's object, lower case: "replicationprotecteditems". */
  readonly targetSegments?: readonly string[];
}

export interface JobListPage {
  readonly jobs: readonly JobRecord[];
  /** Id of the job after which the next page begins; a page may hold fewer jobs than asked for, or none, and still have a next one. */
  readonly next: string | undefined;
}

const unended: ReadonlySet<JobState> = new Set(["notStarted", "inProgress", "suspended", "undoing"]);
/** Jobs looked at for one page with a wish. */
const scanMax = 10_000;

/** `afterJobId` is the `next` of the page before. */
export async function listJobs(
  db: Queryable,
  page: { readonly scope: string; readonly countMax: number; readonly afterJobId?: string | undefined; readonly wish?: JobWish },
): Promise<JobListPage> {
  const { scope, countMax, afterJobId, wish = {} } = page;
  const bounds = [
    sql`scope = ${scope}`,
    // The database compares its own times: they are finer than those that are answered.
    ...(afterJobId === undefined
      ? []
      : [sql`(created_at, job_id) < ((select created_at from jobs where job_id = ${afterJobId}), ${afterJobId}::uuid)`]),
    ...(wish.startAt === undefined ? [] : [sql`created_at >= ${wish.startAt}::timestamptz`]),
    ...(wish.endAt === undefined ? [] : [sql`created_at <= ${wish.endAt}::timestamptz`]),
    // They have an index of their own, however many have ended.
    ...(wish.states?.every((state) => unended.has(state)) === true ? [sql`ended_at is null`] : []),
  ];
  const newest = sql`order by created_at desc, job_id desc`;
  const seen = sql`select * from jobs where ${joined(bounds)} ${newest} limit ${scanMax}`;
  const found = await sql<JobRow>`select ${jobColumns} from (${seen}) seen where ${joined(conditionsOf(wish))}
    ${newest} limit ${countMax + 1}`.execute(db);
  const jobs = found.rows.slice(0, countMax).map(toJob);
  if (found.rows.length > countMax) return { jobs, next: jobs.at(-1)?.jobId };
  const edge = await sql<{
    job_id: string;
  }>`select job_id from jobs where ${joined(bounds)} ${newest} offset ${scanMax - 1} limit 1`.execute(db);
  return { jobs, next: edge.rows[0]?.job_id };
}

function conditionsOf({ states, name, fabricName, targetSegments }: JobWish): readonly RawBuilder<unknown>[] {
  return [
    sql`true`,
    ...(states === undefined ? [] : [sql`state = any(${states})`]),
    ...(name === undefined ? [] : [sql`lower(${name}) in (job_id::text, lower(kind), lower(title))`]),
    ...(fabricName === undefined ? [] : [sql`strpos(lower(target_id) || '/', '/replicationfabrics/' || lower(${fabricName}) || '/') > 0`]),
    ...(targetSegments === undefined ? [] : [sql`lower(regexp_replace(target_id, '^.*/([^/]+)/[^/]+$', '\\1')) = any(${targetSegments})`]),
  ];
}

function joined(conditions: readonly RawBuilder<unknown>[]): RawBuilder<unknown> {
  return sql.join(conditions, sql` and `);
}
