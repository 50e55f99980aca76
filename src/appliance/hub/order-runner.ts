// Carries the hub's orders out: side by side, each once, each with a result; what needs the agent waits for the agent.

import { Semaphore } from "../../base/semaphore.ts";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { AgentOrder } from "../../contract/agent-control.ts";
import type { ApplianceOrder, ApplianceOrderResult } from "../../contract/appliance-protocol.ts";
import { findDisks, requireExcludable } from "../../contract/disk-choice.ts";
import type { LimitsChange, LimitsState } from "../../contract/line-limits.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { asFault, Fault, fromReport, toReport } from "../../contract/errors.ts";
import type { MachineId, OrderId } from "../../contract/ids.ts";
import { Bell, type AgentOrders } from "../control/agent-orders.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import { endWhenSilent, silenceMaxOf } from "../control/silent-agent.ts";
import type { PointLedger } from "../ingest/point-ledger.ts";
import { findProfiled } from "../profile/require-profiled.ts";
import type { HubOrders } from "./hub-orders.ts";
import type { SiteOrder } from "./site-orders.ts";

const protectionsAtOnceMax = 4;
const removeAgentMsMax = 60_000;
const agentSilentMs = 45_000;
const startReplicationMsMax = 180_000;
/** Six hops, each with its own limit, and the way of the order. */
const checkAgentMsMax = 120_000;
/** Beyond the time that is measured, for the way of the order and its result. */
const profileGraceMs = 120_000;

export interface OrderRunnerParts {
  readonly hubOrders: HubOrders;
  readonly orders: AgentOrders;
  readonly registry: MachineRegistry;
  readonly ledger: PointLedger;
  readonly clock: Clock;
  readonly log: Log;
  readonly discover: (signal: AbortSignal) => Promise<void>;
  readonly fence: (machineId: MachineId, wanted: "poweredOn" | "poweredOff", signal: AbortSignal) => Promise<void>;
  /** Called before a quiesce is given: whatever is needed to fence the machine while its filesystems are frozen. */
  readonly prepareFence: (machineId: MachineId, signal: AbortSignal) => Promise<void>;
  /** Installs the agent and answers its machine. */
  readonly install: (
    order: Extract<ApplianceOrder, { kind: "protect" }>,
    onStep: (percent: number, text: string) => void,
    signal: AbortSignal,
  ) => Promise<{ readonly machineId: MachineId; readonly address: string }>;
  /** Puts this appliance's agent in the place of the machine's. */
  readonly updateAgent: (
    order: Extract<ApplianceOrder, { kind: "updateAgent" }>,
    onStep: (percent: number, text: string) => void,
    signal: AbortSignal,
  ) => Promise<{ readonly agentVersion: string }>;
  /** Takes the machine's agent over from another appliance. */
  readonly adopt: (
    order: Extract<ApplianceOrder, { kind: "adopt" }>,
    onStep: (percent: number, text: string) => void,
    signal: AbortSignal,
  ) => Promise<{ readonly address: string }>;
  /** Removes the agent over SSH. */
  readonly uninstall: (machineId: MachineId, signal: AbortSignal) => Promise<void>;
  readonly disconnect: (machineId: MachineId) => Promise<void>;
  readonly renewCertificate: (signal: AbortSignal) => Promise<{ readonly certificateEndsAt: string }>;
  readonly takeVaultKeys: (signal: AbortSignal) => Promise<Required<Pick<Done, "vaultKeys">>>;
  readonly changeLimits: (change: LimitsChange) => LimitsState;
  readonly checkNetwork: (signal: AbortSignal) => Promise<readonly NetworkCheck[]>;
  /** Changes what is looked at. */
  readonly changeSite: (order: SiteOrder, signal: AbortSignal) => Promise<{ readonly infrastructureId?: string }>;
  /** Removes every recovery point of the machine from the vault. */
  readonly removePoints: (machineId: MachineId) => Promise<void>;
}

export interface OrderRunner extends AsyncDisposable {
  take(orders: readonly ApplianceOrder[]): void;
  progress(): readonly { readonly orderId: OrderId; readonly percent: number; readonly text: string }[];
  readonly isBusy: boolean;
  /** Resolves when a result is there to be told, or at the abort. */
  waitResult(signal: AbortSignal): Promise<void>;
}

type Done = Extract<ApplianceOrderResult, { outcome: "done" }>;

/** Takes up what an earlier run left open. */
export function startOrderRunner(parts: OrderRunnerParts): OrderRunner {
  const runner = new Runner(parts);
  for (const order of parts.hubOrders.open()) runner.start(order);
  return runner;
}

