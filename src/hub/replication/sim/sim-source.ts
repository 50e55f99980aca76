// Simulated source machines: small disks with real contents, believable facts, a guest that writes while it can.

import { createHash } from "node:crypto";
import { toTimestamp } from "../../../base/clock.ts";
import type { Random } from "../../../base/random.ts";
import type { applianceProgressShape, DiscoveredMachine } from "../../../contract/appliance-protocol.ts";
import type { AgentState, ApplicationOutcome, MachineFacts, ReplicationPolicy } from "../../../contract/agent-control.ts";
import type { FaultReport } from "../../../contract/errors.ts";
import { parseDiskId, type MachineId, type PointId } from "../../../contract/ids.ts";
import { blockBytes } from "../../../disk/geometry.ts";
import { MemoryDisk } from "../../../disk/memory-disk.ts";
import { simGuestMark } from "../../../landing/sim/sim-target.ts";
import type { z } from "zod";

export type MachineProgress = z.infer<typeof applianceProgressShape>["machines"][number];

export const simVcenterId = "vc";

interface SimDisk {
  readonly name: string;
  readonly content: MemoryDisk;
}

/** A source machine. What runs writes to its disks, unless it is frozen. */
export class SimSource {
  readonly discovered: DiscoveredMachine;
  readonly #answer: string;
  #disks: readonly SimDisk[] | undefined;
  machineId: MachineId | undefined;
  policy: ReplicationPolicy | undefined;
  isOn = true;
  hasAgent = false;
  /** The appliance that its agent works for; undefined before the first. */
  appliance: object | undefined;
  frozenUntilMs: number | undefined;
  newestPoint: PointId | undefined;
  pointCount = 0;
  sentBytes = 0;
  phase: AgentState["phase"] = "idle";
  /** How much of the disks the vault has, for the first replication. */
  copiedShare = 0;
  lastPointAtMs = 0;
  agentVersion = "sim";
  /** Names of disks that are not replicated. */
  excludedDisks: ReadonlySet<string> = new Set();
  /** What goes wrong with the guest's scripts. */
  scriptsFault: FaultReport | undefined;

  constructor(discovered: DiscoveredMachine, answer: string) {
    this.discovered = discovered;
    this.#answer = answer;
  }

  /** Made when they are first looked at: thousands of machines that nobody replicates take no memory for theirs. */
  get disks(): readonly SimDisk[] {
    this.#disks ??= this.discovered.disks.map((disk, index) => {
      const content = new MemoryDisk(new Uint8Array(disk.sizeBytes));
      if (index === 0) content.bytes.set(new TextEncoder().encode(`${simGuestMark}${this.#answer}`));
      return { name: `disk-${index}`, content };
    });
    return this.#disks;
  }

  get replicatedDisks(): readonly SimDisk[] {
    return this.disks.filter(({ name }) => !this.excludedDisks.has(name));
  }

  /** The guest writes, when it can. Answers whether it could. */
  write(nowMs: number, value: number): boolean {
    if (!this.isOn || this.isFrozen(nowMs)) return false;
    for (const { content } of this.disks) content.bytes[blockBytes + (value % 100)] = value % 251;
    return true;
  }

  isFrozen(nowMs: number): boolean {
    return this.frozenUntilMs !== undefined && nowMs < this.frozenUntilMs;
  }

  /** Whether the policy wants a recovery point now. */
  isPointDue(nowMs: number): boolean {
    if (this.machineId === undefined || this.policy === undefined || this.newestPoint === undefined) return false;
    if (!this.isOn || !this.hasAgent || this.isFrozen(nowMs)) return false;
    return nowMs - this.lastPointAtMs >= this.policy.pointIntervalSeconds * 1000;
  }

  /** How its scripts go; undefined when the policy asks for none. Every point is made with them then, whatever the minutes. */
  restApplications(): ApplicationOutcome | undefined {
    if ((this.policy?.applicationIntervalMinutes ?? 0) === 0) return undefined;
    const fault = this.scriptsFault;
    return { isConsistent: fault === undefined, scripts: [], ...(fault === undefined ? {} : { fault }) };
  }

  /** What its agent says of itself; undefined while it has none. */
  progress(nowMs: number): MachineProgress | undefined {
    if (this.machineId === undefined) return undefined;
    const facts = factsOf(this);
    return {
      machineId: this.machineId,
      infrastructureId: this.discovered.infrastructureId,
      lastSeenAt: toTimestamp(nowMs),
      agentVersion: this.agentVersion,
      facts,
      state: {
        phase: this.phase,
        disks: facts.disks
          .filter(({ diskId }) => !this.excludedDisks.has(diskId))
          .map(({ diskId, sizeBytes }) => ({
            diskId,
            tracking: { rung: "ebpf", reason: "simulated" },
            dirtyBytes: 0,
            copiedBytes: Math.floor(sizeBytes * this.copiedShare),
            sizeBytes,
          })),
        readBytes: this.sentBytes,
        sentBytes: this.sentBytes,
        residentBytes: 1,
        cpuSeconds: 0,
        pointCount: this.pointCount,
      },
    };
  }
}

