// A target in memory: machines without processors that keep every promise of Target, for tests of whoever lands machines.

import { createHash } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { upgradeDiskId } from "../../contract/os-upgrade.ts";
import { checkSpec } from "../check-spec.ts";
import { admit, type Authority, type FenceLedger } from "../fence-ledger.ts";
import { runProbeScript } from "../probe-script.ts";
import type {
  ConsoleView,
  HydrationReport,
  LandedStatus,
  LandingDisk,
  LaunchSpec,
  Probe,
  ProbeOutcome,
  Target,
  TargetCommands,
} from "../target.ts";
import { drawScreen } from "./draw-screen.ts";

/** A disk that begins with this boots here; what follows up to a zero byte is what the machine answers over HTTP. */
export const simGuestMark = "SIMGUEST:";

interface SimMachine {
  readonly name: string;
  readonly sizeBytes: number;
  readonly diskIds: readonly string[];
  readonly addresses: readonly string[];
  readonly answer: string;
  readonly hydration: HydrationReport;
  /** What its upgrade says on the serial console. */
  readonly upgrade: string;
  power: "running" | "stopped";
  isBarred?: boolean;
  bytesToFill: number;
}

/** What outlives a SimTarget, as processes and files outlive the program behind a real one. */
export class SimWorld {
  readonly machines = new Map<string, SimMachine>();
  /** Highest fencing number by machine, also of machines that are gone. */
  readonly fences = new Map<string, number>();

  /** Power is lost; the disks stay. */
  killMachine(name: string): void {
    const machine = this.machines.get(name);
    if (machine !== undefined) machine.power = "stopped";
  }
}

const headBytes = 4_096;
const fillPieceBytes = 2 ** 20;
const probePauseMs = 50;

export class SimTarget implements Target {
  readonly kind = "sim";
  readonly #world: SimWorld;
  readonly #clock: Clock;
  /** Contents served by this process, by machine. */
  readonly #contents = new Map<string, readonly LandingDisk[]>();

  constructor(options: { readonly world: SimWorld; readonly clock: Clock }) {
    this.#world = options.world;
    this.#clock = options.clock;
  }

  under(authority: Authority): TargetCommands {
    const { fences } = this.#world;
    const ledger: FenceLedger = {
      highest: async (name) => fences.get(name) ?? 0,
      raise: async (name, fence) => void fences.set(name, fence),
    };
    const admitted = async (name: string): Promise<void> => await admit(ledger, name, authority);
    return {
      launch: async (spec, signal) => await this.#launch(spec, admitted, signal),
      fill: async (name, onProgress, signal) => {
        await admitted(name);
        await this.#fill(name, onProgress, signal);
      },
      start: async (name) => {
        await admitted(name);
        this.#start(name);
      },
      stop: async (name) => {
        await admitted(name);
        this.#existing(name, "stop").power = "stopped";
      },
      remove: async (name) => {
        await admitted(name);
        this.#world.machines.delete(name);
        this.#contents.delete(name);
      },
      bar: async (name) => {
        await admitted(name);
        this.#existing(name, "bar").isBarred = true;
      },
      allow: async (name) => {
        await admitted(name);
        this.#existing(name, "allow").isBarred = false;
      },
    };
  }

  async #launch(
    spec: LaunchSpec,
    admitted: (name: string) => Promise<void>,
    signal?: AbortSignal,
  ): Promise<{ readonly hydration: HydrationReport }> {
    checkSpec(spec);
    signal?.throwIfAborted();
    await admitted(spec.name);
    const present = this.#world.machines.get(spec.name);
    if (present !== undefined) {
      this.#contents.set(spec.name, spec.disks);
      present.power = "running";
      return { hydration: present.hydration };
    }
    const answer = await readAnswer(spec, signal);
    signal?.throwIfAborted();
    await admitted(spec.name);
    const sizeBytes = spec.disks.reduce((sum, { content }) => sum + content.sizeBytes, 0);
    const hydration = { seconds: 0, changes: changesOf(spec) };
    this.#contents.set(spec.name, spec.disks);
    this.#world.machines.set(spec.name, {
      name: spec.name,
      sizeBytes,
      diskIds: spec.disks.map(({ diskId }) => diskId),
      addresses: spec.nics.flatMap(({ address }) => (address === undefined ? [] : [address.replace(/\/.*$/, "")])),
      answer,
      hydration,
      upgrade: await readUpgrade(spec, signal),
      power: "running",
      bytesToFill: sizeBytes,
    });
    return { hydration };
  }

  async status(name: string): Promise<LandedStatus> {
    const machine = this.#world.machines.get(name);
    if (machine === undefined) return { name, power: "gone", addresses: [], bytesToFill: 0, serialTail: "" };
    const { power, addresses, bytesToFill } = machine;
    return { name, power, addresses, bytesToFill, serialTail: serialOf(machine) };
  }

  async probe(name: string, probe: Probe, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    const machine = this.#existing(name, "probe");
    const startedMs = this.#clock.monotonicMs();
    const seconds = () => (this.#clock.monotonicMs() - startedMs) / 1000;
    let reason = `the machine is ${machine.power}`;
    while (seconds() < timeoutSeconds) {
      signal?.throwIfAborted();
      const canRead = machine.bytesToFill === 0 || this.#contents.has(name);
      const heard = machine.power === "running" && canRead ? await hear(machine, probe, timeoutSeconds - seconds(), signal) : undefined;
      if (heard?.kind === "answered") return { ...heard, seconds: seconds() };
      reason = heard?.reason ?? `the machine is ${machine.power}`;
      await this.#clock.sleep(probePauseMs, signal);
    }
    return { kind: "silent", seconds: seconds(), reason };
  }

  async look(name: string): Promise<ConsoleView> {
    const machine = this.#existing(name, "look at");
    const serialLog = serialOf(machine);
    return machine.power === "running" ? { serialLog, screenshot: drawScreen(serialLog) } : { serialLog };
  }

  async #fill(name: string, onProgress: (bytesLeft: number) => void, signal?: AbortSignal): Promise<void> {
    const machine = this.#existing(name, "fill");
    const disks = this.#contents.get(name);
    if (machine.bytesToFill > 0 && (machine.power !== "running" || disks === undefined)) {
      throw new Fault("StateConflict", `could not fill machine ${name}: it does not run, or its recovery point is not served`);
    }
    let left = machine.bytesToFill;
    for (const { content } of left > 0 ? (disks ?? []) : []) {
      for (let at = 0; at < content.sizeBytes; at += fillPieceBytes) {
        signal?.throwIfAborted();
        const piece = Buffer.alloc(Math.min(fillPieceBytes, content.sizeBytes - at));
        await content.read(at, piece, signal);
        left -= piece.length;
        if (left > 0) onProgress(left);
      }
    }
    machine.bytesToFill = 0;
    this.#contents.delete(name);
    onProgress(0);
  }

  #start(name: string): void {
    const machine = this.#existing(name, "start");
    if (machine.power === "running") return;
    if (machine.isBarred === true) throw new Fault("StateConflict", `could not start machine ${name}: it is barred`);
    if (machine.bytesToFill > 0 && !this.#contents.has(name)) {
      throw new Fault("StateConflict", `could not start machine ${name}: its recovery point is not served`);
    }
    machine.power = "running";
  }

  async reattach(name: string, disks: readonly LandingDisk[]): Promise<void> {
    const machine = this.#existing(name, "reattach");
    const given = disks.map(({ diskId }) => diskId);
    if (given.join() !== machine.diskIds.join()) {
      throw new Fault("InputInvalid", `could not reattach machine ${name}: these are not its disks`, { evidence: { given } });
    }
    if (machine.bytesToFill > 0) this.#contents.set(name, disks);
  }

  async list(): Promise<readonly string[]> {
    return [...this.#world.machines.keys()].sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#contents.clear();
  }

  #existing(name: string, doing: string): SimMachine {
    const machine = this.#world.machines.get(name);
    if (machine === undefined) throw new Fault("NotFound", `could not ${doing} machine ${name}: there is none of that name`);
    return machine;
  }
}

