// WayBook: where agents find this appliance, now and after a move that was announced, and which of them know it.

import { createHash } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { applianceWaysMax, waysText, type ApplianceWay } from "../../contract/agent-control.ts";
import type { ApplianceConfig } from "../config/config.ts";
import type { SealedFacts } from "../state/facts.ts";
import type { AgentOrders } from "./agent-orders.ts";
import type { Machine, MachineRegistry } from "./machine-registry.ts";

/** How long a move waits for agents that were heard of lately; one that is frozen keeps nothing for a while. */
const toldMsMax = 15_000;
const lookEveryMs = 100;
/** An agent polls at least each 20 seconds. */
const heardMsMax = 45_000;
const addressesShape = z.array(z.string().max(253)).max(applianceWaysMax);

export interface Announcement {
  readonly ways: readonly ApplianceWay[];
  readonly known: readonly Machine[];
  readonly unknown: readonly Machine[];
}

export interface WayBookParts {
  readonly config: ApplianceConfig;
  readonly facts: SealedFacts;
  readonly registry: MachineRegistry;
  readonly orders: AgentOrders;
  readonly ports: () => { readonly controlPort: number; readonly dataPort: number };
  readonly clock: Clock;
  readonly log: Log;
}

export class WayBook {
  readonly #parts: WayBookParts;
  #announced: readonly string[];

  constructor(parts: WayBookParts) {
    this.#parts = parts;
    const kept = parts.facts.read("announcedAddresses");
    this.#announced = kept === undefined ? [] : addressesShape.parse(JSON.parse(kept));
    // The move was made.
    const own = addressesOf(parts.config);
    if (this.#announced.some((address) => own.includes(address))) this.#keep(this.#announced.filter((address) => !own.includes(address)));
  }

  /** Those that were announced first: an agent tries them in this order when the way that it uses fails. Empty until both ports are known. */
  ways(): readonly ApplianceWay[] {
    const { controlPort, dataPort } = this.#parts.ports();
    if (controlPort === 0 || dataPort === 0) return [];
    const addresses = [...new Set([...this.#announced, ...addressesOf(this.#parts.config)])];
    return addresses.slice(0, applianceWaysMax).map((host) => ({ host, controlPort, dataPort }));
  }

  /**
   * Tells agents the addresses at which this appliance will be, in place of those announced before; none takes that back. Durable
   * on return, and each agent in `known` has it on its disk.
   */
  async announce(addresses: readonly string[], signal?: AbortSignal): Promise<Announcement> {
    const { orders, clock, log } = this.#parts;
    const own = addressesOf(this.#parts.config);
    this.#keep([...new Set(addresses)].filter((address) => !own.includes(address)));
    orders.wakeAll();
    const endMs = clock.monotonicMs() + toldMsMax;
    for (;;) {
      const now = this.#look();
      const isWaitedFor = now.unknown.some(({ state, seenAtMs }) => understands(state) && clock.nowMs() - seenAtMs < heardMsMax);
      if (!isWaitedFor || now.ways.length === 0 || clock.monotonicMs() > endMs) {
        log.info("addresses announced to agents", { addresses, knownCount: now.known.length, unknownCount: now.unknown.length });
        return now;
      }
      await clock.sleep(lookEveryMs, signal);
    }
  }

  #look(): Announcement {
    const ways = this.ways();
    const digest = digestOfWays(ways);
    const [known, unknown]: [Machine[], Machine[]] = [[], []];
    for (const machine of this.#parts.registry.list()) (machine.state?.waysDigest === digest ? known : unknown).push(machine);
    return { ways, known, unknown };
  }

  #keep(addresses: readonly string[]): void {
    this.#announced = addresses.slice(0, applianceWaysMax);
    if (this.#announced.length === 0) this.#parts.facts.remove("announcedAddresses");
    else this.#parts.facts.write("announcedAddresses", JSON.stringify(this.#announced));
  }
}

/** What agents are told of these settings. */
export function addressesOf({
  advertiseAddress,
  listenAddresses,
}: Pick<ApplianceConfig, "advertiseAddress" | "listenAddresses">): readonly string[] {
  return advertiseAddress === undefined ? listenAddresses : [advertiseAddress];
}

/** As the agent makes it of what it keeps. */
export function digestOfWays(ways: readonly ApplianceWay[]): string {
  return createHash("sha256").update(waysText(ways)).digest("hex");
}

function understands(state: Machine["state"]): boolean {
  return state?.features?.includes("ways") === true;
}
