// The Merkle root of any Disk, read once from start to end; extents that are known to be zero are not read.

import type { Disk } from "./disk.ts";
import { blockIdOf } from "./block-id.ts";
import { toHex, zeroId } from "./digest.ts";
import { blockBytes, blockCountOf, digestBytes, idsPerPage } from "./geometry.ts";
import { idAt, parentIdsOf, rootOfBlockIds } from "./page-tree.ts";

/** Blocks read in one call. */
const readBlockCount = 64;

export interface ComputeRootOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number) => void;
  /** Sees the id of each block in order, and says which one counts for the root. */
  readonly mapId?: (block: number, id: Uint8Array) => Uint8Array;
}

/** Root as in RecoveryPoint: 64 hex digits. Holds 32 bytes per page of the disk. */
export async function computeRoot(disk: Disk, options: ComputeRootOptions = {}): Promise<string> {
  const pageSpan = idsPerPage * blockBytes;
  const buffer = Buffer.allocUnsafe(readBlockCount * blockBytes);
  const pageIds: Uint8Array[] = [];
  for (let pageOffset = 0; pageOffset < disk.sizeBytes; pageOffset += pageSpan) {
    const page = Buffer.alloc(idsPerPage * digestBytes);
    const pageEnd = Math.min(pageOffset + pageSpan, disk.sizeBytes);
    const extents = await disk.extents(pageOffset, pageEnd - pageOffset, options.signal);
    const data = extents.filter(({ kind }) => kind === "data");
    for (let offset = pageOffset; offset < pageEnd; offset += buffer.length) {
      const length = Math.min(buffer.length, pageEnd - offset);
      const firstSlot = (offset - pageOffset) / blockBytes;
      if (data.some((extent) => extent.offset < offset + length && extent.offset + extent.length > offset)) {
        await disk.read(offset, buffer.subarray(0, length), options.signal);
        digestInto(page, firstSlot, buffer, length);
      }
      if (options.mapId === undefined) continue;
      for (let slot = firstSlot; slot < firstSlot + blockCountOf(length); slot++)
        page.set(options.mapId(pageOffset / blockBytes + slot, Buffer.from(idAt(page, slot))), slot * digestBytes);
    }
    pageIds.push(parentIdsOf(page));
    options.onProgress?.(pageEnd);
  }
  if (blockCountOf(disk.sizeBytes) <= idsPerPage) return toHex(pageIds[0] ?? zeroId);
  return rootOfBlockIds(Buffer.concat(pageIds));
}

/** Digests the blocks in the first `length` bytes of `buffer`, the last one padded with zeros in place. */
function digestInto(page: Uint8Array, firstSlot: number, buffer: Buffer, length: number): void {
  const blockCount = blockCountOf(length);
  buffer.fill(0, length, blockCount * blockBytes);
  for (let block = 0; block < blockCount; block++)
    page.set(blockIdOf(buffer.subarray(block * blockBytes, (block + 1) * blockBytes)), (firstSlot + block) * digestBytes);
}
