// Makes listeners, interface addresses and the resolver equal to the endpoints and zones that the resources state; again after every start.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { runCommand } from "../../base/run-command.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { asFault, type Fault } from "../../contract/errors.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
import type { LandingResolver } from "../dns/resolver.ts";
import type { NetworkConfig } from "../hub-config.ts";
import type { Authority } from "../pki/authority.ts";
import { openDoor, type Door, type HttpHandler } from "./door.ts";
import { endpointType, planEndpoint, planZones, type PlannedListener } from "./endpoint-plan.ts";

export interface ServedName {
  readonly endpointId: string;
  readonly targetId: string;
  readonly member: string;
  readonly fqdn: string;
  readonly address: string;
  readonly port: number;
}

/** What a caller changed; all of it unless told. */
export interface LinkChange {
  /** Only the listeners of this endpoint. */
  readonly endpointId?: string;
  /** The zones, their links and records too, or alone. */
  readonly zones?: "changed";
}

export interface PrivateLink extends AsyncDisposable {
  /** Does what is needed and returns when it is done; callers at the same time take turns. Faults are kept per endpoint. */
  reconcile(change?: LinkChange): Promise<void>;
  /** What stands in the way of an endpoint ("resolver" for DNS); undefined: it serves. */
  faultOf(endpointId: string): Fault | undefined;
  readonly faults: ReadonlyMap<string, Fault>;
  /** Names that are served right now. */
  served(): readonly ServedName[];
  /** Those that lead to one resource. */
  servedOf(targetId: string): readonly ServedName[];
}

export interface PrivateLinkDependencies {
  readonly resources: ResourceStore;
  readonly networks: readonly NetworkConfig[];
  readonly domain: string;
  readonly endpointPort: number;
  readonly authority: Authority;
  /** What a member's listener answers with. */
  readonly faceOf: (target: Resource, member: string) => HttpHandler;
  /** By virtual network. */
  readonly resolvers: ReadonlyMap<string, LandingResolver>;
  readonly clock: Clock;
  readonly log: Log;
}

interface Running {
  readonly planned: PlannedListener;
  readonly door: Door;
}

const retryWaitMs = 3_000;
const resolverKey = "resolver";

export function openPrivateLink(dependencies: PrivateLinkDependencies): PrivateLink {
  const { log, clock } = dependencies;
  const running = new Listeners();
  const faults = new Map<string, Fault>();
  const turn = new Semaphore(1);
  const closing = new AbortController();
  let retry: Promise<void> | undefined;
  const reconcile = async (change?: LinkChange): Promise<void> => {
    const { endpointId, zones } = change ?? {};
    await turn.run(async () => {
      if (closing.signal.aborted) return;
      if (endpointId !== undefined) await reconcileEndpoint(dependencies, running, faults, endpointId);
      else if (zones === undefined) await reconcileListeners(dependencies, running, faults);
      if (endpointId === undefined || zones !== undefined) await reconcileResolvers(dependencies, faults);
    });
    for (const [subject, fault] of faults) log.error("private link failed", { subject, fault: fault.code, reason: fault.message });
    if (faults.size > 0) retry ??= retryLater();
  };
  const retryLater = async (): Promise<void> => {
    await clock.sleep(retryWaitMs, closing.signal).catch(() => undefined); // Only closing aborts; reconcile sees it.
    retry = undefined;
    await reconcile();
  };
  return {
    reconcile,
    faults,
    faultOf: (endpointId) => faults.get(endpointId.toLowerCase()) ?? faults.get(resolverKey),
    served: () => running.all().map(toServedName),
    servedOf: (targetId) => running.ofTarget(targetId).map(toServedName),
    [Symbol.asyncDispose]: async () => {
      closing.abort();
      await retry;
      await turn.run(async () => {
        await Promise.all(running.all().map((listener) => stopListener(listener, log)));
        for (const resolver of dependencies.resolvers.values()) await resolver[Symbol.asyncDispose]();
      });
    },
  };
}

/** Running listeners by address, by endpoint and by target, so that no question goes through all of them. */
class Listeners {
  readonly #byAddress = new Map<string, Running>();
  readonly #byEndpoint = new Map<string, Set<Running>>();
  readonly #byTarget = new Map<string, Set<Running>>();

