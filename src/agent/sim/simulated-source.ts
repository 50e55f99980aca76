// A simulated machine: file-backed disks whose writes go through this object, so that they can be tracked and held back by a freeze.

import { open, stat, type FileHandle } from "node:fs/promises";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { MachineFacts, SourceDisk } from "../../contract/agent-control.ts";
import { Fault } from "../../contract/errors.ts";
import { BlindTracker } from "../changes/blind-tracker.ts";
import { cellsOfWrite, layoutCells, type CellLayout } from "../changes/cell-layout.ts";
import { EpochMap } from "../changes/epoch-map.ts";
import type { ChangeTracker } from "../changes/tracker.ts";
import { restApplications, type ScriptPlace } from "../snapshot/scripts.ts";
import {
  readEach,
  type ApplicationRest,
  type ArmedFreeze,
  type Freeze,
  type OpenDisk,
  type OpenTracker,
  type Source,
  type TrackerRequest,
} from "../source.ts";

export interface SimulatedDiskOptions {
  /** An existing file; its size is the disk's. */
  readonly path: string;
  readonly facts: Omit<SourceDisk, "sizeBytes">;
}

export interface SimulatedSourceOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Facts without disks; these come from the files. */
  readonly facts: Omit<MachineFacts, "disks">;
  readonly disks: readonly SimulatedDiskOptions[];
  /** Where its scripts lie; without it the machine has none. */
  readonly scripts?: ScriptPlace;
  /** Waited for before a freeze begins. */
  readonly beforeFreeze?: () => Promise<void>;
}

interface Kernel {
  readonly layout: CellLayout;
  readonly cells: Uint8Array;
  epoch: number;
  session: string | undefined;
  lost: number;
}

/** The machine. It outlives any number of simulated agents, as a kernel does. */
export class SimulatedSource implements Source, AsyncDisposable {
  readonly #options: SimulatedSourceOptions;
  readonly #files = new Map<string, FileHandle>();
  readonly #kernels = new Map<string, Kernel>();
  #facts: Omit<MachineFacts, "disks">;
  #frozen: PromiseWithResolvers<void> | undefined;
  /** Disks whose changes the simulated kernel does not show. */
  readonly blindDiskIds = new Set<string>();
  /** How often each disk was taken off and put on again. */
  readonly attachments = new Map<string, number>();
  /** Counts what tests and demos want to know. */
  freezeCount = 0;
  /** What goes on while the filesystems are written out. */
  onWriteOut: () => Promise<void> = () => Promise.resolve();
  isUninstalled = false;

  private constructor(options: SimulatedSourceOptions) {
    this.#options = options;
    this.#facts = options.facts;
  }

  static async open(options: SimulatedSourceOptions): Promise<SimulatedSource> {
    const source = new SimulatedSource(options);
    for (const disk of options.disks) source.#files.set(disk.facts.diskId, await open(disk.path, "r+"));
    return source;
  }

