// Patches: what changed in a block or page against a base. Bytes: docs/design/vault-format.md, Entry.

import { assert } from "../base/assert.ts";
import { blockIdOf } from "../disk/block-id.ts";
import { asBuffer, idOf } from "../disk/digest.ts";
import { blockBytes, digestBytes, granuleBytes, granulesPerBlock, idsPerPage } from "../disk/geometry.ts";
import { pageBytes } from "../disk/page-tree.ts";

export type EntryKind = "block" | "page";

/** A patch on a patch on a …: at most this many. */
export const depthMax = 8;

interface KindSizes {
  readonly contentBytes: number;
  readonly granuleBytes: number;
  readonly maskBytes: number;
  /** More changed granules than this are stored full: the patch would save too little. */
  readonly granulesMax: number;
}

export const kindSizes: Readonly<Record<EntryKind, KindSizes>> = {
  block: { contentBytes: blockBytes, granuleBytes, maskBytes: granulesPerBlock / 8, granulesMax: 11 },
  page: { contentBytes: pageBytes, granuleBytes: digestBytes, maskBytes: idsPerPage / 8, granulesMax: 88 },
};

/** Id of the whole content of a block or page. */
export function contentIdOf(kind: EntryKind, content: Uint8Array): Uint8Array {
  return kind === "block" ? blockIdOf(content) : idOf(content);
}

/** A granule of a block or page, and what it becomes. */
export interface ChangedGranule {
  readonly index: number;
  readonly bytes: Uint8Array;
}

/** Granules of `after` that differ from `before`, by index. */
export function changedGranules(kind: EntryKind, before: Uint8Array, after: Uint8Array): ChangedGranule[] {
  const sizes = kindSizes[kind];
  assert(before.length === sizes.contentBytes && after.length === sizes.contentBytes, `a ${kind} has ${sizes.contentBytes} bytes`);
  const changed: ChangedGranule[] = [];
  const view = asBuffer(after);
  for (let index = 0, at = 0; at < sizes.contentBytes; index++, at += sizes.granuleBytes) {
    const end = at + sizes.granuleBytes;
    if (view.compare(before, at, end, at, end) !== 0) changed.push({ index, bytes: view.subarray(at, end) });
  }
  return changed;
}

/** Patch on the content `baseId`; undefined when it would hardly be smaller than the content. `changed` is in order of index. */
export function encodePatch(kind: EntryKind, baseId: Uint8Array, changed: readonly ChangedGranule[]): Buffer | undefined {
  const sizes = kindSizes[kind];
  if (changed.length > sizes.granulesMax) return undefined;
  const headBytes = digestBytes + sizes.maskBytes;
  const patch = Buffer.alloc(headBytes + changed.length * sizes.granuleBytes);
  patch.set(baseId);
  for (const [order, { index, bytes }] of changed.entries()) {
    const maskAt = headBytes - 1 - (index >> 3);
    patch[maskAt] = (patch[maskAt] ?? 0) | (1 << (index & 7));
    patch.set(bytes, headBytes + order * sizes.granuleBytes);
  }
  return patch;
}

/** Id of the content that a patch stands on; undefined when the bytes cannot be a patch. */
export function patchBaseId(kind: EntryKind, patch: Uint8Array): Uint8Array | undefined {
  const sizes = kindSizes[kind];
  const headBytes = digestBytes + sizes.maskBytes;
  if (patch.length < headBytes) return undefined;
  let granuleCount = 0;
  for (const byte of patch.subarray(digestBytes, headBytes)) for (let bits = byte; bits !== 0; bits &= bits - 1) granuleCount += 1;
  return patch.length === headBytes + granuleCount * sizes.granuleBytes ? patch.subarray(0, digestBytes) : undefined;
}

/** Writes the granules of a patch, whose form patchBaseId has proved, into the content of its base. */
export function applyPatch(kind: EntryKind, content: Uint8Array, patch: Uint8Array): void {
  const sizes = kindSizes[kind];
  const headBytes = digestBytes + sizes.maskBytes;
  let from = headBytes;
  for (let granule = 0; granule < sizes.maskBytes * 8; granule++) {
    const byte = patch[headBytes - 1 - (granule >> 3)] ?? 0;
    if ((byte & (1 << (granule & 7))) === 0) continue;
    content.set(patch.subarray(from, from + sizes.granuleBytes), granule * sizes.granuleBytes);
    from += sizes.granuleBytes;
  }
}