class Runner implements OrderRunner {
  readonly #parts: OrderRunnerParts;
  readonly #running = new Map<OrderId, Promise<void>>();
  readonly #progress = new Map<OrderId, { readonly percent: number; readonly text: string }>();
  readonly #ending = new AbortController();
  readonly #bell = new Bell();
  readonly #protections = new Semaphore(protectionsAtOnceMax);

  constructor(parts: OrderRunnerParts) {
    this.#parts = parts;
  }

  get isBusy(): boolean {
    return this.#running.size > 0;
  }

  take(orders: readonly ApplianceOrder[]): void {
    for (const order of orders) {
      const accepted = this.#parts.hubOrders.accept(order);
      if (accepted === "new") this.start(order);
      else if (accepted === "stale") this.#bell.ring("result");
      else if (!this.#running.has(order.orderId)) this.#parts.hubOrders.tellAgain(order.orderId);
    }
  }

  progress(): readonly { readonly orderId: OrderId; readonly percent: number; readonly text: string }[] {
    return [...this.#progress].map(([orderId, step]) => ({ orderId, ...step })).slice(0, 64);
  }

  async waitResult(signal: AbortSignal): Promise<void> {
    if (this.#parts.hubOrders.untold(1).length > 0) return;
    await this.#bell.wait("result", signal);
  }

  start(order: ApplianceOrder): void {
    const { log } = this.#parts;
    log.info("order begun", { orderId: order.orderId, kind: order.kind });
    this.#running.set(
      order.orderId,
      this.#carryOut(order).catch((error: unknown) => {
        // Only the state database can fail here; the order stays open and is taken up at the next start.
        log.error("order result could not be kept", {
          orderId: order.orderId,
          reason: error instanceof Error ? error.message : String(error),
        });
      }),
    );
  }

