// Questions to the collector: asked by a command, answered by the hub that runs.

import { sql, type Kysely } from "kysely";
import { notify } from "./notifications.ts";
import type { Tables } from "./tables.ts";

export const collectTopic = "collect";

export async function askCollection(db: Kysely<Tables>, mode: "look" | "apply"): Promise<string> {
  const asked = await sql<{ id: string }>`insert into collections (collection_id, mode) values (gen_random_uuid(), ${mode})
    returning collection_id as id`.execute(db);
  await sql`delete from collections where asked_at < clock_timestamp() - interval '1 day'`.execute(db);
  await notify(db, collectTopic);
  return asked.rows[0]?.id ?? "";
}

/** Only one hub gets a question. */
export async function takeCollection(
  db: Kysely<Tables>,
  host: string,
): Promise<{ readonly collectionId: string; readonly mode: "look" | "apply" } | undefined> {
  const taken = await sql<{ collectionId: string; mode: "look" | "apply" }>`update collections set host = ${host} where collection_id = (
      select collection_id from collections where host is null order by asked_at for update skip locked limit 1)
    returning collection_id as "collectionId", mode`.execute(db);
  return taken.rows[0];
}

export async function answerCollection(db: Kysely<Tables>, collectionId: string, answer: object): Promise<void> {
  await sql`update collections set answer = ${JSON.stringify(answer)}::jsonb where collection_id = ${collectionId}`.execute(db);
}

export async function readCollection(
  db: Kysely<Tables>,
  collectionId: string,
): Promise<{ readonly host: string; readonly answer: unknown } | undefined> {
  const found = await sql<{ host: string; answer: unknown }>`select host, answer from collections
    where collection_id = ${collectionId} and answer is not null`.execute(db);
  return found.rows[0];
}
