// All that belongs to one job, for people who look at it: its steps, holds and log by one question.

import { sql } from "kysely";
import type { JobHold, JobLogLine, Queryable, StepRecord } from "./job.ts";
import { toHold, type HoldRow } from "./job-control.ts";
import { toStep, type StepRow } from "./job-store.ts";

export interface JobParts {
  readonly steps: readonly StepRecord[];
  readonly holds: readonly JobHold[];
  readonly log: readonly JobLogLine[];
}

interface Row {
  readonly steps: readonly StepRow[];
  readonly holds: readonly HoldRow[];
  readonly log: readonly JobLogLine[];
}

/** Times of an array of rows come as JSON has them: this makes them those of every other answer. */
const time = (column: string) => sql.raw(`to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as ${column}`);

export async function readJobParts(db: Queryable, jobId: string): Promise<JobParts> {
  const all = (columns: ReturnType<typeof sql>, table: string, order: string) =>
    sql`coalesce((select jsonb_agg(part) from (select ${columns} from ${sql.table(table)} where job_id = ${jobId} order by ${sql.raw(order)}) part), '[]')`;
  const stepColumns = sql`job_id, name, title, position, state, undo_state, attempt_count, undo_attempt_count, evidence, fault, undo_fault,
    ${time("started_at")}, ${time("ended_at")}`;
  const holdColumns = sql`name, step, title, instructions, ${time("held_at")}, ${time("resumed_at")}, resumed_by, comments`;
  const { rows } = await sql<Row>`select ${all(stepColumns, "job_steps", "position, name")} as steps,
    ${all(holdColumns, "job_holds", "job_holds.held_at, name")} as holds,
    ${all(sql`serial, ${time("at")}, step, text, fields`, "job_log", "serial")} as log`.execute(db);
  const { steps = [], holds = [], log = [] } = rows[0] ?? {};
  return { steps: steps.map(toStep), holds: holds.map(toHold), log };
}