  async #carryOut(order: ApplianceOrder): Promise<void> {
    const { hubOrders, log } = this.#parts;
    const { signal } = this.#ending;
    const { orderId } = order;
    try {
      const result = await this.#run(order, signal).catch((error: unknown): ApplianceOrderResult => {
        signal.throwIfAborted();
        return { outcome: "failed", orderId, fault: toReport(asFault(error, `carry out the order ${order.kind}`)) };
      });
      hubOrders.finish(result);
      const fault = result.outcome === "failed" ? { fault: result.fault.id, reason: result.fault.message } : {};
      log.info("order ended", { orderId, kind: order.kind, outcome: result.outcome, ...fault });
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#progress.delete(orderId);
      this.#running.delete(orderId);
      this.#bell.ring("result");
    }
  }

  async #run(order: ApplianceOrder, signal: AbortSignal): Promise<ApplianceOrderResult> {
    const { registry, discover, fence, prepareFence } = this.#parts;
    const { orderId } = order;
    switch (order.kind) {
      case "protect":
        return await this.#protections.run(async () => await this.#protect(order, signal));
      case "setPolicy":
        registry.get(order.machineId);
        registry.setPolicy(order.machineId, order.policy);
        return await this.#ask(order.machineId, { kind: "replicate", orderId, policy: order.policy }, signal);
      case "point":
      case "release":
        return await this.#ask(order.machineId, { kind: order.kind, orderId }, signal);
      case "verify": {
        const done = await this.#ask(order.machineId, { kind: "verify", orderId }, signal);
        const counted = done.pointId === undefined ? undefined : this.#parts.ledger.repairedBlockCountOf(done.pointId);
        return counted === undefined ? done : { ...done, repairedBlockCount: counted };
      }
      case "quiesce":
        await prepareFence(order.machineId, signal);
        return await this.#ask(order.machineId, { kind: "quiesce", orderId, holdSecondsMax: order.holdSecondsMax }, signal);
      case "fence":
      case "unfence":
        await fence(order.machineId, order.kind === "fence" ? "poweredOff" : "poweredOn", signal);
        return { outcome: "done", orderId, machineId: order.machineId };
      case "unprotect":
        return await this.#unprotect(order, signal);
      case "discover":
        await discover(signal);
        return { outcome: "done", orderId };
      case "putVcenter":
      case "removeVcenter":
      case "addMachine":
        return { outcome: "done", orderId, ...(await this.#parts.changeSite(order, signal)) };
      case "adopt":
        return await this.#protections.run(async () => await this.#adopt(order, signal));
      case "forget":
        await this.#parts.disconnect(order.machineId);
        registry.remove(order.machineId);
        return { outcome: "done", orderId, machineId: order.machineId };
      case "renewCertificate":
        return { outcome: "done", orderId, ...(await this.#parts.renewCertificate(signal)) };
      case "takeVaultKeys":
        return { outcome: "done", orderId, ...(await this.#parts.takeVaultKeys(signal)) };
      case "changeLimits":
        return { outcome: "done", orderId, limits: this.#parts.changeLimits(order.change) };
      case "profileMachine":
        return await this.#profile(order, signal);
      case "checkNetwork":
        if (order.machineId !== undefined) return await this.#checkAgent(order.machineId, orderId, signal);
        return { outcome: "done", orderId, checks: [...(await this.#parts.checkNetwork(signal))] };
      case "setDisks":
        return await this.#setDisks(order, signal);
      case "updateAgent": {
        const onStep = (percent: number, text: string): void => void this.#progress.set(orderId, { percent, text });
        const { agentVersion } = await this.#protections.run(async () => await this.#parts.updateAgent(order, onStep, signal));
        return { outcome: "done", orderId, machineId: order.machineId, agentVersion };
      }
    }
  }

  async #protect(order: Extract<ApplianceOrder, { kind: "protect" }>, signal: AbortSignal): Promise<Done> {
    const { registry, install, uninstall } = this.#parts;
    const { orderId, infrastructureId, policy, runAsAccountId } = order;
    const present = registry.findByInfrastructureId(infrastructureId);
    if (present?.protectedBy !== undefined && present.protectedBy !== orderId) {
      throw new Fault("AlreadyProtected", `machine ${present.facts.hostname} is protected already`, {
        evidence: { machineId: present.machineId, infrastructureId, protectedBy: present.protectedBy },
      });
    }
    const onStep = (percent: number, text: string): void => void this.#progress.set(orderId, { percent, text });
    if (present?.protectedBy !== orderId) {
      const { machineId, address } = await install(order, onStep, signal);
      registry.protect(machineId, { infrastructureId, orderId, policy, address, credentialId: runAsAccountId });
    }
    const { machineId } = registry.findByInfrastructureId(infrastructureId) ?? {};
    if (machineId === undefined) throw new Error("assertion failed: the machine was just protected");
    onStep(90, "starting replication");
    try {
      const deadline = AbortSignal.timeout(startReplicationMsMax);
      const disks = registry.get(machineId).facts.disks;
      const chosen = order.excludedDisks === undefined ? {} : { excludedDiskIds: findDisks(order.excludedDisks, disks) };
      requireExcludable(chosen.excludedDiskIds ?? [], disks);
      const done = await this.#askWithin(machineId, { kind: "replicate", orderId, policy, ...chosen }, { signal, deadline });
      return { ...done, facts: registry.get(machineId).facts };
    } catch (error) {
      signal.throwIfAborted();
      // Nothing half-done stays: the same machine can be protected again after the repair.
      await uninstall(machineId, signal).catch((cause: unknown) => this.#notRemoved(machineId, cause));
      registry.remove(machineId);
      throw error;
    }
  }

  /** The agent replicates by the policy that it knows; the order to do so again makes it this appliance's to change. */
  async #adopt(order: Extract<ApplianceOrder, { kind: "adopt" }>, signal: AbortSignal): Promise<Done> {
    const { registry, adopt } = this.#parts;
    const { orderId, machineId, infrastructureId, policy, runAsAccountId } = order;
    const onStep = (percent: number, text: string): void => void this.#progress.set(orderId, { percent, text });
    if (registry.find(machineId)?.protectedBy !== orderId) {
      const { address } = await adopt(order, onStep, signal);
      registry.protect(machineId, { infrastructureId, orderId, policy, address, credentialId: runAsAccountId });
    }
    onStep(90, "going on with the replication");
    const deadline = AbortSignal.timeout(startReplicationMsMax);
    const done = await this.#askWithin(machineId, { kind: "replicate", orderId, policy }, { signal, deadline });
    return { ...done, facts: registry.get(machineId).facts };
  }

  /** An agent that does not answer is a finding, told as the fault that it is. */
  async #checkAgent(machineId: MachineId, orderId: OrderId, signal: AbortSignal): Promise<Done> {
    const { state, facts } = this.#parts.registry.get(machineId);
    if (state?.features?.includes("checkNetwork") !== true)
      throw new Fault(
        "ProtocolVersionUnsupported",
        `could not check the ways of ${facts.hostname}: its agent is older than this appliance`,
        {
          evidence: { machineId, hasSpoken: state !== undefined },
          action: "update the agent, then call again",
        },
      );
    return await this.#askWithin(machineId, { kind: "checkNetwork", orderId }, { signal, deadline: AbortSignal.timeout(checkAgentMsMax) });
  }

  async #profile(order: Extract<ApplianceOrder, { kind: "profileMachine" }>, signal: AbortSignal): Promise<Done> {
    const machineId = findProfiled(this.#parts.registry, order.machine);
    const deadline = AbortSignal.timeout(order.seconds * 1000 + profileGraceMs);
    return await this.#askWithin(machineId, { kind: "profile", orderId: order.orderId, seconds: order.seconds }, { signal, deadline });
  }

  async #setDisks(order: Extract<ApplianceOrder, { kind: "setDisks" }>, signal: AbortSignal): Promise<Done> {
    const { registry } = this.#parts;
    const { machineId, orderId, excludedDiskIds } = order;
    const { policy, facts } = registry.get(machineId);
    if (policy === undefined)
      throw new Fault("StateConflict", `could not choose the disks of ${facts.hostname}: it is not replicated`, {
        evidence: { machineId },
      });
    requireExcludable(excludedDiskIds, facts.disks);
    return await this.#ask(machineId, { kind: "replicate", orderId, policy, excludedDiskIds }, signal);
  }

  async #unprotect(order: Extract<ApplianceOrder, { kind: "unprotect" }>, signal: AbortSignal): Promise<Done> {
    const { disconnect, removePoints } = this.#parts;
    const { machineId, orderId } = order;
    await this.#endReplication(order, signal);
    await disconnect(machineId);
    if (order.removePoints === true) await removePoints(machineId);
    return { outcome: "done", orderId, machineId };
  }

  async #endReplication(order: Extract<ApplianceOrder, { kind: "unprotect" }>, signal: AbortSignal): Promise<void> {
    const { registry, uninstall, clock } = this.#parts;
    const { machineId, orderId, removeAgent } = order;
    const machine = registry.find(machineId);
    if (machine === undefined) return;
    const kind = removeAgent ? "uninstall" : "stop";
    // An agent that polls is heard of at least each agentSilentMs; one that is silent is not waited for.
    const isSilent = clock.nowMs() - machine.seenAtMs > agentSilentMs;
    const deadline = AbortSignal.timeout(isSilent ? 0 : removeAgentMsMax);
    try {
      await this.#ask(machineId, { kind, orderId }, AbortSignal.any([signal, deadline]));
    } catch (error) {
      signal.throwIfAborted();
      if (!removeAgent) {
        if (!deadline.aborted) throw error;
      } else await uninstall(machineId, signal).catch((cause: unknown) => this.#notRemoved(machineId, cause));
    }
    if (removeAgent) registry.remove(machineId);
    else registry.unprotect(machineId);
  }

  /** A machine that is powered off for good cannot be cleaned; its certificate is worth nothing once it is forgotten. */
  #notRemoved(machineId: MachineId, cause: unknown): void {
    this.#parts.log.warn("agent could not be removed from the guest", {
      machineId,
      reason: cause instanceof Error ? cause.message : String(cause),
    });
  }

  async #ask(machineId: MachineId, order: AgentOrder, signal: AbortSignal): Promise<Done> {
    const { registry, orders } = this.#parts;
    registry.get(machineId);
    orders.give(machineId, order);
    const answered = new AbortController();
    const watching = endWhenSilent(
      this.#parts,
      { machineId, order, msMax: silenceMaxOf(order) },
      AbortSignal.any([signal, answered.signal]),
    );
    const result = await orders.waitResult(order.orderId, signal).finally(() => answered.abort());
    await watching;
    if (result.outcome === "failed") throw fromReport(result.fault);
    return { ...result, machineId };
  }

  /** As #ask; throws AgentSilent when the deadline comes first. */
  async #askWithin(
    machineId: MachineId,
    order: AgentOrder,
    { signal, deadline }: { readonly signal: AbortSignal; readonly deadline: AbortSignal },
  ): Promise<Done> {
    try {
      return await this.#ask(machineId, order, AbortSignal.any([signal, deadline]));
    } catch (error) {
      if (!deadline.aborted || error instanceof Fault) throw error;
      throw new Fault("AgentSilent", `the agent did not answer the order ${order.kind} in time`, {
        evidence: { machineId, order: order.kind },
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#running.values());
  }
}
