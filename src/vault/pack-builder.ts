// Builds one pack in memory: entries are sealed as they come, the index closes it.

import { assert } from "../base/assert.ts";
import type { StoreKey } from "../store/store.ts";
import { encodeIndex, indexBytesOf, packBytesMax, packEntriesMax, trailerBytes, writeTrailer, type PackRow } from "./pack-format.ts";
import { tagBytes, type ObjectSealer } from "./sealing.ts";

const firstBytes = 1 << 20;

export interface PackTarget {
  readonly key: StoreKey;
  readonly salt: Uint8Array;
  readonly sealer: ObjectSealer;
  /** Entries are taken while their sum stays within this. */
  readonly entryBytesMax: number;
}

export class PackBuilder {
  readonly #target: PackTarget;
  readonly #rows: PackRow[] = [];
  #bytes = Buffer.allocUnsafeSlow(firstBytes);
  #used = 0;

  constructor(target: PackTarget) {
    this.#target = target;
  }

  get isEmpty(): boolean {
    return this.#rows.length === 0;
  }

  hasRoom(plainBytes: number): boolean {
    return this.isEmpty || (this.#used + plainBytes + tagBytes <= this.#target.entryBytesMax && this.#rows.length < packEntriesMax);
  }

  /** Seals `plain` as the next entry. Answers its row. */
  append(entry: Omit<PackRow, "offset" | "length">, plain: Uint8Array): PackRow {
    assert(this.hasRoom(plain.length), "an entry fits its pack");
    this.#reserve(plain.length + tagBytes);
    const offset = this.#used;
    const length = this.#target.sealer.seal("entry", plain, this.#bytes, offset);
    this.#used += length;
    const row: PackRow = { ...entry, id: Uint8Array.from(entry.id), offset, length };
    this.#rows.push(row);
    return row;
  }

  /** A copy of bytes that were appended. */
  read(offset: number, length: number): Uint8Array {
    return Uint8Array.prototype.slice.call(this.#bytes, offset, offset + length);
  }

  /** Closes the pack and gives its bytes; nothing may be appended after. */
  finish(): Uint8Array {
    const index = encodeIndex(this.#rows);
    this.#reserve(indexBytesOf(this.#rows.length) + tagBytes + trailerBytes);
    const indexOffset = this.#used;
    const indexLength = this.#target.sealer.seal("index", index, this.#bytes, indexOffset);
    writeTrailer({ indexOffset, indexLength, salt: this.#target.salt }, this.#bytes, indexOffset + indexLength);
    this.#used = indexOffset + indexLength + trailerBytes;
    assert(this.#used <= packBytesMax, "a pack fits its maximum");
    return this.#bytes.subarray(0, this.#used);
  }

  #reserve(moreBytes: number): void {
    if (this.#used + moreBytes <= this.#bytes.length) return;
    // Memory that is not touched costs nothing, so few large steps are better than many small copies.
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#used + moreBytes, Math.min(this.#bytes.length * 8, packBytesMax)));
    grown.set(this.#bytes.subarray(0, this.#used));
    this.#bytes = grown;
  }
}
