// Lands machines as QEMU processes on this host: instant boot on overlays over a recovery point, filled while they run.

import { spawnSync } from "node:child_process";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { siblingProgram } from "../../base/sibling-program.ts";
import { Fault } from "../../contract/errors.ts";
import type {
  ConsoleLine,
  ConsoleView,
  ConsoleWish,
  ExportDisk,
  HydrationReport,
  LandedDisks,
  LandedReading,
  LandedStatus,
  LandingDisk,
  LaunchSpec,
  Probe,
  ProbeOutcome,
  Target,
  StopMode,
  TargetCommands,
} from "../target.ts";
import { withoutRights } from "../../base/without-rights.ts";
import { checkSpec } from "../check-spec.ts";
import { admit, type Authority, type FenceLedger } from "../fence-ledger.ts";
import { runProbeScript } from "../probe-script.ts";
import { openDriverPlans } from "../hydration/driver-plans.ts";
import { ensureHelperImage } from "../helper/helper-image.ts";
import { chooseAccelerator } from "./accelerator.ts";
import type { LandedDefinition } from "../definitions/defined-machine.ts";
import { defineLanded } from "./define-landed.ts";
import { openConsoleLine } from "./console-line.ts";
import { lookAt, probeSerial } from "./console-view.ts";
import type { Accelerator } from "./emulator.ts";
import { openFenceFiles } from "./fence-files.ts";
import { bytesToFill, fillMachine } from "./fill.ts";
import { leasedAddresses, probeHttp, type ProbeOrder } from "./http-probe.ts";
import { openLandedDisks } from "./landed-disks.ts";
import { findLeftovers } from "./leftovers.ts";
import { machinePaths, readRecord, recordOf, writeRecord, type MachineRecord } from "./machine-record.ts";
import { Machine, type MachineSurroundings } from "./machine.ts";
import { addressSources, findNamespace, namedNetwork, type NamedNetwork } from "./network.ts";

export interface QemuTargetOptions {
  /** Own folder for overlays, records and sockets; a short path: sockets lie in it. */
  readonly stateFolder: string;
  readonly exportDisk: ExportDisk;
  readonly networks: Readonly<Record<string, NamedNetwork>>;
  readonly clock: Clock;
  readonly log: Log;
  /** Found by a trial unless told. */
  readonly accelerator?: Accelerator;
  /** Where the helper machine's files are, or are made when a guest first needs them. */
  readonly cacheFolder: string;
  /** How long a guest may take to power itself off before it is ended. */
  readonly stopMsMax?: number;
}

/** Debian packages by the programs that are needed of them. */
const packages = {
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-img": "qemu-utils",
  "qemu-storage-daemon": "qemu-system-common",
  debugfs: "e2fsprogs",
  e2fsck: "e2fsprogs",
  dnsmasq: "dnsmasq-base",
  ip: "iproute2",
  nsenter: "util-linux",
  unshare: "util-linux",
  setpriv: "util-linux",
  umount: "mount",
};

const socketPathBytesMax = 107;
const stopPollMs = 100;
/** An emulator that waits for a recovery point which nobody serves would end only once it has given up: after ten minutes. */
const quitMsMax = 10_000;
const probeGraceMs = 30_000;
const scriptPauseMs = 1_000;

/** Opens the target; one process at a time owns the state folder. Machines of an earlier process are taken over; those that never became whole are removed. */
export async function openQemuTarget(options: QemuTargetOptions): Promise<QemuTarget> {
  requirePrograms();
  await mkdir(join(options.stateFolder, "machines"), { recursive: true, mode: 0o700 });
  await mkdir(join(options.stateFolder, "s"), { recursive: true, mode: 0o700 });
  const accelerator = options.accelerator ?? (await chooseAccelerator());
  const target = new QemuTarget(options, accelerator);
  await target.removeUnfinished();
  return target;
}

export class QemuTarget implements Target {
  readonly kind = "qemu";
  readonly #options: QemuTargetOptions;
  readonly #around: MachineSurroundings;
  /** Changes to one machine come one after another. */
  readonly #turns = new Map<string, Semaphore>();
  readonly #ledger: FenceLedger;

