// A disk of a sealed recovery point: every block is checked against its digest before it is given.

import { assert } from "../base/assert.ts";
import type { Disk, Extent } from "../disk/disk.ts";
import { idFromHex, isZeroId } from "../disk/digest.ts";
import { clipExtents, pushExtent } from "../disk/extents.ts";
import { blockBytes, blockCountOf, idsPerPage } from "../disk/geometry.ts";
import { findLeafPage, idAt } from "../disk/page-tree.ts";
import { assertInside } from "../disk/range.ts";
import type { EntryReader } from "./entry-reader.ts";

/** Blocks that one call reads together. */
const batchBlocks = 64;
/** Read ahead of a reader that goes from start to end. */
const readAheadBlocks = 32;

export class VaultDisk implements Disk {
  readonly sizeBytes: number;
  readonly #entries: EntryReader;
  readonly #tree: Parameters<typeof findLeafPage>[0];
  #nextOffset = -1;
  #reading = 0;
  #ahead: { readonly fromBlock: number; readonly done: Promise<void> } | undefined;

  constructor(entries: EntryReader, disk: { readonly sizeBytes: number; readonly root: string }) {
    this.sizeBytes = disk.sizeBytes;
    this.#entries = entries;
    this.#tree = {
      root: idFromHex(disk.root),
      blockCount: blockCountOf(disk.sizeBytes),
      loadPage: async (id) => await entries.load("page", id),
    };
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    assertInside(this, offset, into.length);
    const end = offset + into.length;
    this.#reading += 1;
    try {
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

  async extents(offset: number, length: number, signal?: AbortSignal): Promise<readonly Extent[]> {
    assertInside(this, offset, length);
    const extents: Extent[] = [];
    const pageSpan = idsPerPage * blockBytes;
    for (let pageIndex = Math.floor(offset / pageSpan); pageIndex * pageSpan < offset + length; pageIndex++) {
      signal?.throwIfAborted();
      const page = await findLeafPage(this.#tree, pageIndex);
      if (page === undefined) pushExtent(extents, { offset: pageIndex * pageSpan, length: pageSpan, kind: "zero" });
      else
        for (let slot = 0; slot < idsPerPage; slot++)
          pushExtent(extents, {
            offset: pageIndex * pageSpan + slot * blockBytes,
            length: blockBytes,
            kind: isZeroId(idAt(page, slot)) ? "zero" : "data",
          });
    }
    return clipExtents(extents, offset, length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ahead?.done;
  }

  /** Id of each block from `firstBlock` on; undefined for zero. */
  async #idsOf(firstBlock: number, count: number): Promise<(Uint8Array | undefined)[]> {
    const ids: (Uint8Array | undefined)[] = [];
    let page: Uint8Array | undefined;
    let pageIndex = -1;
    for (let block = firstBlock; block < firstBlock + count; block++) {
      if (Math.floor(block / idsPerPage) !== pageIndex) {
        pageIndex = Math.floor(block / idsPerPage);
        page = await findLeafPage(this.#tree, pageIndex);
      }
      const id = page === undefined ? undefined : idAt(page, block % idsPerPage);
      ids.push(id === undefined || isZeroId(id) ? undefined : id);
    }
    return ids;
  }

  async #readBatch(offset: number, into: Uint8Array): Promise<void> {
    if (into.length === 0) return;
    const firstBlock = Math.floor(offset / blockBytes);
    const count = Math.ceil((offset + into.length) / blockBytes) - firstBlock;
    if (this.#ahead !== undefined && firstBlock < this.#ahead.fromBlock + readAheadBlocks && firstBlock + count > this.#ahead.fromBlock)
      await this.#ahead.done;
    const ids = await this.#idsOf(firstBlock, count);
    const whole: { readonly id: Uint8Array; readonly into: Uint8Array }[] = [];
    const parts: { readonly id: Uint8Array; readonly into: Uint8Array; readonly skipBytes: number }[] = [];
    for (const [index, id] of ids.entries()) {
      const blockOffset = (firstBlock + index) * blockBytes;
      const from = Math.max(offset, blockOffset);
      const target = into.subarray(from - offset, Math.min(offset + into.length, blockOffset + blockBytes) - offset);
      if (id === undefined) target.fill(0);
      else if (target.length === blockBytes) whole.push({ id, into: target });
      else parts.push({ id, into: target, skipBytes: from - blockOffset });
    }
    const read = this.#entries.readBlocks(whole);
    // What is read in part is likely to be read again.
    const loaded = this.#entries.loadMany(
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
    const done = this.#idsOf(fromBlock, count)
      .then(async (ids) => {
        await this.#entries.loadMany(
          "block",
          ids.filter((id) => id !== undefined),
        );
      })
      .catch(() => undefined) // The read that needs these blocks meets the same fault and tells it.
      .finally(() => (this.#ahead = undefined));
    this.#ahead = { fromBlock, done };
  }
}
