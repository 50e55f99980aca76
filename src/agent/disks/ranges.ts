// Arithmetic on byte ranges and granule runs: what is excluded, and what a list of changes means without it.

import { granuleBytes } from "../../disk/geometry.ts";
import type { GranuleRun } from "../changes/tracker.ts";

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** The part of a range that covers whole granules; undefined when there is none. */
export function alignInward(range: ByteRange): ByteRange | undefined {
  const start = Math.ceil(range.offset / granuleBytes) * granuleBytes;
  const end = Math.floor((range.offset + range.length) / granuleBytes) * granuleBytes;
  return end > start ? { offset: start, length: end - start } : undefined;
}

/** Sorted ranges that do not touch and cover the same bytes. */
export function joinRanges(ranges: readonly ByteRange[]): ByteRange[] {
  const sorted = ranges.filter((range) => range.length > 0).sort((a, b) => a.offset - b.offset);
  const joined: { offset: number; length: number }[] = [];
  for (const range of sorted) {
    const last = joined.at(-1);
    if (last !== undefined && range.offset <= last.offset + last.length)
      last.length = Math.max(last.length, range.offset + range.length - last.offset);
    else joined.push({ ...range });
  }
  return joined;
}

/** Bytes that exactly one of the two lists covers. Both are sorted and do not overlap. */
export function differingRanges(one: readonly ByteRange[], other: readonly ByteRange[]): ByteRange[] {
  const edges = [...one, ...other].flatMap((range) => [range.offset, range.offset + range.length]).sort((a, b) => a - b);
  const differing: ByteRange[] = [];
  for (let index = 0; index + 1 < edges.length; index += 2) {
    const [offset, end] = [edges[index] ?? 0, edges[index + 1] ?? 0];
    if (end > offset) differing.push({ offset, length: end - offset });
  }
  return joinRanges(differing);
}

/** The runs without the granules of the excluded ranges. Both in rising order; ranges are granule-aligned. */
export function* withoutExcluded(runs: Iterable<GranuleRun>, excluded: readonly ByteRange[]): Iterable<GranuleRun> {
  for (const run of runs) {
    let first = run.first;
    const end = run.first + run.count;
    for (const range of excluded) {
      const start = range.offset / granuleBytes;
      const stop = (range.offset + range.length) / granuleBytes;
      if (stop <= first || start >= end) continue;
      if (start > first) yield { first, count: start - first };
      first = Math.max(first, stop);
    }
    if (first < end) yield { first, count: end - first };
  }
}

/** Runs that cover every granule of either list, in rising order. */
export function joinRuns(lists: readonly (readonly GranuleRun[])[]): GranuleRun[] {
  const ranges = lists.flat().map((run) => ({ offset: run.first, length: run.count }));
  return joinRanges(ranges).map((range) => ({ first: range.offset, count: range.length }));
}

export function runsOfRanges(ranges: readonly ByteRange[]): GranuleRun[] {
  return ranges.map((range) => ({ first: range.offset / granuleBytes, count: range.length / granuleBytes }));
}

/** Sets to zero what of `bytes`, which lie at `offset`, is excluded. */
export function maskExcluded(bytes: Uint8Array, offset: number, excluded: readonly ByteRange[]): void {
  for (const range of excluded) {
    const start = Math.max(range.offset - offset, 0);
    const end = Math.min(range.offset + range.length - offset, bytes.length);
    if (end > start) bytes.fill(0, start, end);
  }
}
