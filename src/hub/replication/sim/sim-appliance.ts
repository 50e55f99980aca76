// A simulated appliance with simulated sources: carries out every order against a real vault, in memory otherwise.

import { createHash } from "node:crypto";
import { toTimestamp, type Clock } from "../../../base/clock.ts";
import type { Random } from "../../../base/random.ts";
import type { ApplianceOrder, ApplianceOrderResult, DiscoveredMachine } from "../../../contract/appliance-protocol.ts";
import type { AgentState, MachineFacts, ReplicationPolicy } from "../../../contract/agent-control.ts";
import { asFault, Fault, toReport, type FaultCode } from "../../../contract/errors.ts";
import {
  parseDigestHex,
  parseDiskId,
  parseMachineId,
  parsePointId,
  type ApplianceId,
  type MachineId,
  type PointId,
} from "../../../contract/ids.ts";
import { computeRoot } from "../../../disk/compute-root.ts";
import { idOf, isAllZero, zeroId } from "../../../disk/digest.ts";
import { blockBytes } from "../../../disk/geometry.ts";
import { MemoryDisk } from "../../../disk/memory-disk.ts";
import { simGuestMark } from "../../../landing/sim/sim-target.ts";
import type { Vault } from "../../../vault/vault.ts";
import type { HubServices } from "../../services.ts";
import type { Journal } from "./journal.ts";

export interface SimApplianceOptions {
  readonly services: Pick<HubServices, "orders" | "appliances" | "points">;
  readonly applianceId: ApplianceId;
  readonly vaultKey: string;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly random: Random;
  readonly journal: Journal;
}

/** A source machine. What runs writes to its disks, unless it is frozen. */
export class SimSource {
  readonly discovered: DiscoveredMachine;
  readonly disks: readonly { readonly name: string; readonly content: MemoryDisk }[];
  machineId: MachineId | undefined;
  policy: ReplicationPolicy | undefined;
  isOn = true;
  hasAgent = false;
  frozenUntilMs: number | undefined;
  newestPoint: PointId | undefined;
  pointCount = 0;
  sentBytes = 0;

  constructor(discovered: DiscoveredMachine, answer: string) {
    this.discovered = discovered;
    this.disks = discovered.disks.map((disk, index) => {
      const content = new MemoryDisk(new Uint8Array(disk.sizeBytes));
      if (index === 0) content.bytes.set(new TextEncoder().encode(`${simGuestMark}${answer}`));
      return { name: `disk-${index}`, content };
    });
  }

  /** The guest writes, when it can. Answers whether it could. */
  write(nowMs: number, value: number): boolean {
    if (!this.isOn || (this.frozenUntilMs !== undefined && nowMs < this.frozenUntilMs)) return false;
    for (const { content } of this.disks) content.bytes[blockBytes + (value % 100)] = value % 251;
    return true;
  }
}

export class SimAppliance implements AsyncDisposable {
  readonly #options: SimApplianceOptions;
  readonly #sources = new Map<string, SimSource>();
  /** Highest fencing number seen, by machine. */
  readonly #fences = new Map<string, number>();
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  /** Orders of these kinds fail, as often as the number says. */
  readonly failures = new Map<ApplianceOrder["kind"], { times: number; code: FaultCode }>();
  /** Kinds of orders that were carried out, in order. */
  readonly done: ApplianceOrder["kind"][] = [];
  /** From now on the roots that sources tell are wrong. */
  tellsWrongRoots = false;
  /** The time that an order takes, for tests of what happens meanwhile. */
  slownessMs = 0;

  constructor(options: SimApplianceOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  async discover(sources: readonly SimSource[]): Promise<void> {
    for (const source of sources) {
      this.#sources.set(source.discovered.infrastructureId, source);
      this.#options.journal.append("source", source.discovered.name, "on");
    }
    await this.#tellInventory();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { services, applianceId } = this.#options;
    while (!this.#stopping.signal.aborted) {
      const orders = await services.orders.waitQueued(applianceId, 2000, this.#stopping.signal);
      for (const order of orders) await services.orders.answer(applianceId, await this.#obey(order));
    }
  }

  async #obey(order: ApplianceOrder): Promise<ApplianceOrderResult> {
    const { orderId } = order;
    const failure = this.failures.get(order.kind);
    try {
      this.#refuseStale(order);
      if (this.slownessMs > 0) await this.#options.clock.sleep(this.slownessMs, this.#stopping.signal);
      if (failure !== undefined && failure.times > 0) {
        failure.times -= 1;
        throw new Fault(failure.code, `the order ${order.kind} failed as told`);
      }
      const result = await this.#carryOut(order);
      this.done.push(order.kind);
      return { outcome: "done", orderId, ...result };
    } catch (error) {
      return { outcome: "failed", orderId, fault: toReport(asFault(error, order.kind)) };
    }
  }

  #refuseStale(order: ApplianceOrder): void {
    const machine = "machineId" in order ? order.machineId : "infrastructureId" in order ? order.infrastructureId : undefined;
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
      case "protect":
        return await this.#protect(order.infrastructureId, order.policy);
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
    }
  }

  async #protect(infrastructureId: string, policy: ReplicationPolicy): Promise<object> {
    const source = this.#sources.get(infrastructureId);
    if (source === undefined) throw new Fault("NotFound", `there is no machine ${infrastructureId}`);
    source.machineId ??= parseMachineId(this.#options.random.uuid());
    source.policy = policy;
    source.hasAgent = true;
    await this.#tellProgress(source, "initial", 0);
    await this.#makePoint(source, "crash");
    return { machineId: source.machineId, facts: factsOf(source) };
  }

