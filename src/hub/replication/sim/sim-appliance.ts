// A simulated appliance: carries out every order against a real vault and lets its machines live; a voice brings it to its hub.

import { toTimestamp, type Clock } from "../../../base/clock.ts";
import type { Random } from "../../../base/random.ts";
import { Semaphore } from "../../../base/semaphore.ts";
import type { ApplianceOrder, ApplianceOrderResult, Inventory, SealedPointReport } from "../../../contract/appliance-protocol.ts";
import type { AgentState } from "../../../contract/agent-control.ts";
import { findDisks, requireExcludable } from "../../../contract/disk-choice.ts";
import { asFault, Fault, toReport, type FaultCode } from "../../../contract/errors.ts";
import { parseDigestHex, parseDiskId, parseMachineId, parsePointId, type MachineId, type PointId } from "../../../contract/ids.ts";
import { computeRoot } from "../../../disk/compute-root.ts";
import { blockIdOf } from "../../../disk/block-id.ts";
import { isAllZero, zeroId } from "../../../disk/digest.ts";
import { blockBytes } from "../../../disk/geometry.ts";
import type { VaultKeys } from "../../../vault/sealing.ts";
import type { RecoveryPoint, Vault } from "../../../vault/vault.ts";
import type { Journal } from "./journal.ts";
import { factsOf, type MachineProgress, type SimSource } from "./sim-source.ts";
import { simChecks, SimLimits, simProfile } from "./sim-lines.ts";
import { simAccounts, SimVcenters } from "./sim-vcenters.ts";

/** How a simulated appliance and its hub speak: in one process, or over the real protocol. */
export interface SimVoice {
  /** Gives every order to `obey` and tells its result, until the signal. Never rejects. */
  serve(site: SimSiteFront, signal: AbortSignal): Promise<void>;
  tellInventory(inventory: Inventory): Promise<void>;
  /** The hub knows the point on return. */
  tellPoint(report: SealedPointReport): Promise<void>;
  tellMachine(machine: MachineProgress): Promise<void>;
  renewCertificate(): Promise<{ readonly certificateEndsAt: string }>;
  vaultKeys(): Promise<VaultKeys>;
}

export interface SimSiteFront {
  /** Never rejects: a fault is a result. */
  obey(order: ApplianceOrder): Promise<ApplianceOrderResult>;
  /** What every agent says of itself now. */
  machines(): readonly MachineProgress[];
}

export interface SimApplianceOptions {
  readonly voice: SimVoice;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly random: Random;
  readonly journal: Pick<Journal, "append">;
  /** Guests write and agents make the points of their policy by themselves; otherwise only what is ordered happens. */
  readonly isAlive?: boolean;
}

/** What an update brings. */
const simAgentVersion = "sim-2";
const lifeTickMs = 500;
/** Steps in which a first replication is seen to grow, when orders take time. */
const copySteps = 4;

export class SimAppliance implements AsyncDisposable {
  readonly #options: SimApplianceOptions;
  readonly #sources = new Map<string, SimSource>();
  readonly #vcenters: SimVcenters;
  readonly #limits = new SimLimits();
  /** Highest fencing number seen, by machine. */
  readonly #fences = new Map<string, number>();
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;
  /** One recovery point of a machine at a time. */
  readonly #turns = new Map<SimSource, Semaphore>();
  /** Orders of these kinds fail, as often as the number says. */
  readonly failures = new Map<ApplianceOrder["kind"], { times: number; code: FaultCode }>();
  /** Kinds of orders that were carried out, in order. */
  readonly done: ApplianceOrder["kind"][] = [];
  /** From now on the roots that sources tell are wrong. */
  tellsWrongRoots = false;
  /** The time that an order takes, for tests of what happens meanwhile. */
  slownessMs = 0;
  /**
   * Asked before and after an order is carried out: "before fence". appliance: its process ends there, telling nobody. agent: the source's
   * agent does, so that the appliance hears nothing of it.
   */
  onEdge: ((edge: string) => "appliance" | "agent" | undefined) | undefined;
  readonly #killed = Promise.withResolvers<void>();

  constructor(options: SimApplianceOptions) {
    this.#options = options;
    this.#vcenters = new SimVcenters({ ...options, sources: this.#sources });
  }

  /** Orders are taken once the hub has the first inventory. */
  async discover(sources: readonly SimSource[]): Promise<void> {
    for (const source of sources) {
      this.#sources.set(source.discovered.infrastructureId, source);
      this.#options.journal.append("source", source.discovered.name, "on");
    }
    await this.#tellInventory();
    this.#running ??= this.#run();
  }

