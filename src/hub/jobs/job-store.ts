// The SQL of jobs: submit, claim under a lease with a rising fencing number, fenced writes, reading for people.

import { sql } from "kysely";
import type { LogFields } from "../../base/log.ts";
import { Fault, type FaultReport } from "../../contract/errors.ts";
import type { JsonObject } from "../db/resources.ts";
import type { JobLogLine, JobOutcome, JobRecord, JobState, Queryable, StepRecord, StepState, UndoState } from "./job.ts";

/** Lines kept of one job; what comes later is only counted. */
const logLinesMax = 1000;
const logFieldsCharactersMax = 8000;
/** Of one step, as text. */
const evidenceBytesMax = 1 << 20;

export interface JobSubmission {
  readonly jobId: string;
  readonly kind: string;
  readonly title: string;
  readonly scope: string;
  readonly targetId: string;
  readonly targetName: string;
  /** Only one unfinished job may hold a lock key. */
  readonly lockKey: string;
  readonly actor: string;
  readonly parameters: object;
  readonly restartOf?: string;
  /** W3C trace context of the request that ordered it. */
  readonly traceparent?: string | undefined;
}

/** One hub's claim of one job. */
export interface JobLease {
  readonly jobId: string;
  readonly owner: string;
  readonly fence: number;
}

/** Another hub has taken the job, or this hub was silent for longer than its lease. */
export class LeaseLost extends Error {
  constructor(jobId: string) {
    super(`the lease of job ${jobId} is lost`);
    this.name = "LeaseLost";
  }
}

export const jobColumns = sql`job_id, kind, title, scope, target_id, target_name, actor, parameters, state, percent, text, fault,
  cancel_requested_at is not null as is_cancel_requested, restart_of, restarted_as, traceparent, created_at, started_at, ended_at`;

export interface JobRow {
  job_id: string;
  kind: string;
  title: string;
  scope: string;
  target_id: string;
  target_name: string;
  actor: string;
  parameters: object;
  state: JobState;
  percent: number;
  text: string;
  fault: FaultReport | null;
  is_cancel_requested: boolean;
  restart_of: string | null;
  restarted_as: string | null;
  traceparent: string | null;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
}

/** Stores a job to be run and the ARM operation of the same id; the same jobId again changes nothing. Throws StateConflict while another job holds the lock key. */
export async function insertJob(db: Queryable, job: JobSubmission): Promise<void> {
  const inserted = await sql`
    insert into jobs (job_id, kind, title, scope, target_id, target_name, lock_key, actor, parameters, restart_of, traceparent, place)
    values (${job.jobId}, ${job.kind}, ${job.title}, ${job.scope}, ${job.targetId}, ${job.targetName}, ${job.lockKey}, ${job.actor},
      ${JSON.stringify(job.parameters)}::jsonb, ${job.restartOf ?? null}, ${job.traceparent ?? null},
      (select properties->>'place' from resources where type = 'microsoft.compute/virtualmachines'
        and (lower(properties->>'itemId') = lower(${job.targetId}) or key = lower(${job.targetId})) and properties->>'place' is not null limit 1))
    on conflict do nothing returning job_id`.execute(db);
  if (inserted.rows.length === 1) {
    await sql`insert into operations (operation_id, resource_id, action, status, percent, started_at)
      values (${job.jobId}, ${job.targetId}, ${job.kind}, 'InProgress', 0, clock_timestamp()) on conflict do nothing`.execute(db);
    return;
  }
  const holders = await sql<{ job_id: string; kind: string }>`
    select job_id, kind from jobs where job_id = ${job.jobId} or (lock_key = ${job.lockKey} and ended_at is null)`.execute(db);
  if (holders.rows.some((row) => row.job_id === job.jobId)) return;
  const holder = holders.rows[0];
  throw new Fault("StateConflict", `could not start ${job.title} of ${job.targetName}: another job of it is under way`, {
    evidence: holder === undefined ? {} : { jobId: holder.job_id, job: holder.kind },
    retry: holder === undefined ? "now" : "later",
  });
}

