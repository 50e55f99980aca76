// Tracks a disk's changes through a trace instance: the kernel queues completed requests, the agent marks their cells, and an overrun is seen.

import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { SystemCalls } from "../kernel/system-calls.ts";
import {
  createCellFile,
  epochOf,
  findCellFile,
  isLost,
  markLost,
  removeCellFilesExcept,
  sessionOf,
  setDraining,
  type CellFile,
  type CellFileWanted,
} from "./cell-file.ts";
import { cellsOfWrite, layoutCells, type CellLayout } from "./cell-layout.ts";
import { EpochMap } from "./epoch-map.ts";
import { waitForTracepoints, waitForTracepointsOnce } from "./grace-wait.ts";
import { readRingPage, type PageFormat } from "./ring-page.ts";
import { createInstance, findInstance, findTracefs, readEventFormat, readPageFormat, removeInstancesExcept } from "./tracefs.ts";
import type { TraceInstance } from "./tracefs.ts";
import type { ChangeSpan, ChangeTracker, GranuleRun, Mark, Tracking } from "./tracker.ts";
import type { EventFields } from "./tracking-program.ts";

export interface TracefsTrackerOptions {
  readonly calls: SystemCalls;
  readonly clock: Clock;
  readonly diskId: string;
  /** (major << 20) | minor */
  readonly device: number;
  readonly sizeBytes: number;
  readonly session: Uint8Array | undefined;
  readonly newSession: Uint8Array;
  readonly readProbe: () => Promise<void>;
  /** Why the rung above cannot be used. */
  readonly whyNotBetter: string;
  /** Kilobytes of buffer for each processor. */
  readonly ringKilobytes: number;
  /** Folder of a memory filesystem; /run/watari-agent-changes unless told. */
  readonly cellFolder?: string;
}

const defaultCellFolder = "/run/watari-agent-changes";
const drainMsMin = 10;
const drainMsMax = 200;
const sectorShift = 9;
const letterR = 0x52;

/** Opens or continues tracking of one disk. Throws with words for a person when the kernel does not allow it. */
export async function openTracefsTracker(options: TracefsTrackerOptions): Promise<ChangeTracker> {
  const tracefs = await findTracefs();
  const kernel = { ...(await readEventFormat(tracefs)), page: await readPageFormat(tracefs) };
  const wanted: CellFileWanted = {
    folder: options.cellFolder ?? defaultCellFolder,
    diskId: options.diskId,
    device: options.device,
    layout: layoutCells(options.sizeBytes),
  };
  const found = await continueTracking(options, { tracefs, wanted });
  if (!("why" in found)) {
    const reader = new EventReader({ ...found, kernel, wanted });
    return new TracefsTracker(options, { reader, reason: "tracking went on without a gap", isContinuous: true });
  }
  const instance = await createInstance(tracefs, { name: options.diskId, ringKilobytes: options.ringKilobytes });
  try {
    const file = await createCellFile(options.calls, wanted, options.newSession);
    const reader = new EventReader({ instance, file, kernel, wanted });
    await proveEvents(options, { instance, reader });
    await narrowFilter(instance, options.device);
    return new TracefsTracker(options, { reader, reason: found.why, isContinuous: false });
  } catch (error) {
    await instance.remove();
    throw error;
  }
}

/** Ends the tracking of disks that are not in `keep`. */
export async function removeTracesExcept(keep: ReadonlySet<string>, cellFolder = defaultCellFolder): Promise<void> {
  await removeInstancesExcept(keep);
  await removeCellFilesExcept(cellFolder, keep);
}

function filtersOf(device: number): { readonly all: string; readonly writes: string } {
  return { all: `dev == ${device}`, writes: `dev == ${device} && !(rwbs ~ "R*")` };
}

