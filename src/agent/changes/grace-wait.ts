// Waits until the kernel has left every tracepoint that it had entered: what those wrote can then be seen.

import type { SystemCalls } from "../kernel/system-calls.ts";

const membarrierGlobal = 1;

/**
 * Waits until every run of a tracepoint that began before the call has ended. Tracepoints run inside an RCU read section,
 * and MEMBARRIER_CMD_GLOBAL is synchronize_rcu (membarrier(2), kernel/sched/membarrier.c).
 */
export function waitForTracepoints(calls: SystemCalls): void {
  calls.call("membarrier", membarrierGlobal, 0, 0);
}

let pendingWait: Promise<void> | undefined;

/** One wait for all trackers that ask in the same turn: each has done what must come before the wait when it asks. */
export function waitForTracepointsOnce(calls: SystemCalls): Promise<void> {
  pendingWait ??= Promise.resolve().then(() => {
    pendingWait = undefined;
    waitForTracepoints(calls);
  });
  return pendingWait;
}