  async #quiesce(source: SimSource, holdSecondsMax: number): Promise<object> {
    source.frozenUntilMs = this.#options.clock.nowMs() + holdSecondsMax * 1000;
    const pointId = await this.#makePoint(source, "final");
    const sourceRoots = await Promise.all(
      source.disks.map(async ({ name, content }) => ({
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

  async #makePoint(source: SimSource, consistency: "crash" | "final"): Promise<PointId> {
    const { vault, clock, services, vaultKey } = this.#options;
    const machineId = this.#idOf(source);
    if (!source.isOn) throw new Fault("AgentSilent", "the source is off");
    const pointId = this.#newPointId();
    const disks = source.disks.map(({ name, content }, index) => ({
      diskId: parseDiskId(name),
      sizeBytes: content.sizeBytes,
      isBoot: index === 0,
      excluded: [],
    }));
    const parent = source.newestPoint === undefined ? {} : { parentPointId: source.newestPoint };
    await using writer = await vault.beginPoint({ pointId, machineId, disks, ...parent });
    let sentBytes = 0;
    for (const { name, content } of source.disks)
      for (let block = 0; block * blockBytes < content.sizeBytes; block++) {
        const bytes = content.bytes.subarray(block * blockBytes, (block + 1) * blockBytes);
        const id = isAllZero(bytes) ? zeroId : idOf(bytes);
        const [isNeeded] = id === zeroId ? [false] : await writer.need(parseDiskId(name), block, [id]);
        if (isNeeded === true) {
          await writer.putBlock(parseDiskId(name), block, id, bytes);
          sentBytes += bytes.length;
        } else writer.setBlock(parseDiskId(name), block, id);
      }
    const timeMs = clock.nowMs();
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
    };
    await services.points.add(vaultKey, [report]);
    await this.#tellProgress(source, consistency === "final" ? "quiesced" : "delta", 1);
    return pointId;
  }

  async #tellProgress(source: SimSource, phase: AgentState["phase"], share: number): Promise<void> {
    const { services, vaultKey, applianceId, clock } = this.#options;
    const facts = factsOf(source);
    await services.appliances.saveMachines(vaultKey, applianceId, [
      {
        machineId: this.#idOf(source),
        infrastructureId: source.discovered.infrastructureId,
        lastSeenAt: toTimestamp(clock.nowMs()),
        agentVersion: "sim",
        facts,
        state: {
          phase,
          disks: facts.disks.map(({ diskId, sizeBytes }) => ({
            diskId,
            tracking: { rung: "ebpf", reason: "simulated" },
            dirtyBytes: 0,
            copiedBytes: sizeBytes * share,
            sizeBytes,
          })),
          readBytes: source.sentBytes,
          sentBytes: source.sentBytes,
          residentBytes: 1,
          cpuSeconds: 0,
          pointCount: source.pointCount,
        },
      },
    ]);
  }

  async #tellInventory(): Promise<void> {
    await this.#options.services.appliances.saveInventory(this.#options.applianceId, {
      vcenters: [],
      runAsAccounts: [{ accountId: "root", name: "root", kind: "linux" }],
      machines: [...this.#sources.values()].map((source) => source.discovered),
    });
  }

  #machine(machineId: MachineId): SimSource {
    const source = [...this.#sources.values()].find((each) => each.machineId === machineId);
    if (source === undefined) throw new Fault("NotFound", `there is no machine ${machineId}`);
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

function factsOf(source: SimSource): MachineFacts {
  const { discovered } = source;
  return {
    hostname: discovered.name,
    smbiosUuid: discovered.smbiosUuid,
    osMachineId: createHash("sha256").update(discovered.infrastructureId).digest("hex").slice(0, 32),
    bootId: "boot-1",
    osName: discovered.guestOs,
    kernelRelease: "6.1.0",
    firmware: discovered.firmware,
    cpuCount: discovered.cpuCount,
    memoryBytes: discovered.memoryBytes,
    addresses: [...discovered.addresses],
    nics: discovered.nics.map((nic, index) => ({ name: `ens${192 + index}`, mac: nic.mac })),
    disks: source.disks.map(({ name, content }, index) => ({
      diskId: parseDiskId(name),
      deviceName: `sd${index}`,
      sizeBytes: content.sizeBytes,
      identifiedBy: "serial" as const,
      isBoot: index === 0,
      excluded: [],
    })),
  };
}

/** A discovered machine for tests and trials. */
export function simDiscovered(name: string, random: Random): DiscoveredMachine {
  return {
    infrastructureId: random.uuid(),
    vcenterId: "vc",
    name,
    smbiosUuid: random.uuid(),
    guestOs: "Debian GNU/Linux 12 (64-bit)",
    powerState: "poweredOn",
    cpuCount: 1,
    memoryBytes: 512 << 20,
    firmware: "bios",
    addresses: ["10.10.0.20"],
    disks: [0, 1].map((index) => ({ label: `Hard disk ${index + 1}`, sizeBytes: 4 * blockBytes, controller: "pvscsi" })),
    nics: [{ label: "Network adapter 1", mac: "00:50:56:00:00:01", network: "VM Network", adapter: "vmxnet3" }],
  };
}