  /** Goes on for an appliance whose process ended: with what that one kept on its disk, which is its numbers; orders are fetched anew. */
  replace(ended: SimAppliance): void {
    for (const [infrastructureId, source] of ended.#sources) {
      this.#sources.set(infrastructureId, source);
      if (source.appliance === ended) source.appliance = this;
    }
    for (const [machine, fence] of ended.#fences) this.#fences.set(machine, fence);
    this.done.push(...ended.done);
    this.#running ??= this.#run();
  }

  /** Resolves when its process was ended by onEdge. */
  get killed(): Promise<void> {
    return this.#killed.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { voice, isAlive, clock } = this.#options;
    const { signal } = this.#stopping;
    const machines = (): readonly MachineProgress[] =>
      [...this.#sources.values()].flatMap((source) =>
        source.isOn && source.hasAgent && source.appliance === this ? (source.progress(clock.nowMs()) ?? []) : [],
      );
    const living = isAlive === true ? this.#live(signal) : undefined;
    await Promise.race([voice.serve({ obey: async (order) => await this.#obey(order), machines }, signal), this.killed]);
    await living;
  }

  /** Each guest writes, and each agent makes a point when its policy wants one. */
  async #live(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    for (let tick = 0; !signal.aborted; tick++) {
      for (const source of this.#sources.values()) {
        if (source.machineId !== undefined && source.appliance === this) source.write(clock.nowMs(), tick);
        // A point that fails is due again at the next tick; the hub sees the machine's lag meanwhile.
        if (!signal.aborted && source.appliance === this && source.isPointDue(clock.nowMs()))
          await this.#makePoint(source, "crash").catch(() => undefined);
      }
      await clock.sleep(lifeTickMs, signal).catch(() => undefined); // Only closing aborts; the loop's head sees it.
    }
  }

  async #obey(order: ApplianceOrder): Promise<ApplianceOrderResult> {
    const { orderId } = order;
    const failure = this.failures.get(order.kind);
    try {
      this.#refuseStale(order);
      if (this.slownessMs > 0) await this.#takeTime(this.slownessMs);
      if (failure !== undefined && failure.times > 0) {
        failure.times -= 1;
        throw new Fault(failure.code, `the order ${order.kind} failed as told`);
      }
      await this.#passEdge(order, "before");
      const result = await this.#carryOut(order);
      this.done.push(order.kind);
      await this.#passEdge(order, "after");
      return { outcome: "done", orderId, ...result };
    } catch (error) {
      return { outcome: "failed", orderId, fault: toReport(asFault(error, order.kind)) };
    }
  }

  async #passEdge({ kind }: ApplianceOrder, when: "before" | "after"): Promise<void> {
    const ending = this.onEdge?.(`${when} ${kind}`);
    if (ending === "agent") throw new Fault("AgentSilent", `the agent ended ${when} it carried ${kind} out`);
    if (ending !== "appliance") return;
    this.#stopping.abort();
    this.#killed.resolve();
    await new Promise(() => undefined); // Nothing of this process goes on.
  }

  #refuseStale(order: ApplianceOrder): void {
    const [machine] = ["machineId", "infrastructureId", "vcenterId"].flatMap((key) =>
      key in order ? [String(Reflect.get(order, key))] : [],
    );
    if (machine === undefined || order.fencingNumber === undefined) return;
    const highest = this.#fences.get(machine) ?? 0;
    if (order.fencingNumber < highest) throw new Fault("StaleOrder", `the order ${order.kind} is older than one before it`);
    this.#fences.set(machine, order.fencingNumber);
  }

