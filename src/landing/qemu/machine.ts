// One landed machine: its disks, network and emulator, as separate steps that may each be repeated.

import { copyFile, mkdir, open, rm, stat, truncate } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { upgradeDiskId } from "../../contract/os-upgrade.ts";
import type { HelperImage } from "../helper/helper-image.ts";
import type { DriverPlans } from "../hydration/driver-plans.ts";
import { hydrate } from "../hydration/hydrate.ts";
import { detachUnder, openRawView } from "../hydration/raw-view.ts";
import type { ExportDisk, HydrationReport, LandingDisk, LaunchSpec } from "../target.ts";
import { withoutRights } from "../../base/without-rights.ts";
import { startDetached } from "./detached.ts";
import { blockGraph, emulatorArguments, exportNameOf, qcow2Node, type Accelerator } from "./emulator.ts";
import { machinePaths, type MachinePaths, type MachineRecord } from "./machine-record.ts";
import { closeNetwork, openNetwork, type NamedNetwork } from "./network.ts";
import { createOverlay, needsPoint } from "./overlay.ts";
import { findProcess, killProcess } from "./process-identity.ts";
import { openQmp, type Qmp } from "./qmp.ts";
import { readScreenText } from "./screen-text.ts";

export interface MachineSurroundings {
  readonly stateFolder: string;
  readonly networks: Readonly<Record<string, NamedNetwork>>;
  readonly exportDisk: ExportDisk;
  readonly accelerator: Accelerator;
  readonly clock: Clock;
  readonly helperImage: () => Promise<HelperImage>;
  readonly plans?: DriverPlans;
  /** Serves of this process, by socket path. */
  readonly served: Map<string, AsyncDisposable>;
}

/** What landed machines are made of. */
export const virtioHardware = { drivers: { required: ["virtio_pci", "virtio_blk"], wished: ["virtio_scsi"] }, cardDriver: "virtio_net" };
const serialTailBytes = 4_096;
const lastWordsCharactersMax = 1_000;
const serialBytesMax = 16 * 2 ** 20;
const startMsMax = 60_000;
const efiFolder = "/usr/share/OVMF";

export type HydrationWish = Pick<LaunchSpec, "nics" | "hasSerialConsole" | "unlockKeys">;

/** A machine by its record. Holds nothing open itself. */
export class Machine {
  readonly paths: MachinePaths;
  readonly record: MachineRecord;
  readonly #around: MachineSurroundings;

  constructor(record: MachineRecord, around: MachineSurroundings) {
    this.record = record;
    this.paths = machinePaths(around.stateFolder, record.name);
    this.#around = around;
  }

  /** What only this machine's processes carry in their command lines. */
  get mark(): string {
    return `${this.paths.folder}/`;
  }

