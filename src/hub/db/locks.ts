// Locks by name that end with their transaction: callers that change the same thing take turns, in every hub.

import { sql, type Kysely } from "kysely";
import type { Tables } from "./tables.ts";

export async function lockKey(transaction: Kysely<Tables>, key: string): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${key}, 0))`.execute(transaction);
}
