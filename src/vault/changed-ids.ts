// Block ids that a point under way has set, by page. Of a large disk most of them lie in a file without a name, gone with the process.

import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { assert } from "../base/assert.ts";
import { digestBytes, idsPerPage } from "../disk/geometry.ts";
import { idAt, pageBytes, type PageChanges } from "../disk/page-tree.ts";

/** Ids, then one byte for each: 1 where it is set. */
const recordBytes = pageBytes + idsPerPage;
/** In memory when there is a folder for the others: 4 MiB. */
const pagesInMemoryMax = 1024;
/** Written at once: copies go through a disk in order, so that these are likely to be neighbours. */
const pagesOutCount = 64;

export interface ChangedIdsOptions {
  readonly pageCount: number;
  /** Without it all stay in memory. */
  readonly scratchFolder: string | undefined;
  /** A name that nobody else uses there. */
  readonly scratchName: string;
  readonly pagesInMemoryMax?: number;
}

export class ChangedIds implements PageChanges, Disposable {
  readonly #options: ChangedIdsOptions;
  readonly #pages = new Map<number, Uint8Array>();
  /** One bit a page: it is in the file. */
  readonly #isOut: Uint8Array;
  #file: number | undefined;
  #isClosed = false;

  constructor(options: ChangedIdsOptions) {
    this.#options = options;
    this.#isOut = new Uint8Array(Math.ceil(options.pageCount / 8));
  }

  get pageIndexes(): readonly number[] {
    const indexes = [...this.#pages.keys()];
    for (const [at, byte] of this.#isOut.entries())
      if (byte !== 0) for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) indexes.push(at * 8 + bit);
    return indexes.sort((one, other) => one - other);
  }

  get(block: number): Uint8Array | undefined {
    const page = this.#find(Math.floor(block / idsPerPage));
    return page?.[pageBytes + (block % idsPerPage)] === 1 ? idAt(page, block % idsPerPage) : undefined;
  }

  set(block: number, id: Uint8Array): void {
    const pageIndex = Math.floor(block / idsPerPage);
    const page = this.#find(pageIndex) ?? this.#keep(pageIndex, new Uint8Array(recordBytes));
    page.set(id, (block % idsPerPage) * digestBytes);
    page[pageBytes + (block % idsPerPage)] = 1;
  }

  apply(pageIndex: number, page: Uint8Array): void {
    const changed = this.#find(pageIndex);
    if (changed === undefined) return;
    for (let slot = 0; slot < idsPerPage; slot++) if (changed[pageBytes + slot] === 1) page.set(idAt(changed, slot), slot * digestBytes);
  }

  [Symbol.dispose](): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
    this.#pages.clear();
    this.#isOut.fill(0); // Writes that come too late set what nobody reads.
    this.#isClosed = true;
  }

  #find(pageIndex: number): Uint8Array | undefined {
    const page = this.#pages.get(pageIndex);
    if (page !== undefined || ((this.#isOut[pageIndex >> 3] ?? 0) & (1 << (pageIndex & 7))) === 0) return page;
    const record = new Uint8Array(recordBytes);
    assert(this.#file !== undefined, "pages that are out are in a file");
    const readBytes = readSync(this.#file, record, 0, recordBytes, pageIndex * recordBytes);
    assert(readBytes === recordBytes, "what was written can be read");
    this.#mark(pageIndex, false);
    return this.#keep(pageIndex, record);
  }

  #keep(pageIndex: number, page: Uint8Array): Uint8Array {
    const { scratchFolder, pagesInMemoryMax: most = pagesInMemoryMax } = this.#options;
    if (this.#isClosed) return page;
    if (scratchFolder !== undefined && this.#pages.size >= most) this.#putOut(scratchFolder);
    this.#pages.set(pageIndex, page);
    return page;
  }

  /** The oldest ones. */
  #putOut(scratchFolder: string): void {
    this.#file ??= openNameless(join(scratchFolder, this.#options.scratchName));
    let left = pagesOutCount;
    for (const [pageIndex, page] of this.#pages) {
      if (left-- === 0) return;
      const writtenBytes = writeSync(this.#file, page, 0, recordBytes, pageIndex * recordBytes);
      if (writtenBytes !== recordBytes) throw new Error("the disk of the scratch folder is full");
      this.#mark(pageIndex, true);
      this.#pages.delete(pageIndex);
    }
  }

  #mark(pageIndex: number, isOut: boolean): void {
    const bit = 1 << (pageIndex & 7);
    const byte = this.#isOut[pageIndex >> 3] ?? 0;
    this.#isOut[pageIndex >> 3] = isOut ? byte | bit : byte & ~bit;
  }
}

function openNameless(path: string): number {
  const file = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  return file;
}
