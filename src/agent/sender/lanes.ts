// Runs work in a few lanes, each with its own memory: parallel enough to hide a line's latency, bounded.

import { blockBytes, digestBytes } from "../../disk/geometry.ts";

/** Blocks of a unit that is announced, half of what a frame may have: more lanes that are smaller fill a long line with less memory on a short one. */
export const blocksPerUnit = 32;
const rawBytes = blocksPerUnit * blockBytes;
const digestsBytes = blocksPerUnit * digestBytes;
/** A page: more than all heads of a blocks frame, so that a body that grows from the start never reaches raw blocks that it still needs. */
const rawOffset = 4096;
/** With the rest of the agent they stay within its memory. */
const lanesMax = 28;
const laneBytes = rawOffset + rawBytes + digestsBytes;

/** One lane's memory; threads may share it. */
export interface Lane {
  /** What was read from the disk, 2 MiB. Starts on a page. */
  readonly raw: Uint8Array;
  /** The body of the frame that is sent; takes the place of raw. */
  readonly body: Uint8Array;
  /** Digests of the blocks in raw. */
  readonly digests: Uint8Array;
}

export interface LanePool {
  readonly lanes: readonly Lane[];
  /** Of these, as many as suffice where the line is short. */
  readonly lanesMin: number;
}

/** Three lanes for each thread hide the line; a long line is given more, within the agent's memory. */
export function createLanePool(threadCount: number): LanePool {
  const lanesMin = Math.max(5, threadCount * 3);
  return { lanes: createLanes(Math.max(lanesMax, lanesMin)), lanesMin };
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

/**
 * Calls `work` for each item with a lane that nobody else uses meanwhile. As many lanes are used as `wanted` says after each item, and never
 * fewer again: memory that no lane has touched costs nothing. The first failure ends all lanes.
 */
export async function runLanes<T>(
  { lanes, wanted }: LaneChoice,
  items: Iterator<T>,
  work: (item: T, lane: Lane) => Promise<void>,
): Promise<void> {
  const failing = new AbortController();
  const running: Promise<void>[] = [];
  const run = async (lane: Lane): Promise<void> => {
    try {
      for (let next = items.next(); !failing.signal.aborted && next.done !== true; next = items.next()) {
        await work(next.value, lane);
        startWanted();
      }
    } catch (error) {
      failing.abort();
      throw error;
    }
  };
  const startWanted = (): void => {
    while (running.length < Math.min(Math.max(1, wanted()), lanes.length) && !failing.signal.aborted) {
      const lane = lanes[running.length];
      if (lane === undefined) return;
      const ended = run(lane);
      ended.catch(() => undefined); // Awaited below, once those before it have ended.
      running.push(ended);
    }
  };
  startWanted();
  // More may be started while these are awaited.
  for (let index = 0; index < running.length; index++) await Promise.allSettled([running[index]]);
  await Promise.all(running);
}

export interface LaneChoice {
  readonly lanes: readonly Lane[];
  readonly wanted: () => number;
}