export async function claimJob(
  db: Queryable,
  claim: { readonly owner: string; readonly kinds: readonly string[]; readonly leaseMs: number; readonly place?: string },
): Promise<{ readonly lease: JobLease; readonly job: JobRecord } | undefined> {
  const claimed = await sql<JobRow & { fence: string }>`
    update jobs set owner = ${claim.owner}, fence = nextval('fence_numbers'), take_count = take_count + 1, lease_until = clock_timestamp() + ${claim.leaseMs} * interval '1 ms'
    where job_id = (
      select job_id from jobs where ended_at is null and kind = any(${claim.kinds})
        and (owner is null or lease_until < clock_timestamp()) and (state <> 'suspended' or cancel_requested_at is not null)
        and (place is null or ${claim.place ?? null}::text is null or place = ${claim.place ?? null})
      order by created_at for update skip locked limit 1)
    returning ${jobColumns}, fence`.execute(db);
  const row = claimed.rows[0];
  if (row === undefined) return undefined;
  return { lease: { jobId: row.job_id, owner: claim.owner, fence: Number(row.fence) }, job: toJob(row) };
}

/** From now on only hubs of this place take the job: what it makes is there. */
export async function bindToPlace(db: Queryable, jobId: string, place: string): Promise<void> {
  await sql`update jobs set place = ${place} where job_id = ${jobId}`.execute(db);
}

/** Prolongs leases; answers those still held, and which of their jobs are to be cancelled. */
export async function extendLeases(
  db: Queryable,
  owner: string,
  leases: readonly JobLease[],
  leaseMs: number,
): Promise<readonly { readonly jobId: string; readonly fence: number; readonly isCancelRequested: boolean }[]> {
  const kept = await sql<{ job_id: string; fence: string; is_cancel_requested: boolean }>`
    update jobs set lease_until = clock_timestamp() + ${leaseMs} * interval '1 ms'
    where owner = ${owner} and job_id = any(${leases.map((lease) => lease.jobId)}::uuid[])
    returning job_id, fence, cancel_requested_at is not null as is_cancel_requested`.execute(db);
  return kept.rows.map((row) => ({ jobId: row.job_id, fence: Number(row.fence), isCancelRequested: row.is_cancel_requested }));
}

/**
 * Gives an unfinished job back, so that any hub may take it at once. The step that was under way did not end its hub, so its attempt does not
 * count: restarts of a database must not exhaust a step that takes days.
 */
export async function releaseLease(db: Queryable, lease: JobLease): Promise<void> {
  await sql`with given as (update jobs set owner = null, lease_until = null
      where job_id = ${lease.jobId} and owner = ${lease.owner} and fence = ${lease.fence} returning job_id)
    update job_steps set attempt_count = greatest(attempt_count - 1, 0) from given
    where job_steps.job_id = given.job_id and job_steps.state = 'running'`.execute(db);
}

/** Runs `task` in a transaction that commits only while the lease is held; no other hub can take the job meanwhile. */
export async function underLease<T>(db: Queryable, lease: JobLease, task: (db: Queryable) => Promise<T>): Promise<T> {
  return await db.transaction().execute(async (transaction) => {
    const held = await sql`select 1 from jobs
      where job_id = ${lease.jobId} and owner = ${lease.owner} and fence = ${lease.fence} and ended_at is null for update`.execute(
      transaction,
    );
    if (held.rows.length === 0) throw new LeaseLost(lease.jobId);
    return await task(transaction);
  });
}

export async function isCancelRequested(db: Queryable, jobId: string): Promise<boolean> {
  const found = await sql<{ asked: boolean }>`select cancel_requested_at is not null as asked from jobs where job_id = ${jobId}`.execute(
    db,
  );
  return found.rows[0]?.asked === true;
}

