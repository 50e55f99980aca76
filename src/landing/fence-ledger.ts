// Who may command a machine: the newest hub that did. A command with an older fencing number than one seen before is refused.

import { Fault } from "../contract/errors.ts";

/**
 * Says on whose behalf a command is given. job: the number of a job's lease; it is remembered, and older ones are refused from then on.
 * person: a number made for one call; it is refused when a newer one was seen, and is not remembered, because a job may be under way.
 */
export interface Authority {
  readonly kind: "job" | "person";
  readonly fence: number;
}

/** The highest number seen of each machine. It outlives the machine: what was removed must not come back by an old command. */
export interface FenceLedger {
  highest(name: string): Promise<number>;
  /** Durable on return. */
  raise(name: string, fence: number): Promise<void>;
}

/** Throws StaleOrder for an older number than the highest seen; remembers a job's higher one. Asked again right before each effect. */
export async function admit(ledger: FenceLedger, name: string, authority: Authority): Promise<void> {
  const highest = await ledger.highest(name);
  if (authority.fence < highest)
    throw new Fault("StaleOrder", `could not command machine ${name}: a newer hub has commanded it meanwhile`, {
      evidence: { name, fence: authority.fence, highestFence: highest },
    });
  if (authority.kind === "job" && authority.fence > highest) await ledger.raise(name, authority.fence);
}