  /** Writes as the machine's programs would: waits while frozen, marks the cells after the data is there. */
  async write(diskId: string, offset: number, bytes: Uint8Array): Promise<void> {
    while (this.#frozen !== undefined) await this.#frozen.promise;
    await this.#file(diskId).write(bytes, 0, bytes.length, offset);
    const kernel = this.#kernels.get(diskId);
    if (kernel?.session === undefined) return;
    const { first, last } = cellsOfWrite(kernel.layout, offset, bytes.length);
    for (let cell = first; cell <= last; cell++) Atomics.store(kernel.cells, cell, kernel.epoch);
  }

  /** As after a restart of the machine: another boot id, nothing tracked. */
  reboot(): void {
    this.#kernels.clear();
    this.#facts = { ...this.#facts, bootId: this.#options.random.uuid() };
  }

  /** As on a copy of the machine. */
  becomeClone(): void {
    this.#facts = { ...this.#facts, smbiosUuid: this.#options.random.uuid() };
  }

  /** The kernel says that it could not mark a change. */
  loseEvents(diskId: string): void {
    const kernel = this.#kernels.get(diskId);
    if (kernel !== undefined) kernel.lost += 1;
  }

  async facts(): Promise<MachineFacts> {
    const disks = await Promise.all(this.#options.disks.map(async (disk) => ({ ...disk.facts, sizeBytes: (await stat(disk.path)).size })));
    return { ...this.#facts, disks };
  }

  openDisk(facts: SourceDisk): Promise<OpenDisk> {
    const file = this.#file(facts.diskId);
    const read: OpenDisk["read"] = async (offset, into) => {
      const wanted = Math.max(0, Math.min(into.length, facts.sizeBytes - offset));
      const { bytesRead } = await file.read(into, 0, wanted, offset);
      into.fill(0, bytesRead);
    };
    return Promise.resolve({
      facts,
      attachment: String(this.attachments.get(facts.diskId) ?? 0),
      read,
      readMany: (spans) => readEach({ read }, spans),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
  }

  openTracker(disk: OpenDisk, request: TrackerRequest): Promise<OpenTracker> {
    const { diskId, sizeBytes } = disk.facts;
    if (this.blindDiskIds.has(diskId)) {
      const tracker = new BlindTracker({
        sizeBytes,
        newSession: this.#options.random.bytes(16),
        hasBase: request.hasBase,
        whyNotBetter: "simulated",
      });
      return Promise.resolve({ tracker, session: Buffer.from(tracker.session).toString("hex") });
    }
    const known = this.#kernels.get(diskId);
    const isContinuous =
      known?.session !== undefined && known.session === request.session && known.layout.sizeBytes === sizeBytes && known.lost === 0;
    const session = isContinuous ? request.session : Buffer.from(this.#options.random.bytes(16)).toString("hex");
    const layout = layoutCells(sizeBytes);
    const kernel: Kernel = isContinuous
      ? known
      : { layout, cells: new Uint8Array(layout.topStart + layout.topCount), epoch: 1, session, lost: 0 };
    this.#kernels.set(diskId, kernel);
    const forget = (): void => void this.#kernels.delete(diskId);
    return Promise.resolve({ tracker: trackerOf(diskId, { kernel, isContinuous, forget }), session: session ?? "" });
  }

  removeTrackersExcept(diskIds: readonly string[]): Promise<void> {
    for (const diskId of this.#kernels.keys()) if (!diskIds.includes(diskId)) this.#kernels.delete(diskId);
    return Promise.resolve();
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  async restApplications(signal: AbortSignal): Promise<ApplicationRest> {
    const none = { folder: "/nonexistent", marker: "/nonexistent", ownerUid: 0 };
    return await restApplications(this.#options.scripts ?? none, { clock: this.#options.clock, signal });
  }

  armFreeze(limits: { readonly msMax: number }): Promise<ArmedFreeze> {
    return Promise.resolve({
      writeOut: async () => await this.onWriteOut(),
      freeze: async () => await this.#freeze(limits),
      cancel: () => Promise.resolve(),
    });
  }

  async #freeze(limits: { readonly msMax: number }): Promise<Freeze> {
    const { clock, beforeFreeze } = this.#options;
    await beforeFreeze?.();
    if (this.#frozen !== undefined) throw new Fault("FreezeFailed", "could not freeze: the machine is frozen already");
    const frozen = Promise.withResolvers<void>();
    this.#frozen = frozen;
    this.freezeCount += 1;
    const startMs = clock.monotonicMs();
    const watchdog = new AbortController();
    let endedByWatchdog = false;
    let outcome: { readonly isWhole: boolean; readonly frozenMs: number } | undefined;
    const release = (): void => {
      if (this.#frozen !== frozen) return;
      this.#frozen = undefined;
      frozen.resolve();
    };
    void clock.sleep(limits.msMax, watchdog.signal).then(
      () => {
        endedByWatchdog = true;
        release();
      },
      () => undefined, // Disarmed.
    );
    return {
      tookMs: 0,
      filesystems: [],
      isHeld: () => outcome === undefined && !endedByWatchdog,
      thaw: () => {
        outcome ??= { isWhole: !endedByWatchdog, frozenMs: clock.monotonicMs() - startMs };
        watchdog.abort();
        release();
        return Promise.resolve(outcome);
      },
    };
  }

  uninstall(): Promise<void> {
    this.isUninstalled = true;
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#files.values()) await file.close();
    this.#files.clear();
  }

  #file(diskId: string): FileHandle {
    const file = this.#files.get(diskId);
    if (file === undefined) throw new Fault("NotFound", `the simulated machine has no disk ${diskId}`);
    return file;
  }
}

function trackerOf(
  diskId: string,
  parts: { readonly kernel: Kernel; readonly isContinuous: boolean; readonly forget: () => void },
): ChangeTracker {
  const { kernel } = parts;
  const map = new EpochMap(kernel.layout, kernel.cells, {
    readEpoch: () => kernel.epoch,
    writeEpoch: (epoch) => {
      kernel.epoch = epoch;
    },
    settle: () => undefined, // A write's mark and the epoch it carries are one step here.
  });
  const requireNoLoss = (): void => {
    if (kernel.lost > 0)
      throw new Fault("TrackingRefused", `changes of the disk ${diskId} were lost`, { evidence: { diskId }, retry: "now" });
  };
  return {
    tracking: { rung: "ebpf", reason: parts.isContinuous ? "tracking went on without a gap" : "tracking starts now" },
    isContinuous: parts.isContinuous,
    isBlind: false,
    session: Buffer.from(kernel.session ?? "", "hex"),
    compact: async () => {
      requireNoLoss();
      return await map.compact();
    },
    tick: async () => {
      requireNoLoss();
      return await map.closeEpoch();
    },
    changed: (span) => map.changed(span),
    acknowledge: (until) => map.acknowledge(until),
    remove: () => {
      parts.forget();
      return Promise.resolve();
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
