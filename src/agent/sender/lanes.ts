// Runs work in a few lanes, each with its own page-aligned buffer: parallel enough to hide a line's latency, bounded in memory.

import { blocksPerFrameMax } from "../../contract/agent-frames.ts";
import { blockBytes } from "../../disk/geometry.ts";
import { allocatePageAligned } from "../kernel/page-aligned.ts";

const laneBytes = blocksPerFrameMax * blockBytes;
const laneCountDefault = 4;

/** Buffers of 4 MiB, one a lane. */
export function createLaneBuffers(count = laneCountDefault): readonly Uint8Array[] {
  return Array.from({ length: count }, () => allocatePageAligned(laneBytes));
}

/** Calls `work` for each item with a buffer that nobody else uses meanwhile. The first failure ends all lanes. */
export async function runLanes<T>(
  buffers: readonly Uint8Array[],
  items: Iterator<T>,
  work: (item: T, buffer: Uint8Array) => Promise<void>,
): Promise<void> {
  const failing = new AbortController();
  await Promise.all(
    buffers.map(async (buffer) => {
      try {
        for (let next = items.next(); !failing.signal.aborted && next.done !== true; next = items.next()) await work(next.value, buffer);
      } catch (error) {
        failing.abort();
        throw error;
      }
    }),
  );
}
