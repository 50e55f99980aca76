// What people do to jobs: cancel, hold and resume, restart. The SQL of it; who may do it is decided by the API.

import { sql } from "kysely";
import { Fault } from "../../contract/errors.ts";
import type { HoldAnswer, HoldPoint, JobHold, JobKind, JobRecord, Queryable } from "./job.ts";
import { appendLog, insertJob, readJob } from "./job-store.ts";

/** A step waits for a person; the run ends and the job's row says so. */
export class HoldRequested extends Error {
  readonly point: HoldPoint;

  constructor(point: HoldPoint) {
    super(`the job waits for a person: ${point.title}`);
    this.name = "HoldRequested";
    this.point = point;
  }
}

/** Throws StateConflict once the job has ended or is being undone. Asking twice is fine. */
export async function cancelJob(db: Queryable, jobId: string, by: string): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    const job = await lockJob(transaction, jobId, "cancel");
    if (job.state !== "notStarted" && job.state !== "inProgress" && job.state !== "suspended") throw wrongState("cancel", job);
    await sql`update jobs set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()) where job_id = ${jobId}`.execute(
      transaction,
    );
    if (!job.isCancelRequested) await appendLog(transaction, jobId, "", `cancelled by ${by}`, { by });
  });
}

/** In the transaction of the run that holds: no hub has the job until someone resumes or cancels it. */
export async function suspendJob(db: Queryable, jobId: string, step: string, point: HoldPoint): Promise<void> {
  await sql`insert into job_holds (job_id, name, step, title, instructions)
    values (${jobId}, ${point.name}, ${step}, ${point.title}, ${point.instructions}) on conflict do nothing`.execute(db);
  // A step that held has not failed: waiting often must not exhaust its attempts.
  await sql`update job_steps set attempt_count = greatest(attempt_count - 1, 0) where job_id = ${jobId} and name = ${step}`.execute(db);
  await sql`update jobs set state = 'suspended', text = ${point.title.slice(0, 400)}, owner = null, lease_until = null
    where job_id = ${jobId}`.execute(db);
  await appendLog(db, jobId, step, `waits for a person: ${point.title}`, { hold: point.name });
}

export async function readHolds(db: Queryable, jobId: string): Promise<readonly JobHold[]> {
  const found = await sql<HoldRow>`select name, step, title, instructions, held_at, resumed_at, resumed_by, comments from job_holds
    where job_id = ${jobId} order by held_at, name`.execute(db);
  return found.rows.map(toHold);
}

export function toHold(row: HoldRow): JobHold {
  const { name, step, title, instructions } = row;
  const isAnswered = row.resumed_at !== null && row.resumed_by !== null;
  return {
    ...{ name, step, title, instructions, heldAt: row.held_at },
    ...(isAnswered ? { answer: { by: row.resumed_by ?? "", comments: row.comments, at: row.resumed_at ?? "" } } : {}),
  };
}

export async function readHoldAnswer(db: Queryable, jobId: string, name: string): Promise<HoldAnswer | undefined> {
  return (await readHolds(db, jobId)).find((hold) => hold.name === name)?.answer;
}

/** Throws StateConflict unless the job is suspended. */
export async function resumeJob(db: Queryable, jobId: string, who: { readonly by: string; readonly comments: string }): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    const job = await lockJob(transaction, jobId, "resume");
    if (job.state !== "suspended" || job.isCancelRequested) throw wrongState("resume", job);
    const comments = who.comments.slice(0, commentsCharactersMax);
    await sql`update job_holds set resumed_at = clock_timestamp(), resumed_by = ${who.by}, comments = ${comments}
      where job_id = ${jobId} and resumed_at is null`.execute(transaction);
    await sql`update jobs set state = 'inProgress', text = '' where job_id = ${jobId}`.execute(transaction);
    await appendLog(transaction, jobId, "", `resumed by ${who.by}`, { by: who.by, comments });
  });
}

/**
 * Begins a failed or cancelled job again as a new job with the same parameters; answers its id. The old one keeps its rows and can be
 * begun again only once: what failed twice is restarted from the newer job.
 */
export async function restartJob(
  db: Queryable,
  jobId: string,
  restart: { readonly by: string; readonly newJobId: string; readonly kinds: readonly JobKind[] },
): Promise<string> {
  return await db.transaction().execute(async (transaction) => {
    const job = await lockJob(transaction, jobId, "restart");
    const kind = restart.kinds.find((each) => each.kind === job.kind);
    if ((job.state !== "failed" && job.state !== "cancelled") || job.restartedAs !== undefined) throw wrongState("restart", job);
    if (kind?.restart === undefined)
      throw new Fault(
        "OperationNotSupported",
        `could not restart ${job.title} of ${job.targetName}: jobs of this kind begin at their resource`,
        {
          evidence: { jobId, kind: job.kind },
          action: `start the operation again at ${job.targetId}`,
        },
      );
    const parameters = kind.parameters.parse(job.parameters);
    await insertJob(transaction, { ...job, jobId: restart.newJobId, lockKey: job.lockKey, actor: restart.by, restartOf: jobId });
    await kind.restart(transaction, { jobId: restart.newJobId, parameters });
    await sql`update jobs set restarted_as = ${restart.newJobId} where job_id = ${jobId}`.execute(transaction);
    await appendLog(transaction, jobId, "", `restarted by ${restart.by}`, { by: restart.by, jobId: restart.newJobId });
    return restart.newJobId;
  });
}

const commentsCharactersMax = 4000;

export interface HoldRow {
  name: string;
  step: string;
  title: string;
  instructions: string;
  held_at: string;
  resumed_at: string | null;
  resumed_by: string | null;
  comments: string;
}

async function lockJob(db: Queryable, jobId: string, verb: string): Promise<JobRecord & { readonly lockKey: string }> {
  const locked = await sql<{ lock_key: string }>`select lock_key from jobs where job_id = ${jobId} for update`.execute(db);
  const lockKey = locked.rows[0]?.lock_key;
  const job = lockKey === undefined ? undefined : await readJob(db, jobId);
  if (job === undefined || lockKey === undefined) throw new Fault("NotFound", `could not ${verb} job ${jobId}: it does not exist`);
  return { ...job, lockKey };
}

function wrongState(verb: string, job: JobRecord): Fault {
  const wasRestarted = job.restartedAs === undefined ? {} : { restartedAs: job.restartedAs };
  return new Fault(
    "StateConflict",
    `could not ${verb} ${job.title} of ${job.targetName}: it is ${job.isCancelRequested && job.endedAt === undefined ? "being cancelled" : job.state}`,
    {
      evidence: { jobId: job.jobId, state: job.state, ...wasRestarted },
      retry: "never",
    },
  );
}
