// Rehearsals by the clock: machines whose policy wants them are rehearsed in turn, few at once, and never while something else is under way.

import { sql } from "kysely";
import { asFault } from "../../contract/errors.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { lockKey } from "../db/locks.ts";
import type { JsonObject } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import { allowedOperations } from "./item-operations.ts";
import { startJob } from "./item-start.ts";
import { parseItem, type Item } from "./item.ts";
import { itemType, policyType } from "./names.ts";
import { rehearsalKind } from "./rehearsal.ts";
import type { ReplicationFront } from "./world.ts";

/** Of one database: each takes a processor and memory of the landing host. */
const rehearsalsAtOnceMax = 2;
const candidatesMax = 20;

/** Begins those that are due, the one that has waited longest first; answers how many. Several hubs may look at once. */
export async function beginDueRehearsals(front: ReplicationFront): Promise<number> {
  const { database, clock, log } = front.services;
  let begun = 0;
  for (const { id, properties } of await findDue(database.db, clock.nowMs())) {
    const item = parseItem(properties);
    if (!allowedOperations(item).includes("TestFailover")) continue;
    const write = async (task: (db: Queryable) => Promise<string>): Promise<string> =>
      await database.db.transaction().execute(async (db) => {
        await lockKey(db, "rehearsals");
        return (await runningCount(db)) < rehearsalsAtOnceMax ? await task(db) : "";
      });
    try {
      const call = { id: parseResourceId(id), caller: { name: "schedule" }, write };
      const { operationId } = await startJob(front, call, item, wishOf(item));
      if (operationId === "") return begun;
      begun += 1;
    } catch (error) {
      const fault = asFault(error, "begin a rehearsal");
      // Somebody began something else with it meanwhile: it is due again at the next look.
      if (fault.code !== "StateConflict") log.warn("rehearsal not begun", { machine: item.machineName, reason: fault.message });
    }
  }
  return begun;
}

function wishOf(item: Item): Parameters<typeof startJob>[3] {
  return {
    kind: rehearsalKind,
    parameters: { actions: item.settings.postLaunchActions, isKept: false },
    change: { busyWith: rehearsalKind },
  };
}

/** Protected machines whose last rehearsal is longer ago than their policy wants; only a policy that wants any is looked at. */
async function findDue(db: Queryable, nowMs: number): Promise<readonly { readonly id: string; readonly properties: JsonObject }[]> {
  const found = await sql<{ id: string; properties: JsonObject }>`select i.id, i.properties from resources p
    join resources i on i.type = ${itemType.toLowerCase()} and starts_with(i.key, p.parent_key || '/')
      and lower(i.properties->>'policyName') = lower(p.name)
    where p.type = ${policyType.toLowerCase()} and (p.properties->'settings'->>'rehearsalIntervalHours')::float8 > 0
      and i.properties->>'protectionState' = 'Protected' and not i.properties ? 'busyWith'
      and coalesce((i.properties->'rehearsal'->>'endedAt')::timestamptz, '-infinity'::timestamptz)
        < to_timestamp(${nowMs / 1000}) - (p.properties->'settings'->>'rehearsalIntervalHours')::float8 * interval '1 hour'
    order by coalesce((i.properties->'rehearsal'->>'endedAt')::timestamptz, '-infinity'::timestamptz), i.key limit ${candidatesMax}`.execute(
    db,
  );
  return found.rows;
}

async function runningCount(db: Queryable): Promise<number> {
  const found = await sql<{
    count: number;
  }>`select count(*)::int as count from jobs where kind = ${rehearsalKind} and ended_at is null`.execute(db);
  return found.rows[0]?.count ?? 0;
}