function serialOf({ name, power, upgrade }: SimMachine): string {
  return power === "running" ? `${upgrade}${name} login: ` : "";
}

type Heard =
  | { readonly kind: "answered"; readonly status?: number; readonly body: string }
  | { readonly kind: "silent"; readonly reason: string };

/** One try. Every port is open here. */
async function hear(machine: SimMachine, probe: Probe, secondsMax: number, signal?: AbortSignal): Promise<Heard> {
  if (probe.kind === "tcp") return { kind: "answered", body: "" };
  if (probe.kind === "ssh") return { kind: "answered", body: "SSH-2.0-simulated" };
  if (probe.kind === "script")
    return await runProbeScript({ program: probe.program, name: machine.name, addresses: machine.addresses, secondsMax }, signal);
  if (probe.kind !== "serial") return { kind: "answered", status: 200, body: machine.answer };
  const said = serialOf(machine);
  if (said.includes(probe.text)) return { kind: "answered", body: said };
  return { kind: "silent", reason: `its serial console does not say ${JSON.stringify(probe.text)}` };
}

/** An upgrade disk that begins with this tells what its upgrade says, up to a zero byte. */
export const simUpgradeMark = "SIMUPGRADE:";

async function readUpgrade(spec: LaunchSpec, signal?: AbortSignal): Promise<string> {
  const disk = spec.disks.find(({ diskId }) => diskId === upgradeDiskId)?.content;
  if (disk === undefined) return "";
  const head = Buffer.alloc(Math.min(headBytes, disk.sizeBytes));
  await disk.read(0, head, signal);
  const text = head.toString("utf8").replace(/\0.*$/s, "");
  return text.startsWith(simUpgradeMark)
    ? `\n${text.slice(simUpgradeMark.length)}\n`
    : "\nWATARI-OS-UPGRADE failed 100 the disk holds nothing to upgrade from\n";
}

async function readAnswer(spec: LaunchSpec, signal?: AbortSignal): Promise<string> {
  const boot = spec.disks.find(({ isBoot }) => isBoot)?.content;
  const head = Buffer.alloc(Math.min(headBytes, boot?.sizeBytes ?? 0));
  await boot?.read(0, head, signal);
  const text = head.toString("utf8").replace(/\0.*$/s, "");
  if (!text.startsWith(simGuestMark)) {
    throw new Fault("HydrationUnsupported", "could not hydrate the clone: no root filesystem was found", { evidence: { found: [] } });
  }
  return text.slice(simGuestMark.length);
}

/** What hydration would be told. A digest of each key shows a test that it came whole, and tells nobody the key. */
function changesOf({ nics, hasSerialConsole = false, unlockKeys = [] }: LaunchSpec): readonly string[] {
  return [
    ...nics.map(({ mac, guestName }) => `the card ${mac} keeps the name ${guestName}`),
    ...nics.flatMap(({ guestName, addressing = { kind: "keep" } }) =>
      addressing.kind === "keep" ? [] : [`the card ${guestName} gets ${JSON.stringify(addressing)}`],
    ),
    ...(hasSerialConsole ? ["the kernel talks on the serial console"] : []),
    ...unlockKeys.map((key) => `an encrypted disk was tried with the key ${createHash("sha256").update(key).digest("hex")}`),
  ];
}