  async exportContents(disks: readonly LandingDisk[]): Promise<void> {
    for (const [index, { content }] of disks.entries()) {
      const socketPath = this.paths.nbdSocket(index);
      if (this.#around.served.has(socketPath)) continue;
      this.#around.served.set(socketPath, await this.#around.exportDisk(content, { socketPath, exportName: exportNameOf(index) }));
    }
  }

  async closeExports(): Promise<void> {
    for (const index of this.record.disks.keys()) await this.closeExport(index);
  }

  async closeExport(index: number): Promise<void> {
    const socketPath = this.paths.nbdSocket(index);
    const served = this.#around.served.get(socketPath);
    this.#around.served.delete(socketPath);
    await served?.[Symbol.asyncDispose]();
    await rm(socketPath, { force: true });
  }

  async createOverlays(): Promise<void> {
    for (const [index, { sizeBytes }] of this.record.disks.entries()) {
      const uri = `nbd+unix:///${exportNameOf(index)}?socket=${this.paths.nbdSocket(index)}`;
      await createOverlay(this.paths.overlay(index), { uri, sizeBytes, tracksWrites: this.record.tracksWrites === true });
    }
  }

  async hydrateOverlays(
    { nics, hasSerialConsole = false, unlockKeys = [] }: HydrationWish,
    signal?: AbortSignal,
  ): Promise<HydrationReport> {
    const { clock, helperImage, plans } = this.#around;
    const startedMs = clock.monotonicMs();
    await mkdir(this.paths.scratch, { recursive: true, mode: 0o700 });
    const graphs = this.record.disks.map((_, index) => ({ nodes: blockGraph(this.paths, index, true), topNode: qcow2Node(index) }));
    const common = { clock, helperImage, ...(plans === undefined ? {} : { plans }), ...(signal === undefined ? {} : { signal }) };
    let changes: readonly string[];
    {
      await using view = await openRawView({ graphs, folder: this.paths.scratch, ...common });
      const upgradeIndex = this.record.disks.findIndex(({ diskId }) => diskId === upgradeDiskId);
      const imagePaths = view.paths.filter((_, index) => index !== upgradeIndex);
      const edits = { imagePaths, upgradesSystem: upgradeIndex >= 0, hardware: virtioHardware, scratchFolder: this.paths.scratch };
      const bootDiskIndex = this.record.disks.findIndex(({ isBoot }) => isBoot);
      ({ changes } = await hydrate({ ...edits, bootDiskIndex, nics, hasSerialConsole, unlockKeys, ...common }));
    }
    await rm(this.paths.scratch, { recursive: true });
    return { seconds: (clock.monotonicMs() - startedMs) / 1000, changes };
  }

  async openNetwork(signal?: AbortSignal) {
    return await openNetwork({ ...this.#networkOptions(), ...(signal === undefined ? {} : { signal }) });
  }

  #networkOptions() {
    const { networks, clock } = this.#around;
    return { paths: this.paths, record: this.record, networks, clock };
  }

  async findEmulator(): Promise<number | undefined> {
    return await findProcess(this.paths.pidFile, this.mark);
  }

  /** Cuts the power: what the guest has flushed is in its overlays. Returns when the emulator is gone. */
  async kill(): Promise<void> {
    await killProcess(this.paths.pidFile, this.mark, this.#around.clock);
  }

  /** Starts the emulator in the machine's network; the processor runs on return. Fault StateConflict for a machine that is barred. */
  async startEmulator(signal?: AbortSignal): Promise<void> {
    if (this.record.isBarred === true)
      throw new Fault(
        "StateConflict",
        `could not start machine ${this.record.name}: it is barred, because its source takes its place again`,
        {
          action: "end the way back of its protected item first",
          retry: "never",
        },
      );
    const { accelerator } = this.#around;
    const { cards, namespacePid } = await this.openNetwork(signal);
    const dependsOnPoint = await this.dependencies();
    const efi = await this.efiFiles();
    const around = { paths: this.paths, accelerator, cards, dependsOnPoint, ...(efi === undefined ? {} : { efi }) };
    const entry = namespacePid === undefined ? [] : ["nsenter", `--net=/proc/${namespacePid}/ns/net`];
    const [program = "", ...args] = [...entry, ...withoutRights, "qemu-system-x86_64", ...emulatorArguments(this.record, around)];
    const outcome = await startDetached({
      command: [program, ...args],
      logPath: join(this.paths.folder, "emulator.log"),
      isReady: async () => await this.isRunning(),
      readyMsMax: startMsMax,
      clock: this.#around.clock,
      ...(signal === undefined ? {} : { signal }),
    });
    if (outcome.kind === "ready") return;
    throw new Fault("LandingFailed", `could not start machine ${this.record.name}`, { evidence: { output: outcome.output } });
  }

  /** Whether the processor has begun to run. */
  async isRunning(): Promise<boolean> {
    await using qmp = await this.openQmp();
    return qmp !== undefined && z.object({ running: z.boolean() }).parse(await qmp.execute("query-status")).running;
  }

  /** For each disk, whether it still needs the recovery point. A running emulator does not disturb the answer. */
  async dependencies(): Promise<readonly boolean[]> {
    return await Promise.all(this.record.disks.map(async (_, index) => await needsPoint(this.paths.overlay(index))));
  }

  async openQmp(): Promise<Qmp | undefined> {
    return (await this.findEmulator()) === undefined ? undefined : await openQmp(this.paths.qmpSocket);
  }

  /** Lets a guest go on that stopped because its disk did not answer. */
  async resume(): Promise<void> {
    await using qmp = await this.openQmp();
    if (qmp === undefined) return;
    const { status } = z.object({ status: z.string() }).parse(await qmp.execute("query-status"));
    if (status === "io-error") await qmp.execute("cont");
  }

  /** Last words on the serial console. A guest that talks without end does not fill the host's disk. */
  async serialTail(): Promise<string> {
    const size = (await stat(this.paths.serial).catch(() => undefined))?.size; // No console yet.
    if (size === undefined) return "";
    await using file = await open(this.paths.serial, "r");
    const tail = Buffer.alloc(Math.min(size, serialTailBytes));
    await file.read(tail, 0, tail.length, size - tail.length);
    if (size > serialBytesMax) await truncate(this.paths.serial, 0);
    return tail.toString("utf8");
  }

  /** For a person who asks why it does not answer: its serial console or, when that is silent, its screen. */
  async lastWords(): Promise<string> {
    const serial = (await this.serialTail()).slice(-lastWordsCharactersMax);
    if (serial.trim() !== "") return `last words on its console: ${serial}`;
    await using qmp = await this.openQmp();
    const screen = qmp === undefined ? undefined : await readScreenText(qmp);
    return screen === undefined ? "its console and its screen show nothing" : `its console is silent; its screen shows: ${screen}`;
  }

  /** Takes everything away, whatever state it is in. May be repeated. */
  async erase(): Promise<void> {
    const { clock } = this.#around;
    await killProcess(this.paths.pidFile, this.mark, clock);
    await killProcess(join(this.paths.scratch, "storage-daemon.pid"), this.mark, clock);
    await killProcess(join(this.paths.viewFolder, "storage-daemon.pid"), this.mark, clock);
    await detachUnder(this.paths.folder);
    await rm(this.paths.viewSocket, { force: true });
    await closeNetwork(this.#networkOptions());
    await this.closeExports();
    for (const socket of [this.paths.qmpSocket, this.paths.serialSocket, this.paths.screenSocket]) await rm(socket, { force: true });
    await rm(this.paths.folder, { recursive: true, force: true });
  }

  /** The variables' file is made when it is not there yet. */
  async efiFiles(): Promise<{ codePath: string; variablesPath: string } | undefined> {
    if (this.record.firmware === "bios") return undefined;
    const codePath = join(efiFolder, "OVMF_CODE_4M.fd");
    if (!existsSync(codePath)) {
      throw new Fault("MissingProgram", "could not start an EFI machine: its firmware is not installed", { evidence: { package: "ovmf" } });
    }
    const variablesPath = join(this.paths.folder, "efi-variables.fd");
    if (!existsSync(variablesPath)) await copyFile(join(efiFolder, "OVMF_VARS_4M.fd"), variablesPath);
    return { codePath, variablesPath };
  }
}
