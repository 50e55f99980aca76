// What falls due by the clock, looked at again and again: commits that nobody made in time, rehearsals.

import { sql } from "kysely";
import { asFault } from "../../contract/errors.ts";
import { operateItem } from "./item-actions.ts";
import { itemType } from "./names.ts";
import { beginDueRehearsals } from "./rehearsal-schedule.ts";
import type { ReplicationFront } from "./world.ts";

export function startDueLoop(front: ReplicationFront): AsyncDisposable {
  const { services, limits } = front;
  const { clock, log } = services;
  const closing = new AbortController();
  const { signal } = closing;
  const look = async (what: string, task: (front: ReplicationFront) => Promise<unknown>): Promise<void> => {
    try {
      await task(front);
    } catch (error) {
      // The next look tries again.
      if (!signal.aborted) log.warn(`${what} not looked at`, { reason: error instanceof Error ? error.message : String(error) });
    }
  };
  const running = (async () => {
    for (;;) {
      await clock.sleep(limits.watchMs, signal).catch(() => undefined); // Only an abort rejects it, and that is looked at here:
      if (signal.aborted) return;
      await look("overdue commits", cancelOverdue);
      await look("due rehearsals", beginDueRehearsals);
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort(new Error("the hub stops"));
      await running;
    },
  };
}

const overdueMax = 50;

/** Goes back with machines whose commit has not come by the time that was set when they were cut over. */
async function cancelOverdue(front: ReplicationFront): Promise<void> {
  const { database, clock, log, resources } = front.services;
  const found = await sql<{ id: string }>`select id from resources where type = ${itemType.toLowerCase()}
    and properties->>'protectionState' = 'UnplannedFailoverCommitPending'
    and (properties->'failover'->>'commitBy')::timestamptz < to_timestamp(${clock.nowMs() / 1000}) order by key limit ${overdueMax}`.execute(
    database.db,
  );
  for (const { id } of found.rows) {
    try {
      const resource = await resources.get(id);
      await operateItem(front, { id: resource.id, caller: { name: "commit timer" } }, resource, { operation: "CancelFailover" });
      log.warn("migration cancelled, because nobody committed it in time", { itemId: id });
    } catch (error) {
      const fault = asFault(error, "cancel a migration");
      // Somebody committed or cancelled it meanwhile.
      if (fault.code !== "StateConflict" && fault.code !== "NotFound")
        log.error("overdue migration not cancelled", { itemId: id, reason: fault.message });
    }
  }
}
