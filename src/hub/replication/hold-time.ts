// How long a source has been held frozen at most: the one time on which a cut-over's safety rests, so no clock that can be set decides alone.

import { sql } from "kysely";
import { readBootTime, type BootTime } from "../../base/boot-time.ts";
import type { Queryable } from "../jobs/job.ts";

export interface HoldBegin {
  /** By the database, which all hubs share. */
  readonly quiesceOrderedAt: string;
  /** Of the hub's machine. */
  readonly quiesceOrderedUp: BootTime;
}

/** Taken and stored before the source may be frozen. */
export async function beginHold(db: Queryable): Promise<HoldBegin> {
  const quiesceOrderedUp = await readBootTime();
  const asked = await sql<{ now: string }>`select clock_timestamp() as now`.execute(db);
  return { quiesceOrderedAt: asked.rows[0]?.now ?? "", quiesceOrderedUp };
}

/**
 * The longer of two measures. The database's clock may be set back; a machine's time since its start may not, but it counts only for a hub on
 * the machine that began. Negative: the database's clock was set back, and there is nothing else to go by.
 */
export async function heldSeconds(
  db: Queryable,
  begin: { readonly quiesceOrderedAt: string; readonly quiesceOrderedUp?: BootTime },
): Promise<number> {
  const asked = await sql<{
    seconds: number;
  }>`select extract(epoch from clock_timestamp() - ${begin.quiesceOrderedAt}::timestamptz)::float8 as seconds`.execute(db);
  const byDatabase = asked.rows[0]?.seconds ?? Number.POSITIVE_INFINITY;
  const up = await readBootTime();
  const isSameMachine = up.bootId === begin.quiesceOrderedUp?.bootId;
  return isSameMachine ? Math.max(byDatabase, up.seconds - begin.quiesceOrderedUp.seconds) : byDatabase;
}
