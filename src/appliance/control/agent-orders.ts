// Orders to agents: kept on disk until their result is there, given in order, given again when in doubt.

import type { Clock } from "../../base/clock.ts";
import { agentOrderShape, orderResultShape, type AgentOrder, type OrderResult } from "../../contract/agent-control.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import { readJson, type StateDatabase } from "../state/database.ts";

const ordersPerPollMax = 32;
/** Orders of one machine that may wait for their result. */
const ordersWaitingMax = 256;
/** Results that are kept, per machine, so that an order given twice is answered from memory. */
const resultsKeptMax = 512;
/** An order without a result is given again after this long: the answer that carried it may have been lost. */
const giveAgainMs = 15_000;

export interface AgentOrders {
  /** Queues an order; the same orderId again changes nothing. */
  give(machineId: MachineId, order: AgentOrder): void;
  /** Orders that the agent should be told now. */
  take(machineId: MachineId): readonly AgentOrder[];
  recordResult(machineId: MachineId, result: OrderResult): void;
  resultOf(orderId: string): OrderResult | undefined;
  /** Resolves with the order's result, whenever it comes. */
  waitResult(orderId: string, signal?: AbortSignal): Promise<OrderResult>;
  /** Ends every wait for an order, as one that was given would: there is something else to tell. */
  wakeAll(): void;
  /** Resolves when an order was given to the machine, waitMs have passed or the signal is aborted. */
  waitOrder(machineId: MachineId, waitMs: number, signal: AbortSignal): Promise<void>;
}

export function createAgentOrders({ database, clock }: { readonly database: StateDatabase; readonly clock: Clock }): AgentOrders {
  const bell = new Bell();
  const givenAtMs = new Map<string, number>();
  const resultOf = (orderId: string): OrderResult | undefined => {
    const row = database.one("SELECT result FROM agent_order WHERE id = ? AND result IS NOT NULL", orderId);
    return row === undefined ? undefined : readJson(orderResultShape, row, "result");
  };
  return {
    resultOf,
    give: (machineId, order) => {
      requireRoom(database, machineId);
      database.run(
        `INSERT INTO agent_order (id, place, machine_id, body) VALUES (?, (SELECT coalesce(max(place), 0) + 1 FROM agent_order), ?, ?)
         ON CONFLICT (id) DO NOTHING`,
        order.orderId,
        machineId,
        JSON.stringify(order),
      );
      bell.ring(`orders ${machineId}`);
    },
    take: (machineId) => {
      const rows = database.all(
        "SELECT body FROM agent_order WHERE machine_id = ? AND result IS NULL ORDER BY place LIMIT ?",
        machineId,
        ordersPerPollMax,
      );
      const nowMs = clock.monotonicMs();
      const due = rows
        .map((row) => readJson(agentOrderShape, row, "body"))
        .filter((order) => nowMs - (givenAtMs.get(order.orderId) ?? -Infinity) >= giveAgainMs);
      for (const order of due) givenAtMs.set(order.orderId, nowMs);
      return due;
    },
    recordResult: (machineId, result) => {
      keepResult(database, machineId, result);
      givenAtMs.delete(result.orderId);
      bell.ring(`result ${result.orderId}`);
    },
    wakeAll: () => bell.ringAll("orders "),
    waitResult: async (orderId, signal) => {
      for (;;) {
        const result = resultOf(orderId);
        if (result !== undefined) return result;
        await bell.wait(`result ${orderId}`, signal ?? new AbortController().signal);
        signal?.throwIfAborted();
      }
    },
    waitOrder: async (machineId, waitMs, signal) => {
      const ended = new AbortController();
      const either = AbortSignal.any([signal, ended.signal]);
      const timer = clock.sleep(waitMs, either).catch(() => undefined); // Only the bell or the caller abort it.
      await Promise.race([timer, bell.wait(`orders ${machineId}`, either)]);
      ended.abort();
    },
  };
}

function requireRoom(database: StateDatabase, machineId: MachineId): void {
  const row = database.one("SELECT count(*) AS n FROM agent_order WHERE machine_id = ? AND result IS NULL", machineId);
  const waiting = Number(row?.["n"]);
  if (waiting < ordersWaitingMax) return;
  throw new Fault("StateConflict", `could not give machine ${machineId} another order: too many wait for it`, {
    evidence: { machineId, waiting, ordersWaitingMax },
  });
}

function keepResult(database: StateDatabase, machineId: MachineId, result: OrderResult): void {
  database.run(
    "UPDATE agent_order SET result = ? WHERE id = ? AND machine_id = ? AND result IS NULL",
    JSON.stringify(result),
    result.orderId,
    machineId,
  );
  database.run(
    `DELETE FROM agent_order WHERE machine_id = ? AND result IS NOT NULL AND place <=
       (SELECT place FROM agent_order WHERE machine_id = ? AND result IS NOT NULL ORDER BY place DESC LIMIT 1 OFFSET ?)`,
    machineId,
    machineId,
    resultsKeptMax,
  );
}

/** Wakes those who wait for a name. A ring that nobody waits for is lost: look first, then wait, without an await in between. */
export class Bell {
  readonly #waiting = new Map<string, Set<() => void>>();

  ring(name: string): void {
    const waiting = this.#waiting.get(name);
    this.#waiting.delete(name);
    for (const wake of waiting ?? []) wake();
  }

  ringAll(prefix: string): void {
    for (const name of [...this.#waiting.keys()]) if (name.startsWith(prefix)) this.ring(name);
  }

  /** Resolves at the next ring, or at the abort. */
  async wait(name: string, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const waiting = this.#waiting.get(name) ?? new Set();
      this.#waiting.set(name, waiting);
      const wake = (): void => {
        signal.removeEventListener("abort", wake);
        waiting.delete(wake);
        if (waiting.size === 0 && this.#waiting.get(name) === waiting) this.#waiting.delete(name);
        resolve();
      };
      waiting.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}
