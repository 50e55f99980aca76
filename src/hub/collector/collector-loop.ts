// Runs the collector in a hub: now and then by itself, and when `watari hub collect` asks through the database.

import { hostname } from "node:os";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { collectTopic, answerCollection, takeCollection } from "../db/collections.ts";
import type { Database } from "../db/database.ts";
import { isSame, type Collector, type Orphan } from "./collector.ts";

const intervalMs = 10 * 60_000;
const askedPollMs = 30_000;

/**
 * By itself it removes only what was an orphan at two looks in a row: what is being made in this moment is never taken for one. Each hub looks
 * at its own target; rows that two hubs remove at once are gone once.
 */
export function startCollecting(wanted: {
  readonly collector: Collector;
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
}): AsyncDisposable {
  const { collector, database, clock, log } = wanted;
  const closing = new AbortController();
  let bell = new AbortController();
  const subscription = database.notifications.subscribe(collectTopic, () => bell.abort());
  let before: readonly Orphan[] = [];
  let nextMs = clock.monotonicMs() + intervalMs;
  const look = async (): Promise<void> => {
    const found = await collector.find();
    await collector.remove(found.filter((orphan) => before.some((earlier) => isSame(earlier, orphan))));
    for (const orphan of found.filter((each) => each.isRemovable === "no"))
      log.error("orphan found", { orphanKind: orphan.kind, id: orphan.id, reason: orphan.reason });
    before = found;
  };
  const answerAsked = async (): Promise<void> => {
    for (;;) {
      const asked = await takeCollection(database.db, hostname());
      if (asked === undefined) return;
      const found = await collector.find();
      const left = asked.mode === "apply" ? await collector.remove(found) : found;
      await answerCollection(database.db, asked.collectionId, { found, left });
    }
  };
  const running = (async () => {
    while (!closing.signal.aborted) {
      bell = new AbortController();
      try {
        await answerAsked();
        if (clock.monotonicMs() >= nextMs) {
          nextMs = clock.monotonicMs() + intervalMs;
          await look();
        }
      } catch (error) {
        log.warn("collector failed", { reason: error instanceof Error ? error.message : String(error) });
      }
      await clock.sleep(askedPollMs, AbortSignal.any([bell.signal, closing.signal])).catch(() => undefined); // Both only wake it.
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort();
      subscription[Symbol.dispose]();
      await running;
    },
  };
}
