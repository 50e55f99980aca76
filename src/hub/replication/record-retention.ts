// Takes away events, jobs and operations that are too old or too many, now and then; several hubs may do it at once.

import { pruneJobs } from "../jobs/job-retention.ts";
import type { HubServices } from "../services.ts";

const firstWaitMs = 60_000;
const intervalMs = 3600_000;

export function startRetention({
  events,
  database,
  clock,
  log,
}: Pick<HubServices, "events" | "database" | "clock" | "log">): AsyncDisposable {
  const closing = new AbortController();
  const running = (async () => {
    for (let waitMs = firstWaitMs; ; waitMs = intervalMs) {
      await clock.sleep(waitMs, closing.signal).catch(() => undefined); // Only an abort rejects it, and that is looked at here:
      if (closing.signal.aborted) return;
      try {
        const eventCount = await events.prune(closing.signal);
        const jobCount = await pruneJobs(database.db, { nowMs: clock.nowMs(), signal: closing.signal });
        if (eventCount + jobCount > 0) log.info("old records removed", { events: eventCount, jobsAndOperations: jobCount });
      } catch (error) {
        // The next round tries again.
        if (!closing.signal.aborted)
          log.warn("old records not removed", { reason: error instanceof Error ? error.message : String(error) });
      }
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort(new Error("the hub stops"));
      await running;
    },
  };
}
