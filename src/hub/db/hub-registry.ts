// The hubs of one database: each says that it is there, and with which schema, so that versions do not mix.

import { hostname } from "node:os";
import { sql, type Kysely } from "kysely";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { hubForgottenMs, newestSchema } from "./migrations.ts";
import type { Tables } from "./tables.ts";

/** Says so again four times in the span after which a hub counts as gone; closing takes the row away. */
export async function joinHubs(wanted: {
  readonly db: Kysely<Tables>;
  readonly hubId: string;
  readonly clock: Clock;
  readonly log: Log;
}): Promise<AsyncDisposable> {
  const { db, hubId, clock, log } = wanted;
  const say = async (): Promise<void> => {
    await sql`insert into hubs (hub_id, host, schema) values (${hubId}, ${hostname()}, ${newestSchema})
      on conflict (hub_id) do update set seen_at = clock_timestamp()`.execute(db);
    await sql`delete from hubs where seen_at < clock_timestamp() - interval '1 day'`.execute(db);
  };
  await say();
  const closing = new AbortController();
  const beating = (async () => {
    for (;;) {
      await clock.sleep(hubForgottenMs / 4, closing.signal).catch(() => undefined); // Only closing aborts.
      if (closing.signal.aborted) return;
      await say().catch((error: unknown) => log.warn("hub not registered", { reason: String(error) }));
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort();
      await beating;
      await sql`delete from hubs where hub_id = ${hubId}`.execute(db).catch(() => undefined); // Without a database it is forgotten.
    },
  };
}