  /** Use openQemuTarget. */
  constructor(options: QemuTargetOptions, accelerator: Accelerator) {
    this.#options = options;
    const { stateFolder, networks, exportDisk, clock, cacheFolder } = options;
    const helperImage = async () => await ensureHelperImage(cacheFolder);
    this.#ledger = openFenceFiles(join(stateFolder, "fences"));
    const plans = openDriverPlans(join(cacheFolder, "driver-plans"), clock);
    this.#around = { stateFolder, networks, exportDisk, accelerator, clock, helperImage, plans, served: new Map() };
  }

  under(authority: Authority): TargetCommands {
    return {
      launch: async (spec, signal) => await this.#launch(authority, spec, signal),
      fill: async (name, onProgress, signal) => await this.#fill(authority, name, onProgress, signal),
      start: async (name) => await this.#start(authority, name),
      stop: async (name, how = "orderly") => await this.#stop(authority, name, how),
      remove: async (name) => await this.#remove(authority, name),
      bar: async (name) => await this.#setBar(authority, name, "bar"),
      allow: async (name) => await this.#setBar(authority, name, "allow"),
    };
  }

  async #launch(authority: Authority, spec: LaunchSpec, signal?: AbortSignal): Promise<{ readonly hydration: HydrationReport }> {
    checkSpec(spec);
    return await this.#inTurn(spec.name, async () => {
      await admit(this.#ledger, spec.name, authority);
      const present = await this.#find(spec.name);
      if (present !== undefined) {
        if ((await present.dependencies()).includes(true)) await present.exportContents(spec.disks);
        if ((await present.findEmulator()) === undefined) await this.#startPresent(present);
        return { hydration: present.record.hydration };
      }
      const machine = new Machine(recordOf(spec), this.#around);
      this.#checkSurroundings(machine);
      try {
        return await this.#land(machine, authority, spec, signal);
      } catch (error) {
        // What is there now may be the newer hub's machine.
        if (!(error instanceof Fault && error.code === "StaleOrder")) await machine.erase();
        throw error;
      }
    });
  }

  async #land(
    machine: Machine,
    authority: Authority,
    spec: LaunchSpec,
    signal?: AbortSignal,
  ): Promise<{ readonly hydration: HydrationReport }> {
    signal?.throwIfAborted();
    await mkdir(machine.paths.folder, { recursive: true, mode: 0o700 });
    await writeRecord(machine.paths, machine.record);
    await machine.exportContents(spec.disks);
    await machine.createOverlays();
    const networking = machine.openNetwork(signal); // Meanwhile.
    const results = await Promise.allSettled([machine.hydrateOverlays(spec, signal), networking]);
    const [hydrated, wired] = results;
    if (hydrated.status === "rejected") throw hydrated.reason;
    if (wired.status === "rejected") throw wired.reason;
    await admit(this.#ledger, spec.name, authority); // Hydration took a while; a hub that was paused in it must not start the machine.
    await machine.startEmulator(signal);
    signal?.throwIfAborted();
    const hydration = hydrated.value;
    await writeRecord(machine.paths, { ...machine.record, state: "landed", hydration: { ...hydration, changes: [...hydration.changes] } });
    this.#options.log.info("machine landed", { name: spec.name, hydrationSeconds: hydration.seconds });
    return { hydration };
  }

  #checkSurroundings(machine: Machine): void {
    if (machine.record.network.kind === "named") namedNetwork({ record: machine.record, networks: this.#options.networks });
    const longest = machine.paths.qmpSocket;
    if (Buffer.byteLength(longest) > socketPathBytesMax) {
      throw new Fault("InputInvalid", "could not land a machine: the path of the state folder is too long for sockets", {
        evidence: { path: longest, bytesMax: socketPathBytesMax },
      });
    }
  }

  async status(name: string): Promise<LandedStatus> {
    const machine = await this.#find(name);
    if (machine === undefined) return { name, power: "gone", addresses: [], bytesToFill: 0, serialTail: "" };
    const { leasesFile, addresses } = addressSources({ paths: machine.paths, record: machine.record, networks: this.#options.networks });
    const leased = await leasedAddresses(
      leasesFile,
      machine.record.nics.map(({ mac }) => mac),
    );
    return {
      name,
      power: (await machine.findEmulator()) === undefined ? "stopped" : "running",
      addresses: [...new Set([...leased, ...addresses])],
      bytesToFill: await bytesToFill(machine),
      serialTail: await machine.serialTail(),
    };
  }

  async probe(name: string, probe: Probe, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    const machine = await this.#existing(name, "probe");
    const outcome = await this.#probeOnce(machine, probe, timeoutSeconds, signal);
    if (outcome.kind === "answered") return outcome;
    return { ...outcome, reason: `${outcome.reason}; ${await machine.lastWords()}` };
  }

  async #probeOnce(machine: Machine, probe: Probe, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    const { clock } = this.#options;
    if (probe.kind === "serial") return await probeSerial(machine, { text: probe.text, timeoutSeconds, clock }, signal);
    if (probe.kind === "script") return await this.#probeByScript(machine, probe.program, timeoutSeconds, signal);
    const order = this.#probeOrder(machine, probe, timeoutSeconds);
    const isIsolated = machine.record.network.kind === "isolated";
    return isIsolated ? await this.#probeInside(machine, order, signal) : await probeHttp(order, clock, signal);
  }

  /** Again and again, as the other probes ask. */
  async #probeByScript(machine: Machine, program: string, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    const { clock } = this.#options;
    const { name, network } = machine.record;
    const startedMs = clock.monotonicMs();
    const seconds = (): number => (clock.monotonicMs() - startedMs) / 1000;
    let reason = "its network is gone; start the machine again";
    while (seconds() < timeoutSeconds) {
      const pid = network.kind === "isolated" ? await findNamespace(machine.paths) : undefined;
      if (network.kind === "isolated" && pid === undefined) break;
      const { addresses } = await this.status(name);
      const entry = pid === undefined ? withoutRights : ["nsenter", `--net=/proc/${pid}/ns/net`, ...withoutRights];
      const heard = await runProbeScript({ program, name, addresses, entry, secondsMax: timeoutSeconds - seconds() }, signal);
      if (heard.kind === "answered") return { ...heard, seconds: seconds() };
      reason = heard.reason;
      await clock.sleep(scriptPauseMs, signal);
    }
    return { kind: "silent", seconds: seconds(), reason };
  }

  async look(name: string): Promise<ConsoleView> {
    return await lookAt(await this.#existing(name, "look at"));
  }

  async define(name: string): Promise<LandedDefinition> {
    return await defineLanded(await this.#existing(name, "define"), this.#options.networks);
  }

  async openConsole(name: string, wish: ConsoleWish): Promise<ConsoleLine> {
    return await openConsoleLine(await this.#existing(name, "open the console of"), wish, this.#options.clock);
  }

  #probeOrder(machine: Machine, probe: Extract<Probe, { readonly port: number }>, timeoutSeconds: number): ProbeOrder {
    const { record, paths } = machine;
    const { networks } = this.#options;
    const { leasesFile, addresses } = addressSources({ paths, record, networks });
    const network = record.network.kind === "named" ? namedNetwork({ record, networks }) : undefined;
    const forward = network?.kind === "user" ? network.forwards.find(({ guestPort }) => guestPort === probe.port) : undefined;
    return {
      macs: record.nics.map(({ mac }) => mac),
      addresses: forward === undefined ? [...addresses] : [`127.0.0.1:${forward.hostPort}`],
      kind: probe.kind ?? "http",
      port: probe.port,
      path: "path" in probe ? probe.path : "",
      timeoutSeconds,
      ...(leasesFile === undefined ? {} : { leasesFile }),
    };
  }

  async #probeInside(machine: Machine, order: ProbeOrder, signal?: AbortSignal): Promise<ProbeOutcome> {
    const pid = await findNamespace(machine.paths);
    if (pid === undefined) return { kind: "silent", seconds: 0, reason: "its network is gone; start the machine again" };
    const script = siblingProgram(import.meta, "http-probe-child");
    const args = [`--net=/proc/${pid}/ns/net`, process.execPath, "--disable-warning=ExperimentalWarning", script];
    const timeoutMs = order.timeoutSeconds * 1000 + probeGraceMs;
    const { exitCode, stdout, stderr } = await tryCommand("nsenter", args, {
      stdin: JSON.stringify(order),
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
    });
    if (exitCode !== 0)
      throw new Fault("LandingFailed", "could not run the probe in the machine's network", { evidence: { output: stderr.slice(-1000) } });
    return probeOutcomeShape.parse(JSON.parse(stdout));
  }

  async #fill(authority: Authority, name: string, onProgress: (bytesLeft: number) => void, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    await admit(this.#ledger, name, authority);
    const machine = await this.#existing(name, "fill");
    await fillMachine(machine, { clock, onProgress, ...(signal === undefined ? {} : { signal }) });
  }

  async #start(authority: Authority, name: string): Promise<void> {
    await this.#inTurn(name, async () => {
      await admit(this.#ledger, name, authority);
      const machine = await this.#existing(name, "start");
      if ((await machine.findEmulator()) === undefined) await this.#startPresent(machine);
    });
  }

  async #startPresent(machine: Machine): Promise<void> {
    for (const [index, dependsOnPoint] of (await machine.dependencies()).entries()) {
      if (!dependsOnPoint || this.#around.served.has(machine.paths.nbdSocket(index))) continue;
      throw new Fault("StateConflict", `could not start machine ${machine.record.name}: its recovery point is not served`, {
        action: "reattach the machine's recovery point, then start it",
        evidence: { disk: index },
      });
    }
    await machine.startEmulator();
  }

  async #stop(authority: Authority, name: string, how: StopMode): Promise<void> {
    const { clock, stopMsMax = 30_000 } = this.#options;
    await this.#inTurn(name, async () => {
      await admit(this.#ledger, name, authority);
      const machine = await this.#existing(name, "stop");
      if (how === "orderly") await tell(machine, "system_powerdown");
      const quitAtMs = clock.monotonicMs() + (how === "orderly" ? stopMsMax : -1);
      let isToldToQuit = false;
      while ((await machine.findEmulator()) !== undefined) {
        const nowMs = clock.monotonicMs();
        if (nowMs > quitAtMs + quitMsMax) return await machine.kill();
        if (nowMs > quitAtMs && !isToldToQuit) {
          isToldToQuit = true;
          void tell(machine, "quit").catch(() => undefined); // It may have ended by itself just now, and then does not answer.
        }
        await clock.sleep(stopPollMs);
      }
    });
  }

  /** The record says it, so that no process of this host starts it, whoever asks. */
  async #setBar(authority: Authority, name: string, wish: "bar" | "allow"): Promise<void> {
    await this.#inTurn(name, async () => {
      await admit(this.#ledger, name, authority);
      const machine = await this.#existing(name, wish);
      if ((await machine.findEmulator()) !== undefined)
        throw new Fault("StateConflict", `could not bar machine ${name}: it runs`, { action: "stop it first" });
      const { isBarred: _before, ...record } = machine.record;
      await writeRecord(machine.paths, wish === "bar" ? { ...record, isBarred: true } : record);
    });
  }

  async openLanded(name: string, reading: LandedReading = {}): Promise<LandedDisks> {
    const { clock } = this.#options;
    return await this.#inTurn(name, async () => {
      const machine = await this.#existing(name, "read the disks of");
      return await openLandedDisks(machine, { clock, helperImage: this.#around.helperImage, ...reading });
    });
  }

  async reattach(name: string, disks: readonly LandingDisk[]): Promise<void> {
    await this.#inTurn(name, async () => {
      const machine = await this.#existing(name, "reattach");
      const expected = machine.record.disks.map(({ diskId, sizeBytes }) => `${diskId} ${sizeBytes}`);
      const given = disks.map(({ diskId, content }) => `${diskId} ${content.sizeBytes}`);
      if (expected.join() !== given.join()) {
        throw new Fault("InputInvalid", `could not reattach machine ${name}: these are not its disks`, { evidence: { expected, given } });
      }
      if (!(await machine.dependencies()).includes(true)) return;
      await machine.exportContents(disks);
      await machine.resume();
    });
  }

  async #remove(authority: Authority, name: string): Promise<void> {
    await this.#inTurn(name, async () => {
      await admit(this.#ledger, name, authority);
      const machine = await this.#find(name);
      await machine?.erase();
    });
  }

  async list(): Promise<readonly string[]> {
    const names = await readdir(join(this.#options.stateFolder, "machines"));
    const found = await Promise.all(names.map(async (name) => await this.#find(name)));
    return found.flatMap((machine) => (machine === undefined ? [] : [machine.record.name])).sort();
  }

  /** One line for everything here that belongs to no landed machine. Empty after clean removals. */
  async leftovers(): Promise<readonly string[]> {
    return await findLeftovers(this.#options.stateFolder, await this.list());
  }

  /** Ends what a killed process began to land. */
  async removeUnfinished(): Promise<void> {
    for (const name of await readdir(join(this.#options.stateFolder, "machines"))) {
      if ((await this.#find(name)) !== undefined) continue;
      const record = await readRecord(machinePaths(this.#options.stateFolder, name));
      await new Machine(record ?? emptyRecord(name), this.#around).erase();
      this.#options.log.warn("unfinished machine removed", { name });
    }
  }

  /** Stops serving; machines run on and wait at reads that need their recovery point. */
  async [Symbol.asyncDispose](): Promise<void> {
    const served = [...this.#around.served.values()];
    this.#around.served.clear();
    for (const each of served) await each[Symbol.asyncDispose]();
  }

  async #find(name: string): Promise<Machine | undefined> {
    const record = await readRecord(machinePaths(this.#options.stateFolder, name));
    return record?.state === "landed" && record.name === name ? new Machine(record, this.#around) : undefined;
  }

  async #existing(name: string, doing: string): Promise<Machine> {
    const machine = await this.#find(name);
    if (machine === undefined) throw new Fault("NotFound", `could not ${doing} machine ${name}: there is none of that name`);
    return machine;
  }

  async #inTurn<T>(name: string, task: () => Promise<T>): Promise<T> {
    const turn = this.#turns.get(name) ?? new Semaphore(1);
    this.#turns.set(name, turn);
    return await turn.run(task);
  }
}

const probeOutcomeShape = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("answered"), status: z.number().exactOptional(), body: z.string(), seconds: z.number() }),
  z.object({ kind: z.literal("silent"), seconds: z.number(), reason: z.string() }),
]);

/** The monitor serves one client at a time, so nobody keeps it open while waiting. */
async function tell(machine: Machine, command: string): Promise<void> {
  await using qmp = await machine.openQmp();
  await qmp?.execute(command);
}

/** Enough to erase a folder whose record was never written whole. */
function emptyRecord(name: string): MachineRecord {
  const hydration = { seconds: 0, changes: [] };
  const sizes = { cpuCount: 1, memoryBytes: 2 ** 20, firmware: "bios" } as const;
  return { version: 1, state: "landing", name, ...sizes, disks: [], nics: [], network: { kind: "isolated" }, hydration };
}

function requirePrograms(): void {
  const missing = Object.entries(packages).filter(([program]) => spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0);
  if (missing.length === 0) return;
  const names = [...new Set(missing.map(([, name]) => name))];
  throw new Fault("MissingProgram", "could not open the QEMU target: programs are missing", {
    evidence: { programs: missing.map(([program]) => program), packages: names },
    action: `apt-get install ${names.join(" ")}`,
  });
}
