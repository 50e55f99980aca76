// A disk of a sealed recovery point: every block is checked against its digest before it is given.

import { assert } from "../base/assert.ts";
import type { Disk, Extent } from "../disk/disk.ts";
import { idFromHex, isZeroId } from "../disk/digest.ts";
import { clipExtents, pushExtent } from "../disk/extents.ts";
import { blockBytes, blockCountOf, idsPerPage } from "../disk/geometry.ts";
import { findLeafPage, idAt } from "../disk/page-tree.ts";
import { assertInside } from "../disk/range.ts";
import type { DigestRows } from "./digest-rows.ts";
import type { Entries } from "./entries.ts";
import type { EntryReader } from "./entry-reader.ts";
import type { BlockWish, ReadPool } from "./read-pool.ts";

/** Blocks that one call reads together. */
const batchBlocks = 64;
/** Read ahead of a reader that goes from start to end. */
const readAheadBlocks = 32;
/** Pages of ids that are kept: those of 16 GiB, in 8 MiB. */
const leafPagesMax = 2048;
/** A block of which a part was read is kept whole when another part is read while so many others were. */
const touchedMax = 256;

/** A block, or a part of one, that is to be read. */
interface Piece {
  readonly id: Uint8Array;
  readonly block: number;
  readonly into: Uint8Array;
  readonly skipBytes: number;
}

export interface VaultDiskParts {
  readonly reader: EntryReader;
  readonly entries: Entries;
  readonly pool: ReadPool;
  readonly digestRows: DigestRows;
}

export class VaultDisk implements Disk {
  readonly sizeBytes: number;
  readonly #reader: EntryReader;
  readonly #entries: Entries;
  readonly #pool: ReadPool;
  readonly #digestRows: DigestRows;
  readonly #tree: Parameters<typeof findLeafPage>[0];
  /** By index, oldest first; undefined for a page of zero ids. */
  readonly #leafPages = new Map<number, Uint8Array | undefined>();
  /** Blocks of which parts were read, oldest first. */
  readonly #touched = new Set<number>();
  #nextOffset = -1;
  #reading = 0;
  #ahead: { readonly fromBlock: number; readonly done: Promise<void> } | undefined;

  constructor({ reader, entries, pool, digestRows }: VaultDiskParts, disk: { readonly sizeBytes: number; readonly root: string }) {
    this.sizeBytes = disk.sizeBytes;
    this.#reader = reader;
    this.#entries = entries;
    this.#pool = pool;
    this.#digestRows = digestRows;
    this.#tree = {
      root: idFromHex(disk.root),
      blockCount: blockCountOf(disk.sizeBytes),
      loadPage: async (id) => await reader.load("page", id),
    };
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    assertInside(this, offset, into.length);
    const end = offset + into.length;
    this.#reading += 1;
    try {
      const near = this.#readNear(offset, into);
      if (near !== undefined && (await near)) return;
      for (let at = offset; at < end;) {
        signal?.throwIfAborted();
        const batchEnd = Math.min(end, (Math.floor(at / blockBytes) + batchBlocks) * blockBytes);
        await this.#readBatch(at, into.subarray(at - offset, batchEnd - offset));
        at = batchEnd;
      }
    } finally {
      this.#reading -= 1;
    }
    // Who asks for several things at once is ahead by itself.
    if (this.#reading === 0) this.#readAhead(offset, end);
  }

