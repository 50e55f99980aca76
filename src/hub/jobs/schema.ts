// The jobs' tables: one row a job with its lease and fencing number, one a step, one a log line, one a hold.

export const jobStatements: readonly string[] = [
  `create table jobs (
    job_id uuid primary key, kind text not null, title text not null, scope text not null, target_id text not null,
    target_name text not null, lock_key text not null, actor text not null, parameters jsonb not null,
    state text not null default 'notStarted', percent double precision not null default 0, text text not null default '',
    fault jsonb, cancel_requested_at timestamptz, log_count int not null default 0,
    owner text, lease_until timestamptz, fence bigint not null default 0,
    created_at timestamptz not null default clock_timestamp(), started_at timestamptz, ended_at timestamptz)`,
  `create unique index jobs_one_at_a_time on jobs (lock_key) where ended_at is null`,
  `create index jobs_open on jobs (created_at) where ended_at is null`,
  `create index jobs_by_scope on jobs (scope, created_at desc, job_id desc)`,
  `create table job_steps (
    job_id uuid not null references jobs on delete cascade, name text not null, title text not null, position int not null,
    state text not null default 'waiting', undo_state text not null default 'none', attempt_count int not null default 0,
    undo_attempt_count int not null default 0, evidence jsonb not null default '{}', fault jsonb, undo_fault jsonb,
    started_at timestamptz, ended_at timestamptz, primary key (job_id, name))`,
  `create table job_log (
    job_id uuid not null references jobs on delete cascade, serial int not null, at timestamptz not null default clock_timestamp(),
    step text not null, text text not null, fields jsonb not null, primary key (job_id, serial))`,
];

/** Holds that wait for a person, jobs begun again, and one rising sequence of fencing numbers for every command of every job. */
export const jobControlStatements: readonly string[] = [
  `alter table jobs add column restart_of uuid, add column restarted_as uuid, add column take_count int not null default 0`,
  `create table job_holds (
    job_id uuid not null references jobs on delete cascade, name text not null, step text not null, title text not null,
    instructions text not null, held_at timestamptz not null default clock_timestamp(), resumed_at timestamptz, resumed_by text,
    comments text not null default '', primary key (job_id, name))`,
  `create sequence fence_numbers as bigint`,
  `select setval('fence_numbers', coalesce((select max(fence) from jobs), 0) + 1)`,
];

/** A job belongs to the trace of the request that ordered it, whichever hub runs it. */
export const jobTraceStatements: readonly string[] = [`alter table jobs add column traceparent text`];
