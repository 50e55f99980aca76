// Lists of extents: built run by run, always joined where they touch.

import type { Extent } from "./disk.ts";
import { isAllZero } from "./digest.ts";
import { granuleBytes } from "./geometry.ts";

/** Appends a run and joins it to the last extent when it continues that one. Runs come in order; an empty run is no extent. */
export function pushExtent(extents: Extent[], next: Extent): void {
  if (next.length === 0) return;
  const last = extents.at(-1);
  if (last !== undefined && last.kind === next.kind && last.offset + last.length === next.offset)
    extents[extents.length - 1] = { ...last, length: last.length + next.length };
  else extents.push(next);
}

/** Extents of bytes in memory, looked at granule by granule. */
export function extentsOf(bytes: Uint8Array, offset: number, length: number): Extent[] {
  const extents: Extent[] = [];
  const end = offset + length;
  for (let at = offset; at < end;) {
    const next = Math.min(end, (Math.floor(at / granuleBytes) + 1) * granuleBytes);
    pushExtent(extents, { offset: at, length: next - at, kind: isAllZero(bytes.subarray(at, next)) ? "zero" : "data" });
    at = next;
  }
  return extents;
}

/** The part of `extents` inside [offset, offset + length). */
export function clipExtents(extents: Iterable<Extent>, offset: number, length: number): Extent[] {
  const clipped: Extent[] = [];
  for (const extent of extents) {
    const from = Math.max(offset, extent.offset);
    const to = Math.min(offset + length, extent.offset + extent.length);
    if (to > from) pushExtent(clipped, { offset: from, length: to - from, kind: extent.kind });
  }
  return clipped;
}