async function continueTracking(
  options: TracefsTrackerOptions,
  place: { readonly tracefs: string; readonly wanted: CellFileWanted },
): Promise<{ readonly instance: TraceInstance; readonly file: CellFile } | { readonly why: string }> {
  if (options.session === undefined) return { why: "tracking starts now" };
  const instance = await findInstance(place.tracefs, options.diskId);
  if (instance === undefined) return { why: "the kernel no longer tracks the disk: the machine was restarted or tracking was removed" };
  const why = await instance.whyDoubtful(Object.values(filtersOf(options.device)));
  const file = why === undefined ? await findCellFile(options.calls, place.wanted, options.session) : { why };
  if (!("why" in file)) return { instance, file };
  instance.close();
  return file;
}

/** A direct read of the disk must raise an event: then its writes do too. */
async function proveEvents(
  options: TracefsTrackerOptions,
  parts: { readonly instance: TraceInstance; readonly reader: EventReader },
): Promise<void> {
  await parts.instance.setFilter(filtersOf(options.device).all);
  await parts.instance.begin();
  await options.readProbe();
  waitForTracepoints(options.calls);
  parts.reader.drain();
  if (parts.reader.eventCount === 0) throw new Error("a read of the disk raised no block event, so writes would not be seen either");
}

/** Reads are kept out of the buffers where the kernel can do that; else they are passed over when they are read. */
async function narrowFilter(instance: TraceInstance, device: number): Promise<void> {
  const filters = filtersOf(device);
  await instance.setFilter(filters.writes).catch(() => instance.setFilter(filters.all)); // Old kernels know no negation.
}

interface ReaderParts {
  readonly instance: TraceInstance;
  readonly file: CellFile;
  readonly kernel: { readonly eventId: number; readonly fields: EventFields; readonly page: PageFormat };
  readonly wanted: CellFileWanted;
}

/** Moves events from the kernel's buffers into the cells. */
class EventReader {
  readonly instance: TraceInstance;
  readonly file: CellFile;
  readonly layout: CellLayout;
  readonly #parts: ReaderParts;
  readonly #page: Uint8Array;
  readonly #view: DataView;
  eventCount = 0;
  placelessCount = 0;

  constructor(parts: ReaderParts) {
    this.instance = parts.instance;
    this.file = parts.file;
    this.layout = parts.wanted.layout;
    this.#parts = parts;
    this.#page = new Uint8Array(parts.kernel.page.pageBytes);
    this.#view = new DataView(this.#page.buffer);
  }

