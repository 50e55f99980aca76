// Ends an order in its agent's name when the agent has not been heard of for too long: who waits for it is told, instead of waiting for ever.

import type { Clock } from "../../base/clock.ts";
import type { AgentOrder } from "../../contract/agent-control.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { AgentOrders } from "./agent-orders.ts";
import type { MachineRegistry } from "./machine-registry.ts";

/** As long as a line or a machine may be away before an operator is told of it. */
const silentMsMax = 15 * 60_000;
const looksApartMs = 5000;

export interface SilenceParts {
  readonly registry: Pick<MachineRegistry, "find">;
  readonly orders: Pick<AgentOrders, "recordResult">;
  readonly clock: Clock;
}

/** How long the agent that has this order may be silent: one that is to hold its machine has let it go by itself after the hold. */
export function silenceMaxOf(order: AgentOrder): number {
  return order.kind === "quiesce" ? Math.min(order.holdSecondsMax * 1000, silentMsMax) : silentMsMax;
}

/** Resolves at the signal's end, or when the order was ended with Fault AgentSilent. An agent that comes back is not given it any more. */
export async function endWhenSilent(
  { registry, orders, clock }: SilenceParts,
  { machineId, order, msMax }: { readonly machineId: MachineId; readonly order: AgentOrder; readonly msMax: number },
  signal: AbortSignal,
): Promise<void> {
  // Counted here from each word of the agent, for the time at which it spoke may be set.
  let seenAtMs = registry.find(machineId)?.seenAtMs;
  let heardMs = clock.monotonicMs();
  while (!signal.aborted) {
    await clock.sleep(Math.min(looksApartMs, msMax), signal).catch(() => undefined); // The loop's head sees the abort.
    const now = registry.find(machineId)?.seenAtMs;
    if (now !== seenAtMs) [seenAtMs, heardMs] = [now, clock.monotonicMs()];
    if (signal.aborted || clock.monotonicMs() - heardMs <= msMax) continue;
    const fault = new Fault("AgentSilent", `the agent was silent for ${Math.round(msMax / 1000)} s while it had the order ${order.kind}`, {
      evidence: { machineId, order: order.kind },
    });
    return orders.recordResult(machineId, { outcome: "failed", orderId: order.orderId, fault: toReport(fault) });
  }
}
