// Extents of a disk as base:allocation runs, joined and bounded.

import type { Disk } from "../disk/disk.ts";
import { statusBytesMax, statusExtentsMax } from "./limits.ts";
import { allocationStates } from "./protocol.ts";

export interface StatusRun {
  readonly lengthBytes: number;
  readonly state: number;
}

/** Runs from `offset` on, never past the asked length, at least one. A client asks again for what is missing. */
export async function blockStatus(
  disk: Disk,
  asked: { readonly offset: number; readonly lengthBytes: number; readonly isOne: boolean },
  signal: AbortSignal,
): Promise<readonly StatusRun[]> {
  const extents = await disk.extents(asked.offset, Math.min(asked.lengthBytes, statusBytesMax), signal);
  const runs: { lengthBytes: number; state: number }[] = [];
  for (const { length, kind } of extents) {
    const state = kind === "zero" ? allocationStates.holeOfZeros : allocationStates.data;
    const last = runs.at(-1);
    if (last?.state === state) last.lengthBytes += length;
    else if (runs.length === (asked.isOne ? 1 : statusExtentsMax)) break;
    else runs.push({ lengthBytes: length, state });
  }
  return runs;
}