  all(): readonly Running[] {
    return [...this.#byAddress.values()];
  }

  at(address: string): Running | undefined {
    return this.#byAddress.get(address);
  }

  ofEndpoint(endpointId: string): readonly Running[] {
    return [...(this.#byEndpoint.get(endpointId.toLowerCase()) ?? [])];
  }

  ofTarget(targetId: string): readonly Running[] {
    return [...(this.#byTarget.get(targetId.toLowerCase()) ?? [])];
  }

  add(listener: Running): void {
    const { address, endpointId, target } = listener.planned;
    this.#byAddress.set(address, listener);
    for (const [index, key] of this.#places(endpointId, target)) {
      const set = index.get(key) ?? new Set();
      index.set(key, set.add(listener));
    }
  }

  remove(listener: Running): void {
    const { address, endpointId, target } = listener.planned;
    this.#byAddress.delete(address);
    for (const [index, key] of this.#places(endpointId, target)) {
      index.get(key)?.delete(listener);
      if (index.get(key)?.size === 0) index.delete(key);
    }
  }

  #places(endpointId: string, target: Resource): readonly (readonly [Map<string, Set<Running>>, string])[] {
    return [
      [this.#byEndpoint, endpointId.toLowerCase()],
      [this.#byTarget, target.id.key],
    ];
  }
}

async function reconcileListeners(dependencies: PrivateLinkDependencies, running: Listeners, faults: Map<string, Fault>): Promise<void> {
  for (const subject of [...faults.keys()]) if (subject !== resolverKey) faults.delete(subject);
  const wanted: PlannedListener[] = [];
  for await (const endpoint of dependencies.resources.all(endpointType)) wanted.push(...(await planOf(dependencies, endpoint, faults)));
  await makeEqual(dependencies, { running, faults, wanted, present: running.all() });
}

async function reconcileEndpoint(
  dependencies: PrivateLinkDependencies,
  running: Listeners,
  faults: Map<string, Fault>,
  endpointId: string,
): Promise<void> {
  faults.delete(endpointId.toLowerCase());
  const endpoint = await dependencies.resources.find(endpointId);
  const wanted = endpoint === undefined ? [] : await planOf(dependencies, endpoint, faults);
  await makeEqual(dependencies, { running, faults, wanted, present: running.ofEndpoint(endpointId) });
}

async function planOf(
  dependencies: PrivateLinkDependencies,
  endpoint: Resource,
  faults: Map<string, Fault>,
): Promise<readonly PlannedListener[]> {
  try {
    return await planEndpoint(dependencies, endpoint);
  } catch (error) {
    faults.set(endpoint.id.key, asFault(error, `read the private endpoint ${endpoint.id.text}`));
    return [];
  }
}

/** Stops those of `present` that are not wanted as they are, then starts what is missing. */
async function makeEqual(
  dependencies: PrivateLinkDependencies,
  state: {
    readonly running: Listeners;
    readonly faults: Map<string, Fault>;
    readonly wanted: readonly PlannedListener[];
    readonly present: readonly Running[];
  },
): Promise<void> {
  const { running, faults, present } = state;
  const wanted = new Map(state.wanted.map((planned) => [planned.address, planned]));
  for (const listener of present) {
    const planned = wanted.get(listener.planned.address);
    if (planned !== undefined && isSame(planned, listener.planned)) continue;
    running.remove(listener);
    await stopListener(listener, dependencies.log);
  }
  for (const [address, planned] of wanted) {
    const there = running.at(address);
    if (there !== undefined && isSame(planned, there.planned)) continue;
    if (there !== undefined) {
      // The address was another endpoint's a moment ago, and that one's turn has not come yet.
      running.remove(there);
      await stopListener(there, dependencies.log);
    }
    try {
      running.add(await startListener(dependencies, planned));
    } catch (error) {
      faults.set(planned.endpointId.toLowerCase(), asFault(error, `serve the private endpoint ${planned.endpointId}`));
    }
  }
}

async function reconcileResolvers(dependencies: PrivateLinkDependencies, faults: Map<string, Fault>): Promise<void> {
  faults.delete(resolverKey);
  for (const [virtualNetwork, resolver] of dependencies.resolvers) {
    try {
      await resolver.serve(await planZones(dependencies.resources, virtualNetwork));
    } catch (error) {
      faults.set(resolverKey, asFault(error, `serve the names of ${virtualNetwork}`));
    }
  }
}

async function startListener(dependencies: PrivateLinkDependencies, planned: PlannedListener): Promise<Running> {
  const { address, network, member, target } = planned;
  // `replace` is `add` that may be repeated: after a kill the address is still there.
  if (network.interface !== undefined) await runCommand("ip", ["address", "replace", `${address}/32`, "dev", network.interface]);
  const face = dependencies.faceOf(target, member.member);
  const door = await openDoor({
    address,
    port: dependencies.endpointPort,
    authority: dependencies.authority,
    asksClients: true,
    handlerOf: async (name) => (member.serverNames.includes(name) ? face : undefined),
    log: dependencies.log,
  });
  dependencies.log.info("private name served", { name: member.fqdn, address, port: door.port });
  return { planned, door };
}

async function stopListener({ planned, door }: Running, log: Log): Promise<void> {
  await door[Symbol.asyncDispose]();
  const { network, address, member } = planned;
  if (network.interface !== undefined)
    await runCommand("ip", ["address", "del", `${address}/32`, "dev", network.interface]).catch((error: unknown) =>
      log.warn("address was gone already", { address, reason: error instanceof Error ? error.message : String(error) }),
    );
  log.info("private name closed", { name: member.fqdn, address });
}

function isSame(left: PlannedListener, right: PlannedListener): boolean {
  return left.endpointId === right.endpointId && left.member.fqdn === right.member.fqdn && left.target.id.key === right.target.id.key;
}

function toServedName({ planned, door }: Running): ServedName {
  const { endpointId, address, member, target } = planned;
  return { endpointId, targetId: target.id.text, member: member.member, fqdn: member.fqdn, address, port: door.port };
}