  async #carryOut(order: ApplianceOrder): Promise<object> {
    switch (order.kind) {
      case "discover":
        await this.#tellInventory();
        return {};
      case "adopt":
        return await this.#adopt(order);
      case "forget":
        return { machineId: order.machineId };
      case "renewCertificate":
        return await this.#options.voice.renewCertificate();
      case "changeLimits":
        return { limits: this.#limits.change(order.change) };
      case "profileMachine":
        return { profile: simProfile([...this.#sources.values()], order) };
      case "checkNetwork":
        return { checks: simChecks };
      case "takeVaultKeys":
        return await this.#takeVaultKeys();
      case "putVcenter":
        this.#vcenters.put(order);
        await this.#tellInventory();
        return {};
      case "removeVcenter":
        this.#vcenters.remove(order.vcenterId);
        await this.#tellInventory();
        return {};
      case "addMachine": {
        const infrastructureId = this.#vcenters.addMachine(order);
        await this.#tellInventory();
        return { infrastructureId };
      }
      case "protect":
        return await this.#protect(order);
      case "setPolicy":
        this.#machine(order.machineId).policy = order.policy;
        return {};
      case "point":
        return { pointId: await this.#makePoint(this.#machine(order.machineId), "crash") };
      case "verify":
        await this.#makePoint(this.#machine(order.machineId), "crash");
        return { repairedBlockCount: 0 };
      case "quiesce":
        return await this.#quiesce(this.#machine(order.machineId), order.holdSecondsMax);
      case "release":
        this.#machine(order.machineId).frozenUntilMs = undefined;
        await this.#tellProgress(this.#machine(order.machineId), "delta", 1);
        return {};
      case "fence":
        this.#setPower(this.#machine(order.machineId), false);
        return {};
      case "unfence":
        this.#setPower(this.#machine(order.machineId), true);
        await this.#tellProgress(this.#machine(order.machineId), "delta", 1);
        return {};
      case "unprotect":
        return await this.#unprotect(order);
      case "setDisks": {
        const source = this.#machine(order.machineId);
        requireExcludable(order.excludedDiskIds, factsOf(source).disks);
        source.excludedDisks = new Set(order.excludedDiskIds);
        await this.#tellProgress(source, "delta", 1);
        return {};
      }
      case "updateAgent":
        return await this.#updateAgent(this.#machine(order.machineId));
    }
  }

  async #updateAgent(source: SimSource): Promise<object> {
    if (!source.isOn) throw new Fault("GuestUnreachable", "the source is off");
    source.agentVersion = simAgentVersion;
    await this.#tellProgress(source, "delta", 1);
    return { agentVersion: source.agentVersion };
  }

  async #takeVaultKeys(): Promise<object> {
    const keys = await this.#options.voice.vaultKeys();
    await this.#options.vault.useKeys(keys);
    return { vaultKeys: { current: keys.current, generations: [...keys.keys.keys()] } };
  }

  async #protect({ infrastructureId, policy, excludedDisks }: Extract<ApplianceOrder, { kind: "protect" }>): Promise<object> {
    const source = this.#sources.get(infrastructureId);
    if (source === undefined) throw new Fault("NotFound", `there is no machine ${infrastructureId}`);
    source.machineId ??= parseMachineId(this.#options.random.uuid());
    source.appliance = this;
    source.policy = policy;
    const { disks } = factsOf(source);
    const excludedDiskIds = findDisks(excludedDisks ?? [], disks);
    requireExcludable(excludedDiskIds, disks);
    source.excludedDisks = new Set(excludedDiskIds);
    source.hasAgent = true;
    for (let step = 0; step < (this.slownessMs > 0 ? copySteps : 1); step++) {
      await this.#tellProgress(source, "initial", step / copySteps);
      if (this.slownessMs > 0) await this.#takeTime(this.slownessMs / copySteps);
    }
    await this.#makePoint(source, "crash");
    return { machineId: source.machineId, facts: factsOf(source) };
  }

  async #adopt(order: Extract<ApplianceOrder, { kind: "adopt" }>): Promise<object> {
    const source = this.#sources.get(order.infrastructureId);
    if (source === undefined || source.machineId !== order.machineId) throw new Fault("NotFound", `there is no machine ${order.machineId}`);
    if (!source.isOn) throw new Fault("GuestUnreachable", "the source is off");
    source.appliance = this;
    source.policy = order.policy;
    await this.#tellProgress(source, "delta", 1);
    return { machineId: order.machineId, facts: factsOf(source) };
  }

  async #quiesce(source: SimSource, holdSecondsMax: number): Promise<object> {
    source.frozenUntilMs = this.#options.clock.nowMs() + holdSecondsMax * 1000;
    const pointId = await this.#makePoint(source, "final");
    const sourceRoots = await Promise.all(
      source.replicatedDisks.map(async ({ name, content }) => ({
        diskId: parseDiskId(name),
        root: parseDigestHex(this.tellsWrongRoots ? "ab".repeat(32) : await computeRoot(content)),
      })),
    );
    return { pointId, sourceRoots, frozenMs: 1 };
  }

  async #unprotect(order: Extract<ApplianceOrder, { kind: "unprotect" }>): Promise<object> {
    const source = [...this.#sources.values()].find((each) => each.machineId === order.machineId);
    if (order.removePoints === true) await this.#options.vault.removeMachine(order.machineId);
    if (source !== undefined && order.removeAgent && source.isOn) source.hasAgent = false;
    if (source !== undefined) source.newestPoint = undefined;
    return {};
  }

