// Starts the private cluster again when its server died: by the kernel for want of memory, by a full disk, by a hand. Waits longer each time it fails.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { PrivateCluster } from "./private-cluster.ts";

const lookEveryMs = 500;
const firstWaitMs = 500;
const waitMsMax = 10_000;

/** Until disposed, which comes before the cluster is stopped. */
export function keepCluster({
  cluster,
  clock,
  log,
}: {
  readonly cluster: PrivateCluster;
  readonly clock: Clock;
  readonly log: Log;
}): AsyncDisposable {
  const closing = new AbortController();
  const rest = async (waitMs: number): Promise<void> => await clock.sleep(waitMs, closing.signal).catch(() => undefined); // The loop looks at the signal.
  const running = (async () => {
    for (let waitMs = firstWaitMs; !closing.signal.aborted;) {
      await rest(lookEveryMs);
      if (closing.signal.aborted || (await cluster.isAlive())) continue;
      log.error("database died", { waitMs });
      try {
        await cluster.start();
        log.warn("database started again");
        waitMs = firstWaitMs;
      } catch (error) {
        log.error("database not started again", { reason: error instanceof Error ? error.message : String(error) });
        await rest(waitMs);
        waitMs = Math.min(waitMsMax, waitMs * 2);
      }
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort();
      await running;
    },
  };
}
