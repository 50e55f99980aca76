// Orders of a simulated appliance: each is carried out once however often it is given, and its result is kept until it was told.

import { Semaphore } from "../base/semaphore.ts";
import type { ApplianceOrder, ApplianceOrderResult } from "../contract/appliance-protocol.ts";

interface Known {
  result: ApplianceOrderResult | undefined;
  isTold: boolean;
}

const ordersAtOnceMax = 16;
/** As at the real appliance, what was told is kept a while, for orders that are given again. */
const knownMax = 5000;

export class OrderDesk {
  readonly #obey: (order: ApplianceOrder) => Promise<ApplianceOrderResult>;
  readonly #known = new Map<string, Known>();
  readonly #turns = new Semaphore(ordersAtOnceMax);
  #runningCount = 0;
  #bell = Promise.withResolvers<void>();

  constructor(obey: (order: ApplianceOrder) => Promise<ApplianceOrderResult>) {
    this.#obey = obey;
  }

  get isBusy(): boolean {
    return this.#runningCount > 0;
  }

  take(orders: readonly ApplianceOrder[]): void {
    for (const order of orders) {
      const known = this.#known.get(order.orderId);
      if (known === undefined) void this.#carryOut(order);
      else known.isTold = false;
    }
  }

  untold(countMax: number): readonly ApplianceOrderResult[] {
    const untold = [...this.#known.values()].flatMap(({ result, isTold }) => (result === undefined || isTold ? [] : [result]));
    return untold.slice(0, countMax);
  }

  markTold(orderIds: readonly string[]): void {
    for (const orderId of orderIds) {
      const known = this.#known.get(orderId);
      if (known !== undefined) known.isTold = true;
    }
    for (const [orderId, { isTold }] of this.#known) {
      if (this.#known.size <= knownMax) return;
      if (isTold) this.#known.delete(orderId);
    }
  }

  progress(): readonly [] {
    return [];
  }

  /** Resolves when a result came up or on the signal. */
  async waitResult(signal: AbortSignal): Promise<void> {
    if (signal.aborted || this.untold(1).length > 0) return;
    const aborted = Promise.withResolvers<void>();
    const abort = (): void => aborted.resolve();
    signal.addEventListener("abort", abort, { once: true });
    await Promise.race([this.#bell.promise, aborted.promise]);
    signal.removeEventListener("abort", abort);
  }

  /** Obeying never rejects: a fault is a result. */
  async #carryOut(order: ApplianceOrder): Promise<void> {
    const known: Known = { result: undefined, isTold: false };
    this.#known.set(order.orderId, known);
    this.#runningCount += 1;
    known.result = await this.#turns.run(async () => await this.#obey(order));
    this.#runningCount -= 1;
    this.#bell.resolve();
    this.#bell = Promise.withResolvers<void>();
  }
}
