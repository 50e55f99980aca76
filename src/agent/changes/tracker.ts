// ChangeTracker: which granules of a disk changed since when. What it cannot know it must call changed, never clean.

import type { AgentState } from "../../contract/agent-control.ts";

export type Tracking = AgentState["disks"][number]["tracking"];

/** A moment that tick() has given. Marks of one tracker are ordered by the calls that gave them. */
export type Mark = number & { readonly mark: unique symbol };

/** Consecutive granules of 4 KiB. */
export interface GranuleRun {
  readonly first: number;
  readonly count: number;
}

export interface ChangeSpan {
  /** Changes that came after this mark; all that are not acknowledged unless given. */
  readonly since?: Mark;
  readonly until: Mark;
}

export interface ChangeTracker extends AsyncDisposable {
  readonly tracking: Tracking;
  /**
   * Whether every change since the last acknowledge() of the session named at open was seen. False after a reboot,
   * a lost event, another size: then only a pass over the whole disk gives a new base, with changes seen from now on.
   */
  readonly isContinuous: boolean;
  /** Sees nothing: changed() is the whole disk, always. Such a disk is known only by reading it while nothing can write. */
  readonly isBlind: boolean;
  /** Session to name at the next open, to go on from here. */
  readonly session: Uint8Array;
  /** Joins everything not acknowledged into one span, so that marks cannot run out. All earlier marks become void. */
  compact(): Promise<Mark>;
  /** Every write that completed before the call lies at or before the mark given. Rejects with a Fault when events were lost. */
  tick(): Promise<Mark>;
  /** Runs in rising order that do not touch each other. */
  changed(span: ChangeSpan): Iterable<GranuleRun>;
  /** Forgets changes at or before `until` whose granule was not written again. */
  acknowledge(until: Mark): void;
  /** Stops tracking and removes what the kernel holds for it. Disposal alone leaves tracking on where the kernel allows. */
  remove(): Promise<void>;
}

export function countGranules(runs: Iterable<GranuleRun>): number {
  let count = 0;
  for (const run of runs) count += run.count;
  return count;
}