/** Marks the job as begun and lists the steps that this hub knows; steps that were done before keep their rows. */
export async function beginJob(
  db: Queryable,
  jobId: string,
  steps: readonly { readonly name: string; readonly title: string }[],
): Promise<void> {
  await sql`update jobs set state = 'inProgress', started_at = coalesce(started_at, clock_timestamp())
    where job_id = ${jobId} and state in ('notStarted', 'suspended')`.execute(db);
  for (const [position, step] of steps.entries())
    await sql`insert into job_steps (job_id, name, title, position) values (${jobId}, ${step.name}, ${step.title}, ${position})
      on conflict (job_id, name) do update set position = excluded.position`.execute(db);
}

export async function beginStep(db: Queryable, jobId: string, name: string): Promise<void> {
  await sql`update job_steps set state = 'running', attempt_count = attempt_count + 1, fault = null,
    started_at = coalesce(started_at, clock_timestamp()) where job_id = ${jobId} and name = ${name}`.execute(db);
}

export async function saveEvidence(db: Queryable, jobId: string, name: string, evidence: object): Promise<void> {
  const saved = await sql<{ bytes: number }>`update job_steps set evidence = evidence || ${JSON.stringify(evidence)}::jsonb
    where job_id = ${jobId} and name = ${name} returning octet_length(evidence::text) as bytes`.execute(db);
  const evidenceBytes = saved.rows[0]?.bytes ?? 0;
  if (evidenceBytes > evidenceBytesMax)
    throw new Fault("EvidenceTooLarge", `could not store the evidence of step ${name}: it is too large`, {
      evidence: { jobId, step: name, evidenceBytes, evidenceBytesMax },
    });
}

export async function endStep(db: Queryable, jobId: string, name: string, fault?: FaultReport): Promise<void> {
  await sql`update job_steps set state = ${fault === undefined ? "done" : "failed"}, ended_at = clock_timestamp(),
    fault = ${fault === undefined ? null : JSON.stringify(fault)}::jsonb where job_id = ${jobId} and name = ${name}`.execute(db);
}

/** From here on only undos run. */
export async function beginUndo(db: Queryable, jobId: string, fault: FaultReport): Promise<void> {
  await sql`update jobs set state = 'undoing', fault = ${JSON.stringify(fault)}::jsonb where job_id = ${jobId}`.execute(db);
}

export async function setUndo(db: Queryable, jobId: string, name: string, undoState: UndoState, fault?: FaultReport): Promise<void> {
  await sql`update job_steps set undo_state = ${undoState}, undo_fault = ${fault === undefined ? null : JSON.stringify(fault)}::jsonb,
    undo_attempt_count = undo_attempt_count + ${undoState === "running" ? 1 : 0}
    where job_id = ${jobId} and name = ${name}`.execute(db);
}

/** Ends the job and the ARM operation of the same id. */
export async function endJob(db: Queryable, jobId: string, outcome: JobOutcome, result: JsonObject | undefined): Promise<void> {
  await sql`update jobs set state = ${outcome.kind}, ended_at = clock_timestamp(), owner = null, lease_until = null,
    percent = case when ${outcome.kind} = 'succeeded' then 100 else percent end where job_id = ${jobId}`.execute(db);
  const status = { succeeded: "Succeeded", failed: "Failed", cancelled: "Canceled" }[outcome.kind];
  await sql`update operations set status = ${status}, ended_at = clock_timestamp(),
    percent = case when ${status} = 'Succeeded' then 100 else percent end,
    fault = ${outcome.kind === "succeeded" ? null : JSON.stringify(outcome.fault)}::jsonb,
    result = ${result === undefined ? null : JSON.stringify(result)}::jsonb
    where operation_id = ${jobId} and status = 'InProgress'`.execute(db);
}

export async function setProgress(db: Queryable, lease: JobLease, percent: number, text: string): Promise<void> {
  await sql`with moved as (
      update jobs set percent = greatest(percent, ${percent}), text = ${text.slice(0, 400)}
      where job_id = ${lease.jobId} and owner = ${lease.owner} and fence = ${lease.fence} returning job_id, percent)
    update operations set percent = moved.percent from moved where operation_id = moved.job_id and status = 'InProgress'`.execute(db);
}

