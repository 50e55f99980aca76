// Prunes the events of a hub's vaults now and then; several hubs may do it at once.

import type { HubServices } from "../services.ts";

const firstWaitMs = 60_000;
const intervalMs = 3600_000;

export function startEventRetention({ events, clock, log }: Pick<HubServices, "events" | "clock" | "log">): AsyncDisposable {
  const closing = new AbortController();
  const running = (async () => {
    for (let waitMs = firstWaitMs; ; waitMs = intervalMs) {
      await clock.sleep(waitMs, closing.signal).catch(() => undefined); // Only an abort rejects it, and that is looked at here:
      if (closing.signal.aborted) return;
      try {
        const removed = await events.prune(closing.signal);
        if (removed > 0) log.info("events pruned", { removed });
      } catch (error) {
        // The next round tries again.
        if (!closing.signal.aborted) log.warn("events not pruned", { reason: error instanceof Error ? error.message : String(error) });
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
