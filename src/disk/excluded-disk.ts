// A disk with ranges that read as zeros: what is not replicated (swap, for one) takes no part in content or roots.

import type { Disk, Extent } from "./disk.ts";
import { pushExtent } from "./extents.ts";
import { assertInside } from "./range.ts";

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** Wraps `disk`; the wrapper owns it and closes it. Ranges may overlap and may end past the disk. */
export function withExcludedRanges(disk: Disk, excluded: readonly ByteRange[]): Disk {
  const ranges = joinRanges(excluded);
  return {
    sizeBytes: disk.sizeBytes,
    read: async (offset, into, signal) => {
      await disk.read(offset, into, signal);
      clearExcluded(ranges, offset, into);
    },
    extents: async (offset, length, signal) => {
      assertInside(disk, offset, length);
      return coverExcluded(ranges, await disk.extents(offset, length, signal));
    },
    [Symbol.asyncDispose]: async () => await disk[Symbol.asyncDispose](),
  };
}

/** Sets to zero what of `bytes`, which lie at `offset` on the disk, is excluded. */
function clearExcluded(excluded: readonly ByteRange[], offset: number, bytes: Uint8Array): void {
  for (const range of excluded) {
    const from = Math.max(0, range.offset - offset);
    const to = Math.min(bytes.length, range.offset + range.length - offset);
    if (to > from) bytes.fill(0, from, to);
  }
}

function joinRanges(ranges: readonly ByteRange[]): ByteRange[] {
  const joined: ByteRange[] = [];
  for (const range of ranges.filter(({ length }) => length > 0).sort((a, b) => a.offset - b.offset)) {
    const last = joined.at(-1);
    if (last === undefined || range.offset > last.offset + last.length) joined.push(range);
    else joined[joined.length - 1] = { offset: last.offset, length: Math.max(last.length, range.offset + range.length - last.offset) };
  }
  return joined;
}

function coverExcluded(ranges: readonly ByteRange[], extents: readonly Extent[]): Extent[] {
  const covered: Extent[] = [];
  for (const extent of extents) {
    let at = extent.offset;
    const end = extent.offset + extent.length;
    for (const range of ranges) {
      const from = Math.max(at, range.offset);
      const to = Math.min(end, range.offset + range.length);
      if (to <= from) continue;
      pushExtent(covered, { offset: at, length: from - at, kind: extent.kind });
      pushExtent(covered, { offset: from, length: to - from, kind: "zero" });
      at = to;
    }
    pushExtent(covered, { offset: at, length: end - at, kind: extent.kind });
  }
  return covered;
}
