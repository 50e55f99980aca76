// ControlLoop: polls the appliance, carries out its orders one after the other, tells the results.

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import {
  agentProtocolVersion,
  type AgentOrder,
  type OrderResult,
  type PollRequest,
  type PollResponse,
} from "../../contract/agent-control.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import type { AgentLog } from "../log.ts";
import type { Doing, Replicator } from "../points/replicator.ts";
import type { Source } from "../source.ts";
import { agentVersion } from "../version.ts";
import type { OrderBook } from "./order-book.ts";

export interface ControlLoopOptions {
  readonly machineId: MachineId;
  readonly source: Source;
  readonly replicator: Replicator;
  readonly book: OrderBook;
  readonly poll: (request: PollRequest, signal: AbortSignal) => Promise<PollResponse>;
  /** Tries the ways to the appliance. */
  readonly checkWays: () => Promise<readonly NetworkCheck[]>;
  /** Rejects with Fault AgentCloned when the machine is not the one that was registered. */
  readonly refuseCopy: (facts: PollRequest["facts"]) => Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
}

const waitSeconds = 20;
const backOffMsMax = 30_000;

export class ControlLoop {
  readonly #options: ControlLoopOptions;
  readonly #queue: AgentOrder[] = [];
  #news = new AbortController();
  #isWorking = false;
  #isUninstalling = false;
  /** As they were last, for a machine whose disks cannot be told apart any more. */
  #facts: PollRequest["facts"] | undefined;

  constructor(options: ControlLoopOptions) {
    this.#options = options;
  }

  /** Runs until the signal ends, or until an uninstall order has been answered. */
  async run(signal: AbortSignal): Promise<"stopped" | "uninstall"> {
    const { clock, random, log } = this.#options;
    let failures = 0;
    while (!signal.aborted) {
      const results = this.#options.book.untold();
      this.#news = new AbortController();
      try {
        const response = await this.#poll(results, signal);
        await this.#options.book.told(results);
        if (response.unitsInFlightMax !== undefined) this.#options.replicator.unitsInFlightMax = response.unitsInFlightMax;
        failures = 0;
        if (this.#isUninstalling && this.#options.book.untold().length === 0) return "uninstall";
        for (const order of response.orders) await this.#take(order);
      } catch (error) {
        if (this.#news.signal.aborted && !signal.aborted) continue;
        if (signal.aborted) break;
        const fault = asFault(error, "ask the appliance for orders");
        if (fault.code === "AgentCloned") throw fault;
        if (failures === 0) log.warn("poll failed", { fault: toReport(fault) });
        failures += 1;
        const jitter = 0.5 + (random.bytes(1)[0] ?? 0) / 512;
        const waitMs = Math.min(backOffMsMax, 1000 * 2 ** Math.min(failures - 1, 5)) * jitter;
        await clock.sleep(waitMs, AbortSignal.any([signal, this.#news.signal])).catch(() => undefined); // Woken early: polls again.
      }
    }
    return "stopped";
  }

  async #poll(results: readonly OrderResult[], signal: AbortSignal): Promise<PollResponse> {
    const { machineId, source, replicator } = this.#options;
    const { facts, fault } = await this.#readFacts(source);
    await this.#options.refuseCopy(facts);
    await replicator.measure();
    const request: PollRequest = {
      protocolVersion: agentProtocolVersion,
      machineId,
      agentVersion,
      facts,
      state: { ...replicator.state(), ...(fault === undefined ? {} : { fault: toReport(fault) }) },
      results: [...results],
      waitSeconds: this.#isUninstalling ? 0 : waitSeconds,
    };
    return await this.#options.poll(request, AbortSignal.any([signal, this.#news.signal]));
  }

  /** An agent that says nothing because it does not know a disk would hide why: it tells what it knew, with the fault. */
  async #readFacts(source: Source): Promise<{ readonly facts: PollRequest["facts"]; readonly fault?: Fault }> {
    try {
      return { facts: (this.#facts = await source.facts()) };
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "DiskUnidentified" || this.#facts === undefined) throw error;
      return { facts: this.#facts, fault: error };
    }
  }

  /** Queues an order; release, stop, profile and checkNetwork do not wait for the others, nor these for them. */
  async #take(order: AgentOrder): Promise<void> {
    if ((await this.#options.book.begin(order)) === "known") return;
    this.#options.log.info("order came", { kind: order.kind, orderId: order.orderId });
    if (order.kind === "release" || order.kind === "stop" || order.kind === "profile" || order.kind === "checkNetwork") {
      void this.#carryOut(order);
      return;
    }
    this.#queue.push(order);
    if (!this.#isWorking) void this.#work();
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    for (let order = this.#queue.shift(); order !== undefined; order = this.#queue.shift()) await this.#carryOut(order);
    this.#isWorking = false;
  }

  async #carryOut(order: AgentOrder): Promise<void> {
    const { book, log } = this.#options;
    const { orderId, kind } = order;
    try {
      const doing = await this.#do(order);
      await book.finish({ outcome: "done", orderId, ...doing });
      log.info("order was carried out", { kind, orderId });
    } catch (error) {
      const fault = asFault(error, `carry out the order ${kind}`);
      await book.finish({ outcome: "failed", orderId, fault: toReport(fault) });
      log.warn("order failed", { kind, orderId, fault: toReport(fault) });
    }
    this.#news.abort(new Fault("OrderInterrupted", "there is a result to tell"));
  }

  async #do(order: AgentOrder): Promise<Doing> {
    const { replicator } = this.#options;
    switch (order.kind) {
      case "replicate":
        return await replicator.replicate(order.policy, order.excludedDiskIds);
      case "point":
        return order.isJoin === true ? replicator.join() : await replicator.point();
      case "verify":
        return await replicator.verify();
      case "quiesce":
        return await replicator.quiesce(order.holdSecondsMax * 1000);
      case "release":
        return await replicator.release();
      case "profile":
        return await replicator.profile(order.seconds);
      case "checkNetwork":
        return { checks: [...(await this.#options.checkWays())] };
      case "stop":
        return await replicator.stop();
      case "uninstall": {
        const doing = await replicator.stop();
        this.#isUninstalling = true;
        return doing;
      }
    }
  }
}
