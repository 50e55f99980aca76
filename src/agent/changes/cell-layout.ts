// Where a disk's change cells lie: fine cells, then 2 MiB cells, then 1 GiB cells, in one row of equal elements.

import { assert } from "../../base/assert.ts";
import { diskBytesMax, granuleBytes } from "../../disk/geometry.ts";

/** Part of the kernel's record of a tracked disk; raised when the layout or the program changes. */
export const cellLayoutVersion = 1;
/** One map element. Kernels differ in the largest value of an array map; 1 MiB is allowed everywhere. */
export const elementBytes = 1 << 20;
export const elementShift = 20;
/** A request marks at most so many cells of one layer; a longer one goes to the next coarser layer. */
export const cellsPerRequestMax = 512;
const fineCellsMax = 1 << 24;
const fineShiftMax = 16;
export const midShift = 21;
export const topShift = 30;

export interface CellLayout {
  readonly sizeBytes: number;
  /** log2 of the bytes that one fine cell stands for: 12 up to 64 GiB, at most 16. */
  readonly fineShift: number;
  readonly fineCount: number;
  readonly midStart: number;
  readonly midCount: number;
  readonly topStart: number;
  readonly topCount: number;
  readonly elementCount: number;
}

export function layoutCells(sizeBytes: number): CellLayout {
  assert(sizeBytes > 0 && sizeBytes <= diskBytesMax, "the disk has a size that is accepted");
  let fineShift = Math.log2(granuleBytes);
  while (fineShift < fineShiftMax && sizeBytes / 2 ** fineShift > fineCellsMax) fineShift += 1;
  const fineCount = Math.ceil(sizeBytes / 2 ** fineShift);
  const midCount = Math.ceil(sizeBytes / 2 ** midShift);
  const topCount = Math.ceil(sizeBytes / 2 ** topShift);
  return {
    sizeBytes,
    fineShift,
    fineCount,
    midStart: fineCount,
    midCount,
    topStart: fineCount + midCount,
    topCount,
    elementCount: Math.ceil((fineCount + midCount + topCount) / elementBytes),
  };
}

/** The cells that a write of `length` bytes at `offset` marks: the rule that the kernel program carries out too. */
export function cellsOfWrite(layout: CellLayout, offset: number, length: number): { readonly first: number; readonly last: number } {
  const end = offset + length - 1;
  const layers = [
    { start: 0, shift: layout.fineShift },
    { start: layout.midStart, shift: midShift },
    { start: layout.topStart, shift: topShift },
  ];
  for (const { start, shift } of layers) {
    const first = Math.floor(offset / 2 ** shift);
    const last = Math.floor(end / 2 ** shift);
    if (last - first < cellsPerRequestMax || shift === topShift) return { first: start + first, last: start + last };
  }
  throw new Error("assertion failed: the top layer takes every write");
}