export async function appendLog(db: Queryable, jobId: string, step: string, text: string, fields: LogFields): Promise<void> {
  const fieldsText = JSON.stringify(fields);
  const kept = fieldsText.length > logFieldsCharactersMax ? JSON.stringify({ omittedCharacters: fieldsText.length }) : fieldsText;
  await sql`with numbered as (
      update jobs set log_count = log_count + 1 where job_id = ${jobId} returning log_count)
    insert into job_log (job_id, serial, step, text, fields)
    select ${jobId}, log_count, ${step}, ${text.slice(0, 4000)}, ${kept}::jsonb from numbered
    where log_count <= ${logLinesMax}`.execute(db);
}

export async function readJob(db: Queryable, jobId: string): Promise<JobRecord | undefined> {
  const found = await sql<JobRow>`select ${jobColumns} from jobs where job_id = ${jobId}`.execute(db);
  return found.rows[0] === undefined ? undefined : toJob(found.rows[0]);
}

export interface StepRow {
  job_id: string;
  name: string;
  title: string;
  position: number;
  state: StepState;
  undo_state: UndoState;
  attempt_count: number;
  undo_attempt_count: number;
  evidence: object;
  fault: FaultReport | null;
  undo_fault: FaultReport | null;
  started_at: string | null;
  ended_at: string | null;
}

export async function readSteps(db: Queryable, jobId: string): Promise<readonly StepRecord[]> {
  return (await readStepsOf(db, [jobId])).get(jobId) ?? [];
}

/** Steps of several jobs, each in its order, by one question. */
export async function readStepsOf(db: Queryable, jobIds: readonly string[]): Promise<ReadonlyMap<string, readonly StepRecord[]>> {
  if (jobIds.length === 0) return new Map();
  const found =
    await sql<StepRow>`select job_id, name, title, position, state, undo_state, attempt_count, undo_attempt_count, evidence, fault,
    undo_fault, started_at, ended_at from job_steps where job_id = any(${jobIds}::uuid[]) order by job_id, position, name`.execute(db);
  const steps = new Map<string, StepRecord[]>();
  for (const row of found.rows) steps.set(row.job_id, [...(steps.get(row.job_id) ?? []), toStep(row)]);
  return steps;
}

export async function readLog(db: Queryable, jobId: string): Promise<readonly JobLogLine[]> {
  const found = await sql<JobLogLine>`select serial, at, step, text, fields from job_log where job_id = ${jobId} order by serial`.execute(
    db,
  );
  return found.rows;
}

export function toJob(row: JobRow): JobRecord {
  return {
    jobId: row.job_id,
    kind: row.kind,
    title: row.title,
    scope: row.scope,
    targetId: row.target_id,
    targetName: row.target_name,
    actor: row.actor,
    parameters: row.parameters,
    state: row.state,
    percent: row.percent,
    text: row.text,
    isCancelRequested: row.is_cancel_requested,
    createdAt: row.created_at,
    ...(row.restart_of === null ? {} : { restartOf: row.restart_of }),
    ...(row.restarted_as === null ? {} : { restartedAs: row.restarted_as }),
    ...(row.traceparent === null ? {} : { traceparent: row.traceparent }),
    ...(row.fault === null ? {} : { fault: row.fault }),
    ...(row.started_at === null ? {} : { startedAt: row.started_at }),
    ...(row.ended_at === null ? {} : { endedAt: row.ended_at }),
  };
}

export function toStep(row: StepRow): StepRecord {
  return {
    name: row.name,
    title: row.title,
    position: row.position,
    state: row.state,
    undoState: row.undo_state,
    attemptCount: row.attempt_count,
    undoAttemptCount: row.undo_attempt_count,
    evidence: row.evidence,
    ...(row.fault === null ? {} : { fault: row.fault }),
    ...(row.undo_fault === null ? {} : { undoFault: row.undo_fault }),
    ...(row.started_at === null ? {} : { startedAt: row.started_at }),
    ...(row.ended_at === null ? {} : { endedAt: row.ended_at }),
  };
}