  /**
   * A part of one block, by the shortest way: all that is to be known of it is in memory, and nothing else is likely to be read of it.
   * Undefined, or false, when it is to be read another way.
   */
  #readNear(offset: number, into: Uint8Array): Promise<boolean> | undefined {
    const block = Math.floor(offset / blockBytes);
    const skipBytes = offset - block * blockBytes;
    const pageIndex = Math.floor(block / idsPerPage);
    const isPart = into.length > 0 && into.length < blockBytes && skipBytes + into.length <= blockBytes;
    if (!isPart || offset === this.#nextOffset || !this.#leafPages.has(pageIndex) || !this.#entries.isNear) return undefined;
    const page = this.#leafPages.get(pageIndex);
    if (isZeroIn(page, block) || page === undefined || this.#touched.has(block)) return undefined;
    const id = idAt(page, block % idsPerPage);
    if (this.#reader.atHand("block", id) !== undefined) return undefined;
    const chain = this.#entries.findChain("block", id);
    if (chain === undefined) return undefined;
    this.#nextOffset = offset + into.length;
    this.#touchAgain(block);
    return this.#pool.read([{ id, chain, into, skipBytes }], this.#digestRows.told(chain));
  }

  async extents(offset: number, length: number, signal?: AbortSignal): Promise<readonly Extent[]> {
    assertInside(this, offset, length);
    const extents: Extent[] = [];
    const firstBlock = Math.floor(offset / blockBytes);
    const endBlock = Math.ceil((offset + length) / blockBytes);
    for (let at = firstBlock; at < endBlock;) {
      signal?.throwIfAborted();
      const pageEnd = Math.min(endBlock, (Math.floor(at / idsPerPage) + 1) * idsPerPage);
      const page = await this.#leafPage(Math.floor(at / idsPerPage));
      while (at < pageEnd) {
        const from = at;
        const isZero = isZeroIn(page, at);
        do at += 1;
        while (at < pageEnd && isZeroIn(page, at) === isZero);
        pushExtent(extents, { offset: from * blockBytes, length: (at - from) * blockBytes, kind: isZero ? "zero" : "data" });
      }
    }
    return clipExtents(extents, offset, length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ahead?.done;
  }

  /** Id of each block from `firstBlock` on; undefined for zero. */
  async #idsOf(firstBlock: number, count: number): Promise<(Uint8Array | undefined)[]> {
    const ids: (Uint8Array | undefined)[] = [];
    for (let block = firstBlock; block < firstBlock + count; block++) {
      const index = Math.floor(block / idsPerPage);
      const page = this.#leafPages.has(index) ? this.#leafPages.get(index) : await this.#leafPage(index);
      const id = page === undefined ? undefined : idAt(page, block % idsPerPage);
      ids.push(id === undefined || isZeroId(id) ? undefined : id);
    }
    return ids;
  }

  async #leafPage(index: number): Promise<Uint8Array | undefined> {
    if (this.#leafPages.has(index)) return this.#leafPages.get(index);
    const page = await findLeafPage(this.#tree, index);
    this.#leafPages.set(index, page);
    for (const oldest of this.#leafPages.keys()) {
      if (this.#leafPages.size <= leafPagesMax) break;
      this.#leafPages.delete(oldest);
    }
    return page;
  }

  async #readBatch(offset: number, into: Uint8Array): Promise<void> {
    if (into.length === 0) return;
    const firstBlock = Math.floor(offset / blockBytes);
    const count = Math.ceil((offset + into.length) / blockBytes) - firstBlock;
    if (this.#ahead !== undefined && firstBlock < this.#ahead.fromBlock + readAheadBlocks && firstBlock + count > this.#ahead.fromBlock)
      await this.#ahead.done;
    const ids = await this.#idsOf(firstBlock, count);
    const pieces: Piece[] = [];
    for (const [index, id] of ids.entries()) {
      const blockOffset = (firstBlock + index) * blockBytes;
      const from = Math.max(offset, blockOffset);
      const target = into.subarray(from - offset, Math.min(offset + into.length, blockOffset + blockBytes) - offset);
      const kept = id === undefined ? undefined : this.#reader.atHand("block", id);
      const skipBytes = from - blockOffset;
      if (id === undefined) target.fill(0);
      else if (kept === undefined) pieces.push({ id, block: firstBlock + index, into: target, skipBytes });
      else target.set(kept.subarray(skipBytes, skipBytes + target.length));
    }
    if (pieces.length > 0 && !(await this.#readHere(pieces))) await this.#readByStore(pieces);
  }

  /** Out of local files, by threads; false when that cannot be done. */
  async #readHere(pieces: readonly Piece[]): Promise<boolean> {
    if (!this.#pool.isThere) return false;
    if (!this.#entries.isNear)
      await this.#entries.prefetch(
        "block",
        pieces.map(({ id }) => id),
      );
    const wishes: BlockWish[] = [];
    const kept: { readonly piece: Piece; readonly content: Buffer }[] = [];
    for (const piece of pieces) {
      const chain = this.#entries.findChain("block", piece.id);
      if (chain === undefined) return false;
      if (piece.into.length === blockBytes || !this.#touchAgain(piece.block)) wishes.push({ ...piece, chain });
      else {
        const content = Buffer.allocUnsafeSlow(blockBytes);
        kept.push({ piece, content });
        wishes.push({ id: piece.id, chain, into: content, skipBytes: 0 });
      }
    }
    const [only] = wishes;
    const isPart = only !== undefined && wishes.length === 1 && only.into.length < blockBytes;
    if (!(await this.#pool.read(wishes, isPart ? this.#digestRows.told(only.chain) : undefined))) return false;
    for (const { piece, content } of kept) {
      piece.into.set(content.subarray(piece.skipBytes, piece.skipBytes + piece.into.length));
      this.#reader.remember("block", piece.id, content);
    }
    return true;
  }

  /** Whether a part of the block was read not long ago: then more of it is likely to be read. */
  #touchAgain(block: number): boolean {
    if (this.#touched.delete(block)) return true;
    this.#touched.add(block);
    for (const oldest of this.#touched) {
      if (this.#touched.size <= touchedMax) break;
      this.#touched.delete(oldest);
    }
    return false;
  }

  /** Finds what moved, and tells what is damaged. */
  async #readByStore(pieces: readonly Piece[]): Promise<void> {
    const parts = pieces.filter(({ into }) => into.length < blockBytes);
    const read = this.#reader.readBlocks(pieces.filter(({ into }) => into.length === blockBytes));
    // What is read in part is likely to be read again.
    const loaded = this.#reader.loadMany(
      "block",
      parts.map(({ id }) => id),
    );
    const [contents] = await Promise.all([loaded, read]);
    for (const [index, part] of parts.entries()) {
      const content = contents[index];
      assert(content !== undefined, "every id has its content");
      part.into.set(content.subarray(part.skipBytes, part.skipBytes + part.into.length));
    }
  }

  /** Fills the cache behind a read that continued the one before. */
  #readAhead(offset: number, end: number): void {
    const isSequential = offset === this.#nextOffset;
    this.#nextOffset = end;
    if (!isSequential || this.#ahead !== undefined) return;
    const fromBlock = Math.ceil(end / blockBytes);
    const count = Math.min(readAheadBlocks, this.#tree.blockCount - fromBlock);
    if (count <= 0) return;
    const done = this.#loadAhead(fromBlock, count)
      .catch(() => undefined) // The read that needs these blocks meets the same fault and tells it.
      .finally(() => (this.#ahead = undefined));
    this.#ahead = { fromBlock, done };
  }

  async #loadAhead(fromBlock: number, count: number): Promise<void> {
    const ids = (await this.#idsOf(fromBlock, count)).filter((id) => id !== undefined);
    const pieces = ids
      .filter((id) => this.#reader.atHand("block", id) === undefined)
      .map((id) => ({ id, block: 0, into: Buffer.allocUnsafeSlow(blockBytes), skipBytes: 0 }));
    if (await this.#readHere(pieces)) for (const { id, into } of pieces) this.#reader.remember("block", id, into);
    else await this.#reader.loadMany("block", ids);
  }
}

function isZeroIn(page: Uint8Array | undefined, block: number): boolean {
  return page === undefined || isZeroId(idAt(page, block % idsPerPage));
}