  #setPower(source: SimSource, isOn: boolean): void {
    const { journal } = this.#options;
    if (isOn && !source.isOn) journal.append("source", source.discovered.name, "on");
    if (!isOn) source.frozenUntilMs = undefined;
    const wasOn = source.isOn;
    source.isOn = isOn;
    if (wasOn && !isOn) journal.append("source", source.discovered.name, "off");
  }

  async #takeTime(waitMs: number): Promise<void> {
    await this.#options.clock.sleep(waitMs, this.#stopping.signal);
  }

  async #makePoint(source: SimSource, consistency: "crash" | "final"): Promise<PointId> {
    const turn = this.#turns.get(source) ?? new Semaphore(1);
    this.#turns.set(source, turn);
    return await turn.run(async () => await this.#sealPoint(source, consistency));
  }

  async #sealPoint(source: SimSource, kind: "crash" | "final"): Promise<PointId> {
    const { vault, clock, voice } = this.#options;
    const machineId = this.#idOf(source);
    if (!source.isOn) throw new Fault("AgentSilent", "the source is off");
    const pointId = this.#newPointId();
    const disks = source.replicatedDisks.map(({ name, content }, index) => ({
      diskId: parseDiskId(name),
      sizeBytes: content.sizeBytes,
      isBoot: index === 0,
      excluded: [],
    }));
    const parent = source.newestPoint === undefined ? {} : { parentPointId: source.newestPoint };
    await using writer = await vault.beginPoint({ pointId, machineId, disks, ...parent });
    let sentBytes = 0;
    for (const { name, content } of source.replicatedDisks)
      for (let block = 0; block * blockBytes < content.sizeBytes; block++) {
        // A copy: the guest goes on writing while the block is on its way.
        const bytes = content.bytes.slice(block * blockBytes, (block + 1) * blockBytes);
        const id = isAllZero(bytes) ? zeroId : blockIdOf(bytes);
        const [isNeeded] = id === zeroId ? [false] : await writer.need(parseDiskId(name), block, [id]);
        if (isNeeded === true) {
          await writer.putBlock(parseDiskId(name), block, id, bytes);
          sentBytes += bytes.length;
        } else writer.setBlock(parseDiskId(name), block, id);
      }
    const timeMs = clock.nowMs();
    const application = kind === "crash" ? source.restApplications() : undefined;
    const consistency: RecoveryPoint["consistency"] = application?.isConsistent === true ? "application" : kind;
    const { point, storedBytes } = await writer.seal({ timeMs, consistency });
    source.newestPoint = pointId;
    source.pointCount += 1;
    source.sentBytes += sentBytes;
    const report = {
      pointId,
      machineId,
      timeMs,
      sealedAt: toTimestamp(clock.nowMs()),
      consistency,
      disks: point.disks.map(({ diskId, sizeBytes, root, isBoot }) => ({ diskId, sizeBytes, root: parseDigestHex(root), isBoot })),
      readBytes: sentBytes,
      sentBytes,
      storedBytes,
      frozenMs: 1,
      mode: "delta" as const,
      ...(application === undefined ? {} : { application }),
    };
    source.lastPointAtMs = timeMs;
    await voice.tellPoint(report);
    await this.#tellProgress(source, kind === "final" ? "quiesced" : "delta", 1);
    return pointId;
  }

  async #tellProgress(source: SimSource, phase: AgentState["phase"], share: number): Promise<void> {
    source.phase = phase;
    source.copiedShare = share;
    const progress = source.progress(this.#options.clock.nowMs());
    if (progress !== undefined) await this.#options.voice.tellMachine(progress);
  }

  async #tellInventory(): Promise<void> {
    await this.#options.voice.tellInventory({
      vcenters: this.#vcenters.list(),
      runAsAccounts: [...simAccounts],
      machines: [...this.#sources.values()].map((source) => source.discovered),
    });
  }

  #machine(machineId: MachineId): SimSource {
    const source = [...this.#sources.values()].find((each) => each.machineId === machineId);
    if (source === undefined || source.appliance !== this)
      throw new Fault("NotFound", `there is no machine ${machineId} on this appliance`);
    return source;
  }

  #idOf(source: SimSource): MachineId {
    if (source.machineId === undefined) throw new Error("assertion failed: the source is protected");
    return source.machineId;
  }

  /** Time-ordered UUID (RFC 9562, version 7). */
  #newPointId(): PointId {
    const time = this.#options.clock.nowMs().toString(16).padStart(12, "0");
    const rest = this.#options.random.uuid();
    return parsePointId(`${time.slice(0, 8)}-${time.slice(8)}-7${rest.slice(15)}`);
  }
}