export function factsOf(source: SimSource): MachineFacts {
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
    vcenterId: simVcenterId,
    name,
    smbiosUuid: random.uuid(),
    guestOs: "Debian GNU/Linux 12 (64-bit)",
    powerState: "poweredOn",
    cpuCount: 1,
    memoryBytes: 512 << 20,
    firmware: "bios",
    addresses: ["10.10.0.20"],
    disks: [0, 1].map((index) => ({
      label: `Hard disk ${index + 1}`,
      sizeBytes: 4 * blockBytes,
      controller: "pvscsi",
      uuid: `disk-${index}`,
    })),
    nics: [{ label: "Network adapter 1", mac: "00:50:56:00:00:01", network: "VM Network", adapter: "vmxnet3" }],
  };
}

const kinds = [
  { role: "web", guestOs: "Debian GNU/Linux 12 (64-bit)", cpuCount: 2, memoryBytes: 2 ** 31, diskBlocks: [4], firmware: "bios" },
  {
    role: "db",
    guestOs: "Red Hat Enterprise Linux 9 (64-bit)",
    cpuCount: 4,
    memoryBytes: 2 ** 33,
    diskBlocks: [4, 8, 2],
    firmware: "efi",
  },
  { role: "app", guestOs: "Ubuntu Linux (64-bit)", cpuCount: 2, memoryBytes: 2 ** 32, diskBlocks: [4, 4], firmware: "efi" },
  { role: "files", guestOs: "SUSE Linux Enterprise 15 (64-bit)", cpuCount: 1, memoryBytes: 2 ** 31, diskBlocks: [4, 8], firmware: "bios" },
] as const;

/** Machines as a small site has them: names by role, 1 to 3 disks, one or two cards, an address each. `site` keeps sites apart. */
export function simFleet(count: number, random: Random, site = 0): readonly SimSource[] {
  return Array.from({ length: count }, (_, index) => {
    const { role, guestOs, cpuCount, memoryBytes, diskBlocks, firmware } = kinds[index % kinds.length] ?? kinds[0];
    const number = Math.floor(index / kinds.length) + 1;
    const name = `${role}-${String(number).padStart(2, "0")}`;
    const place = [site % 256, (index >> 8) % 256, (index % 254) + 1];
    const macOf = (card: number): string =>
      ["00", "50", "56", (site % 64) * 4 + card, (index >> 8) % 256, index % 256]
        .map((part) => (typeof part === "string" ? part : part.toString(16).padStart(2, "0")))
        .join(":");
    const cards = role === "db" ? 2 : 1;
    return new SimSource(
      {
        ...simDiscovered(name, random),
        guestOs,
        cpuCount,
        memoryBytes,
        firmware,
        addresses: [`10.${place.join(".")}`],
        disks: diskBlocks.map((blocks, disk) => ({
          label: `Hard disk ${disk + 1}`,
          sizeBytes: blocks * blockBytes,
          controller: "pvscsi",
          uuid: `disk-${disk}`,
        })),
        nics: Array.from({ length: cards }, (_unused, card) => ({
          label: `Network adapter ${card + 1}`,
          mac: macOf(card),
          network: card === 0 ? "VM Network" : "Storage Network",
          adapter: "vmxnet3",
        })),
      },
      `hello from ${name}`,
    );
  });
}
