// Fencing numbers: one rising sequence of the database, so that of two hubs the one that acted later has the higher number.

import { sql, type Kysely } from "kysely";
import type { Tables } from "./tables.ts";

/** A number higher than every one given before. Jobs get theirs when a hub takes them; this one is for a call of a person. */
export async function nextFence(db: Kysely<Tables>): Promise<number> {
  const next = await sql<{ fence: string }>`select nextval('fence_numbers') as fence`.execute(db);
  const fence = next.rows[0]?.fence;
  if (fence === undefined) throw new Error("assertion failed: a sequence gives a number");
  return Number(fence);
}
