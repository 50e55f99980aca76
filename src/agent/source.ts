// What the agent needs of the machine that it runs on. Real and simulated machines differ here and nowhere else.

import type { MachineFacts, ScriptRun, SourceDisk } from "../contract/agent-control.ts";
import type { Fault } from "../contract/errors.ts";
import type { ChangeTracker } from "./changes/tracker.ts";

export interface DiskSpan {
  readonly offset: number;
  readonly into: Uint8Array;
}

/** One opened disk of the source. */
export interface OpenDisk extends AsyncDisposable {
  readonly facts: SourceDisk;
  /** Another value after the disk was taken off and put on again: nobody saw what was written to it meanwhile. */
  readonly attachment: string;
  /**
   * Fills `into` with what is on the device now, never from a cache. Offset and length are multiples of 4 KiB,
   * `into` starts on a page; what lies beyond the end of the disk reads as zeros. Excluded ranges are not masked.
   */
  read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** As read() of each, all at once; none is under way any more on return, whatever became of the others. */
  readMany(spans: readonly DiskSpan[], signal?: AbortSignal): Promise<void>;
}

/** readMany by single reads. The first fault is thrown when all have ended. */
export async function readEach(disk: Pick<OpenDisk, "read">, spans: readonly DiskSpan[], signal?: AbortSignal): Promise<void> {
  const reads = await Promise.allSettled(spans.map(async ({ offset, into }) => await disk.read(offset, into, signal)));
  for (const read of reads) if (read.status === "rejected") throw read.reason;
}

export interface Freeze {
  /** How long the calls that freeze took. */
  readonly tookMs: number;
  /** The same for each filesystem, in the order of the calls. */
  readonly filesystems: readonly { readonly path: string; readonly tookMs: number }[];
  /** Thaws everything. isWhole: nothing had been thawed before this call, so what was read in between is one instant. Twice is fine. */
  thaw(): Promise<{ readonly isWhole: boolean; readonly frozenMs: number }>;
  /** Whether the filesystems are known to be frozen still. */
  isHeld(): boolean;
}

/** Whoever thaws after a crash waits already, and nothing has to be opened or started any more. */
export interface ArmedFreeze {
  /** Writes out what the filesystems hold in memory while writers go on: a freeze does that too, and they stand still meanwhile. */
  writeOut(): Promise<void>;
  /** Freezes every writable filesystem on the disks. Thaws by itself after msMax, and when this process dies. Throws with nothing frozen. */
  freeze(): Promise<Freeze>;
  /** Instead of freeze(). Twice is fine. */
  cancel(): Promise<void>;
}

export interface ApplicationRest {
  /** false: not all could be brought to rest, and those that were go on already. */
  readonly isResting: boolean;
  /** What was called so far. */
  readonly runs: readonly ScriptRun[];
  /** The first thing that went wrong, in ending the rest too. */
  fault(): Fault | undefined;
  /** Lets the applications go on. Twice is fine; never throws. */
  end(): Promise<void>;
}

export interface TrackerRequest {
  /** Session of an earlier run to go on with, hex; undefined starts anew. */
  readonly session: string | undefined;
  /** Whether a sealed point holds the disk. */
  readonly hasBase: boolean;
}

export interface OpenTracker {
  readonly tracker: ChangeTracker;
  /** Hex; to be kept in the agent's state. */
  readonly session: string;
}

export interface Source {
  facts(): Promise<MachineFacts>;
  openDisk(facts: SourceDisk): Promise<OpenDisk>;
  /** Throws Fault TrackingRefused when no rung of the ladder sees changes. */
  openTracker(disk: OpenDisk, request: TrackerRequest): Promise<OpenTracker>;
  /** Ends what earlier runs left tracking, but for these disks. */
  removeTrackersExcept(diskIds: readonly string[]): Promise<void>;
  /** Writes out what the filesystems hold in memory. */
  sync(): Promise<void>;
  /** Asks the guest's applications to bring what they hold to the disk and to rest. Throws only when aborted; nothing rests then. */
  restApplications(signal: AbortSignal): Promise<ApplicationRest>;
  armFreeze(limits: { readonly msMax: number }): Promise<ArmedFreeze>;
  /** Removes the agent's service and files from the machine. */
  uninstall(): Promise<void>;
}
