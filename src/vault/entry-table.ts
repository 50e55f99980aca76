// The entries that came last, in memory: rows in the order of their coming, found by open addressing.

import { assert } from "../base/assert.ts";
import { isRowOf, packNumberAt, readRow, rowWords, viewWords, writeRow, type IndexEntry } from "./index-row.ts";
import type { EntryKind } from "./patch.ts";

const chunkRows = 8192;
const none = 0xffff_ffff;

export class EntryTable {
  readonly #chunks: Uint32Array[] = [];
  #slots: Uint32Array;
  #count = 0;

  /** Has room for so many; more make it grow. */
  constructor(expectedCount = 512) {
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(Math.max(expectedCount, 512) * 1.5))).fill(none);
  }

  get count(): number {
    return this.#count;
  }

  add(id: Uint8Array, entry: IndexEntry): void {
    if (this.#count === this.#chunks.length * chunkRows) this.#chunks.push(new Uint32Array(chunkRows * rowWords));
    const number = this.#count++;
    const { rows, at } = this.rowAt(number);
    writeRow(rows, at, id, entry);
    this.#putInSlot(number);
    if (this.#count > this.#slots.length * 0.7) this.#grow();
  }

  /** Appends the entries of this kind and digest to `found`. */
  collect(kind: EntryKind, id: Uint8Array, found: IndexEntry[]): void {
    if (this.#count === 0) return;
    const words = viewWords(id);
    const mask = this.#slots.length - 1;
    for (let slot = slotOf(words, 0) & mask; ; slot = (slot + 1) & mask) {
      const number = this.#slots[slot] ?? none;
      if (number === none) return;
      const { rows, at } = this.rowAt(number);
      if (isRowOf(rows, at, kind, words)) found.push(readRow(rows, at));
    }
  }

  /** Empties it and keeps its memory. */
  clear(): void {
    this.#count = 0;
    this.#slots.fill(none);
  }

  /** Where a row stands; not to be changed. */
  rowAt(number: number): { readonly rows: Uint32Array; readonly at: number } {
    const rows = this.#chunks[Math.floor(number / chunkRows)];
    assert(rows !== undefined, "a row's chunk exists");
    return { rows, at: (number % chunkRows) * rowWords };
  }

  /** A table of those rows alone whose pack `isAlive` takes. */
  without(isAlive: (packNumber: number) => boolean): EntryTable {
    const table = new EntryTable();
    for (let number = 0; number < this.#count; number++) {
      const { rows, at } = this.rowAt(number);
      if (isAlive(packNumberAt(rows, at))) table.#copy(rows, at);
    }
    return table;
  }

  #copy(rows: Uint32Array, at: number): void {
    if (this.#count === this.#chunks.length * chunkRows) this.#chunks.push(new Uint32Array(chunkRows * rowWords));
    const number = this.#count++;
    const own = this.rowAt(number);
    own.rows.set(rows.subarray(at, at + rowWords), own.at);
    this.#putInSlot(number);
    if (this.#count > this.#slots.length * 0.7) this.#grow();
  }

  #putInSlot(number: number): void {
    const { rows, at } = this.rowAt(number);
    const mask = this.#slots.length - 1;
    let slot = slotOf(rows, at) & mask;
    while (this.#slots[slot] !== none) slot = (slot + 1) & mask;
    this.#slots[slot] = number;
  }

  #grow(): void {
    this.#slots = new Uint32Array(this.#slots.length * 2).fill(none);
    for (let number = 0; number < this.#count; number++) this.#putInSlot(number);
  }
}

/** Not the word that chooses a run's bucket. */
function slotOf(words: Uint32Array, at: number): number {
  return words[at + 7] ?? 0;
}