  /** Answers how many events came. Between the two marks a kill loses them, which the next run sees. */
  drain(): number {
    const before = this.eventCount;
    setDraining(this.file, "begun");
    try {
      for (const length of this.instance.pages(this.#page)) this.#takePage(length);
    } catch {
      markLost(this.file); // Told by the next tick, which throws for it.
    }
    setDraining(this.file, "ended");
    return this.eventCount - before;
  }

  #takePage(length: number): void {
    const { page } = this.#parts.kernel;
    const { records, isLossy } = readRingPage(this.#view, page);
    if (isLossy || length < page.dataOffset) markLost(this.file);
    const epoch = epochOf(this.file).read();
    for (const at of records) this.#takeEvent(at, epoch);
  }

  #takeEvent(at: number, epoch: number): void {
    const { kernel, wanted } = this.#parts;
    const { fields } = kernel;
    if (this.#view.getUint16(at, true) !== kernel.eventId) return;
    if (this.#view.getUint32(at + fields.device, true) !== wanted.device) return;
    this.eventCount += 1;
    const sectorCount = this.#view.getUint32(at + fields.sectorCount, true);
    if (this.#view.getUint8(at + fields.operation) === letterR || sectorCount === 0) return;
    const sector = Number(this.#view.getBigUint64(at + fields.sector, true));
    const sizeSectors = wanted.layout.sizeBytes / 2 ** sectorShift;
    if (sector >= sizeSectors) this.placelessCount += 1;
    else if (sector + sectorCount > sizeSectors) markLost(this.file);
    else {
      const { first, last } = cellsOfWrite(wanted.layout, sector * 2 ** sectorShift, sectorCount * 2 ** sectorShift);
      for (let cell = first; cell <= last; cell++) Atomics.store(this.file.cells, cell, epoch);
    }
  }
}

class TracefsTracker implements ChangeTracker {
  readonly tracking: Tracking;
  readonly isBlind = false;
  readonly isContinuous: boolean;
  readonly #options: TracefsTrackerOptions;
  readonly #reader: EventReader;
  readonly #map: EpochMap;
  readonly #ending = new AbortController();
  readonly #draining: Promise<void>;

  constructor(
    options: TracefsTrackerOptions,
    opened: { readonly reader: EventReader; readonly reason: string; readonly isContinuous: boolean },
  ) {
    this.#options = options;
    this.#reader = opened.reader;
    this.isContinuous = opened.isContinuous;
    this.tracking = { rung: "tracefs", reason: `${opened.reason}; not eBPF: ${options.whyNotBetter}`.slice(0, 400) };
    const epoch = epochOf(opened.reader.file);
    this.#map = new EpochMap(opened.reader.layout, opened.reader.file.cells, {
      readEpoch: epoch.read,
      writeEpoch: epoch.write,
      settle: () => undefined, // Only this thread marks cells.
    });
    this.#draining = this.#drainUntilEnd();
  }

  get session(): Uint8Array {
    return sessionOf(this.#reader.file);
  }

  async compact(): Promise<Mark> {
    await this.#takeAll();
    return await this.#map.compact();
  }

  async tick(): Promise<Mark> {
    await this.#takeAll();
    return await this.#map.closeEpoch();
  }

  changed(span: ChangeSpan): Iterable<GranuleRun> {
    return this.#map.changed(span);
  }

  acknowledge(until: Mark): void {
    this.#map.acknowledge(until);
  }

  async remove(): Promise<void> {
    await this.#end();
    await this.#reader.instance.remove();
    await this.#reader.file.remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ending.signal.aborted) return;
    await this.#end();
    if (!this.#reader.file.isDurable) return await this.#reader.instance.remove();
    this.#reader.instance.close();
    this.#reader.file.close();
  }

  /** Everything that completed before the call is in the cells afterwards, or the call throws. */
  async #takeAll(): Promise<void> {
    const { instance, file } = this.#reader;
    await waitForTracepointsOnce(this.#options.calls);
    await instance.openPipes();
    this.#reader.drain();
    const { all, writes } = filtersOf(this.#options.device);
    const why = isLost(file) ? "changes were lost" : await instance.whyDoubtful([all, writes]);
    if (why === undefined) return;
    markLost(file);
    ringFactors.set(this.#options.diskId, Math.min(ringFactorMax, ringFactorOf(this.#options.diskId) * 2));
    throw new Fault("TrackingRefused", `could not rely on the changes of a disk: ${why}`, {
      evidence: { diskId: this.#options.diskId, ringKilobytes: this.#options.ringKilobytes, why },
      retry: "now",
    });
  }

  async #end(): Promise<void> {
    this.#ending.abort();
    await this.#draining;
  }

  /** Often while much comes, seldom while nothing does. */
  async #drainUntilEnd(): Promise<void> {
    const { signal } = this.#ending;
    let waitMs = drainMsMax / 4;
    while (!signal.aborted) {
      const slept = await this.#options.clock.sleep(waitMs, signal).then(
        () => true,
        () => false,
      );
      if (!slept) return;
      const count = this.#reader.drain();
      const roomEvents = this.#options.ringKilobytes * 8; // An event takes under 128 bytes.
      waitMs = count > roomEvents / 8 ? drainMsMin : count > 0 ? drainMsMax / 4 : drainMsMax;
    }
  }
}

const ringFactorMax = 16;
/** How much larger a disk's buffers became because they overran. */
const ringFactors = new Map<string, number>();

export function ringFactorOf(diskId: string): number {
  return ringFactors.get(diskId) ?? 1;
}
