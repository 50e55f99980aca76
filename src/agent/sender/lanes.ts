// Runs work in a few lanes, each with its own memory: parallel enough to hide a line's latency, bounded.

import { blocksPerFrameMax } from "../../contract/agent-frames.ts";
import { blockBytes, digestBytes } from "../../disk/geometry.ts";

const rawBytes = blocksPerFrameMax * blockBytes;
const digestsBytes = blocksPerFrameMax * digestBytes;
/** A page: more than all heads of a blocks frame, so that a body that grows from the start never reaches raw blocks that it still needs. */
const rawOffset = 4096;
const laneBytes = rawOffset + rawBytes + digestsBytes;

/** One lane's memory; threads may share it. */
export interface Lane {
  /** What was read from the disk, 4 MiB. Starts on a page. */
  readonly raw: Uint8Array;
  /** The body of the frame that is sent; takes the place of raw. */
  readonly body: Uint8Array;
  /** Digests of the blocks in raw. */
  readonly digests: Uint8Array;
}

export function createLanes(count: number): readonly Lane[] {
  // A growable buffer is mapped by page, which direct reads need; a plain one is not.
  return Array.from({ length: count }, () => laneOf(new SharedArrayBuffer(laneBytes, { maxByteLength: laneBytes })));
}

/** The same lane, seen from another thread. */
export function laneOf(memory: SharedArrayBuffer): Lane {
  return {
    raw: new Uint8Array(memory, rawOffset, rawBytes),
    body: new Uint8Array(memory, 0, rawOffset + rawBytes),
    digests: new Uint8Array(memory, rawOffset + rawBytes, digestsBytes),
  };
}

/** Calls `work` for each item with a lane that nobody else uses meanwhile. The first failure ends all lanes. */
export async function runLanes<T>(lanes: readonly Lane[], items: Iterator<T>, work: (item: T, lane: Lane) => Promise<void>): Promise<void> {
  const failing = new AbortController();
  await Promise.all(
    lanes.map(async (lane) => {
      try {
        for (let next = items.next(); !failing.signal.aborted && next.done !== true; next = items.next()) await work(next.value, lane);
      } catch (error) {
        failing.abort();
        throw error;
      }
    }),
  );
}
