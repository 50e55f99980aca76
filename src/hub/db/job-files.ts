// Files that jobs keep for people: a picture of a screen, a serial log. They go with their job.

import { sql } from "kysely";
import { Fault } from "../../contract/errors.ts";
import type { Queryable } from "../jobs/job.ts";

export interface JobFile {
  /** Unique in its job: [a-z0-9.-]{1,60}. */
  readonly name: string;
  readonly contentType: "image/png" | "text/plain";
  readonly content: Uint8Array;
}

export const jobFileStatements: readonly string[] = [
  `create table job_files (
    job_id uuid not null references jobs on delete cascade, name text not null, content_type text not null, content bytea not null,
    primary key (job_id, name))`,
  `alter table points add column verified jsonb`,
];

const fileBytesMax = 8 << 20;
const namePattern = /^[a-z0-9.-]{1,60}$/;

/** The same name again replaces it: a step that runs twice looks twice. */
export async function saveJobFile(db: Queryable, jobId: string, { name, contentType, content }: JobFile): Promise<void> {
  if (!namePattern.test(name) || content.length > fileBytesMax)
    throw new Fault("Internal", "could not keep a file with its job: its name or size is not allowed", {
      evidence: { name, sizeBytes: content.length, fileBytesMax },
    });
  const bytes = Buffer.from(content);
  await sql`insert into job_files (job_id, name, content_type, content) values (${jobId}, ${name}, ${contentType}, ${bytes})
    on conflict (job_id, name) do update set content_type = excluded.content_type, content = excluded.content`.execute(db);
}

export async function listJobFiles(
  db: Queryable,
  jobId: string,
): Promise<readonly { readonly name: string; readonly contentType: string; readonly sizeBytes: number }[]> {
  const found = await sql<{ name: string; contentType: string; sizeBytes: number }>`
    select name, content_type as "contentType", length(content) as "sizeBytes" from job_files where job_id = ${jobId} order by name`.execute(
    db,
  );
  return found.rows;
}

export async function readJobFile(db: Queryable, jobId: string, name: string): Promise<Uint8Array | undefined> {
  const found = await sql<{ content: Buffer }>`select content from job_files where job_id = ${jobId} and name = ${name}`.execute(db);
  return found.rows[0]?.content;
}
