// Tracks a disk's changes in the kernel: a program at block_rq_complete marks epoch bytes in a shared map that outlives the agent.

import { mkdir, readdir, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { attachToTracepoint, createArrayMap, getPinned, loadProgram, mapMemory, pinObject } from "../kernel/bpf.ts";
import type { SystemCalls } from "../kernel/system-calls.ts";
import { cellLayoutVersion, elementBytes, layoutCells, type CellLayout } from "./cell-layout.ts";
import { EpochMap } from "./epoch-map.ts";
import { waitForTracepoints, waitForTracepointsOnce } from "./grace-wait.ts";
import type { ChangeSpan, ChangeTracker, GranuleRun, Mark, Tracking } from "./tracker.ts";
import { findTracefs, readEventFormat } from "./tracefs.ts";
import { buildTrackingProgram, controlRecord } from "./tracking-program.ts";

export interface EbpfTrackerOptions {
  readonly calls: SystemCalls;
  readonly diskId: string;
  /** (major << 20) | minor */
  readonly device: number;
  readonly sizeBytes: number;
  /** 16 bytes of the tracking session to continue, as the agent's state remembers it. */
  readonly session: Uint8Array | undefined;
  /** 16 fresh bytes for a new session. */
  readonly newSession: Uint8Array;
  /** Reads a little from the device itself: the proof that its events arrive. */
  readonly readProbe: () => Promise<void>;
  /** Folder in bpffs; /sys/fs/bpf/watari unless told. */
  readonly pinFolder?: string;
}

const defaultPinFolder = "/sys/fs/bpf/watari";

interface Objects {
  readonly cellsFd: number;
  readonly controlFd: number;
  /** Descriptors that keep the program attached while the agent lives. */
  readonly heldFds: readonly number[];
  readonly isPinned: boolean;
  readonly isContinuous: boolean;
  readonly whyNot: string;
}

/** Opens or continues tracking of one disk. Throws with words for a person when the kernel does not allow it. */
export async function openEbpfTracker(options: EbpfTrackerOptions): Promise<EbpfTracker> {
  const { calls } = options;
  const layout = layoutCells(options.sizeBytes);
  const folder = join(options.pinFolder ?? defaultPinFolder, options.diskId);
  const canPin = await prepareBpffs(options.pinFolder ?? defaultPinFolder);
  const found = canPin ? continueTracking(options, folder) : { why: "bpffs cannot be mounted, so tracking ends with the agent" };
  const objects = "cellsFd" in found ? found : await startTracking(options, { layout, folder, canPin, why: found.why });
  const cells = mapMemory(calls, objects.cellsFd, layout.elementCount * elementBytes);
  const control = mapMemory(calls, objects.controlFd, controlRecord.bytes);
  const tracker = new EbpfTracker({ calls, layout, diskId: options.diskId, folder, objects, cells, control });
  try {
    await tracker.proveEvents(options.readProbe);
    return tracker;
  } catch (error) {
    await tracker.remove();
    throw error;
  }
}

interface Parts {
  readonly calls: SystemCalls;
  readonly layout: CellLayout;
  readonly diskId: string;
  readonly folder: string;
  readonly objects: Objects;
  readonly cells: { readonly bytes: Uint8Array; readonly unmap: () => void };
  readonly control: { readonly bytes: Uint8Array; readonly unmap: () => void };
}

class EbpfTracker implements ChangeTracker {
  readonly tracking: Tracking;
  readonly isBlind = false;
  readonly isContinuous: boolean;
  readonly #parts: Parts;
  readonly #map: EpochMap;
  readonly #control: DataView;
  #isOpen = true;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.isContinuous = parts.objects.isContinuous;
    this.#control = new DataView(parts.control.bytes.buffer);
    this.tracking = {
      rung: "ebpf",
      reason: parts.objects.isContinuous ? "tracking went on without a gap" : parts.objects.whyNot,
    };
    this.#map = new EpochMap(parts.layout, parts.cells.bytes, {
      readEpoch: () => Atomics.load(parts.control.bytes, controlRecord.epoch),
      writeEpoch: (epoch) => void Atomics.store(parts.control.bytes, controlRecord.epoch, epoch),
      settle: () => waitForTracepointsOnce(parts.calls),
    });
  }

  get session(): Uint8Array {
    return this.#parts.control.bytes.slice(controlRecord.session, controlRecord.session + 16);
  }

  /** Counters for evidence and tests. */
  get counters(): { readonly completions: bigint; readonly lost: bigint; readonly placeless: bigint } {
    return {
      completions: this.#control.getBigUint64(controlRecord.completions, true),
      lost: this.#control.getBigUint64(controlRecord.lost, true),
      placeless: this.#control.getBigUint64(controlRecord.placeless, true),
    };
  }

  async proveEvents(readProbe: () => Promise<void>): Promise<void> {
    const before = this.counters.completions;
    await readProbe();
    waitForTracepoints(this.#parts.calls);
    if (this.counters.completions === before)
      throw new Error("a read of the disk raised no block event, so writes would not be seen either");
  }

  async compact(): Promise<Mark> {
    const mark = await this.#map.compact();
    this.#requireNoLoss();
    return mark;
  }

  async tick(): Promise<Mark> {
    const mark = await this.#map.closeEpoch();
    this.#requireNoLoss();
    return mark;
  }

  changed(span: ChangeSpan): Iterable<GranuleRun> {
    return this.#map.changed(span);
  }

  acknowledge(until: Mark): void {
    this.#map.acknowledge(until);
  }

  async remove(): Promise<void> {
    await rm(this.#parts.folder, { recursive: true, force: true });
    await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const { calls, objects, cells, control } = this.#parts;
    cells.unmap();
    control.unmap();
    for (const fd of [...objects.heldFds, objects.cellsFd, objects.controlFd]) calls.call("close", fd);
  }

  #requireNoLoss(): void {
    const { lost } = this.counters;
    if (lost === 0n) return;
    throw new Fault("TrackingRefused", "could not rely on the changes of a disk: the kernel program could not mark some", {
      evidence: { diskId: this.#parts.diskId, lost: Number(lost) },
      retry: "now",
    });
  }
}

export type { EbpfTracker };

/** Whether pins can be made: bpffs is there, or could be mounted. */
async function prepareBpffs(folder: string): Promise<boolean> {
  const bpffsMagic = 0xcafe_4a11;
  const parent = join(folder, "..");
  const isBpffs = async (): Promise<boolean> => (await statfs(parent).catch(() => undefined))?.type === bpffsMagic;
  if (!(await isBpffs())) {
    if (parent !== "/sys/fs/bpf") return false;
    await runCommand("mount", ["-t", "bpf", "bpf", parent]).catch(() => undefined); // Asked again in the next line.
    if (!(await isBpffs())) return false;
  }
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return true;
}

/** The pinned objects of an earlier agent, when every sign says that they are this disk's and whole. */
function continueTracking(options: EbpfTrackerOptions, folder: string): Objects | { readonly why: string } {
  const { calls, session } = options;
  if (session === undefined) return { why: "tracking starts now" };
  const fds = ["cells", "control", "program", "link"].map((name) => getPinned(calls, join(folder, name)));
  const [cellsFd, controlFd, programFd, linkFd] = fds;
  const dismiss = (why: string): { why: string } => {
    for (const fd of fds) if (fd !== undefined) calls.call("close", fd);
    return { why };
  };
  if (cellsFd === undefined || controlFd === undefined || programFd === undefined || linkFd === undefined)
    return dismiss("the kernel no longer tracks the disk: the machine was restarted or tracking was removed");
  const control = mapMemory(calls, controlFd, controlRecord.bytes);
  const why = whyDoubtful(control.bytes, options, session);
  control.unmap();
  if (why !== undefined) return dismiss(why);
  return { cellsFd, controlFd, heldFds: [programFd, linkFd], isPinned: true, isContinuous: true, whyNot: "" };
}

function whyDoubtful(control: Uint8Array, options: EbpfTrackerOptions, session: Uint8Array): string | undefined {
  const view = new DataView(control.buffer, control.byteOffset);
  if (view.getUint32(controlRecord.layoutVersion, true) !== cellLayoutVersion)
    return "the kernel's record is of another version of the agent";
  if (view.getUint32(controlRecord.device, true) !== options.device) return "the disk has another device number than the tracked one";
  if (view.getBigUint64(controlRecord.sizeBytes, true) !== BigInt(options.sizeBytes)) return "the disk's size has changed";
  if (view.getBigUint64(controlRecord.lost, true) !== 0n) return "the kernel program could not mark some changes";
  if (Buffer.compare(control.subarray(controlRecord.session, controlRecord.session + 16), session) !== 0)
    return "the kernel's record belongs to another tracking session than the agent's state";
  return undefined;
}

async function startTracking(
  options: EbpfTrackerOptions,
  place: { readonly layout: CellLayout; readonly folder: string; readonly canPin: boolean; readonly why: string },
): Promise<Objects> {
  const { calls } = options;
  const format = await readEventFormat(await findTracefs());
  await rm(place.folder, { recursive: true, force: true });
  const cellsFd = createArrayMap(calls, { valueBytes: elementBytes, count: place.layout.elementCount });
  const controlFd = createArrayMap(calls, { valueBytes: controlRecord.bytes, count: 1 });
  writeControl(calls, controlFd, options);
  const code = buildTrackingProgram({ layout: place.layout, device: options.device, fields: format.fields, cellsFd, controlFd });
  const programFd = loadProgram(calls, code);
  const attachment = attachToTracepoint(calls, { eventId: format.eventId, programFd });
  const isPinned = place.canPin && attachment.linkFd !== undefined;
  if (isPinned && attachment.linkFd !== undefined) {
    await mkdir(place.folder, { recursive: true, mode: 0o700 });
    const pins = { cells: cellsFd, control: controlFd, program: programFd, link: attachment.linkFd };
    for (const [name, fd] of Object.entries(pins)) pinObject(calls, join(place.folder, name), fd);
  }
  const heldFds = [programFd, attachment.eventFd, ...(attachment.linkFd === undefined ? [] : [attachment.linkFd])];
  return { cellsFd, controlFd, heldFds, isPinned, isContinuous: false, whyNot: place.why };
}

function writeControl(calls: SystemCalls, controlFd: number, options: EbpfTrackerOptions): void {
  const { bytes, unmap } = mapMemory(calls, controlFd, controlRecord.bytes);
  const view = new DataView(bytes.buffer);
  view.setUint8(controlRecord.epoch, 1);
  view.setUint32(controlRecord.device, options.device, true);
  view.setUint32(controlRecord.layoutVersion, cellLayoutVersion, true);
  view.setBigUint64(controlRecord.sizeBytes, BigInt(options.sizeBytes), true);
  bytes.set(options.newSession, controlRecord.session);
  unmap();
}

/** Ends the tracking of disks that are not in `keep`: their pins would mark cells for ever. */
export async function removePinsExcept(keep: ReadonlySet<string>, pinFolder = defaultPinFolder): Promise<void> {
  const names = await readdir(pinFolder).catch((): string[] => []); // No folder: nothing is pinned.
  for (const name of names) if (!keep.has(name)) await rm(join(pinFolder, name), { recursive: true, force: true });
}
