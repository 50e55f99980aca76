// OrderBook: remembers orders and their results on disk, so that an order given twice is carried out once.

import { Fault, toReport } from "../../contract/errors.ts";
import type { AgentOrder, OrderResult } from "../../contract/agent-control.ts";
import { orderBookShape, readState, stateFiles, writeState } from "../identity/state-folder.ts";

const resultsMax = 64;

export class OrderBook {
  readonly #folder: string;
  /** Writing is put off while filesystems are frozen. */
  readonly #isFrozen: () => boolean;
  readonly #results = new Map<string, OrderResult>();
  readonly #begun = new Map<string, AgentOrder>();
  readonly #untold = new Set<string>();
  /** The write under way, if any. */
  #writing: Promise<void> = Promise.resolve();

  constructor(folder: string, isFrozen: () => boolean) {
    this.#folder = folder;
    this.#isFrozen = isFrozen;
  }

  /** Reads the book; orders that a crash cut off get their result. Answers the `replicate` order to resume, if one was cut off. */
  async load(): Promise<void> {
    const book = await readState(this.#folder, stateFiles.orders, orderBookShape);
    if (book === undefined) return;
    for (const result of book.results) this.#results.set(result.orderId, result);
    for (const orderId of book.untold) if (this.#results.has(orderId)) this.#untold.add(orderId);
    for (const order of book.begun) {
      if (order.kind === "replicate") continue; // The appliance gives it again; it is the same each time.
      const fault = new Fault("OrderInterrupted", `the agent was restarted while it carried out the order ${order.kind}`);
      this.#remember({ outcome: "failed", orderId: order.orderId, fault: toReport(fault) });
    }
    await this.save();
  }

  /** new: carry it out. known: it is under way, or its result will be told again. */
  async begin(order: AgentOrder): Promise<"new" | "known"> {
    if (this.#results.has(order.orderId)) {
      this.#untold.add(order.orderId);
      return "known";
    }
    if (this.#begun.has(order.orderId)) return "known";
    this.#begun.set(order.orderId, order);
    await this.save();
    return "new";
  }

  async finish(result: OrderResult): Promise<void> {
    this.#begun.delete(result.orderId);
    this.#remember(result);
    await this.save();
  }

  /** Results that the appliance does not have yet, at most 32. */
  untold(): OrderResult[] {
    return [...this.#untold].slice(0, 32).flatMap((orderId) => this.#results.get(orderId) ?? []);
  }

  async told(results: readonly OrderResult[]): Promise<void> {
    if (results.length === 0) return;
    for (const result of results) this.#untold.delete(result.orderId);
    await this.save();
  }

  /** Writes the book, unless that would block; to be called again after the thaw. */
  async save(): Promise<void> {
    if (this.#isFrozen()) return;
    const before = this.#writing;
    const write = writeState(this.#folder, stateFiles.orders, {
      results: [...this.#results.values()],
      begun: [...this.#begun.values()],
      untold: [...this.#untold],
    });
    this.#writing = Promise.allSettled([before, write]).then(() => undefined);
    await write;
  }

  /** Resolves when no write is under way. */
  async written(): Promise<void> {
    await this.#writing;
  }

  #remember(result: OrderResult): void {
    this.#results.set(result.orderId, result);
    this.#untold.add(result.orderId);
    for (const oldest of this.#results.keys()) {
      if (this.#results.size <= resultsMax) break;
      this.#results.delete(oldest);
      this.#untold.delete(oldest);
    }
  }
}
