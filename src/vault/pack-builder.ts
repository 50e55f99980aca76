// Builds one pack in memory: entries are sealed as they come, the index closes it.

import { assert } from "../base/assert.ts";
import type { StoreKey } from "../store/store.ts";
import { asBuffer } from "../disk/digest.ts";
import type { MachineId } from "../contract/ids.ts";
import { encodeDigests, noDigests, recordBytesMax, recordBytesOf, type EntryDigests } from "./granule-digests.ts";
import type { DigestSource } from "./pack.ts";
import { digestBytesMax, encodeIndex, packBytesMax, packEntriesMax, trailerBytes, writeTrailer, type PackRow } from "./pack-format.ts";
import { tagBytes } from "./gcm.ts";
import type { ObjectSealer, SealHead } from "./sealing.ts";

const firstBytes = 1 << 20;

export interface PackTarget {
  readonly key: StoreKey;
  readonly ownerId: MachineId;
  readonly writtenAtMs: number;
  readonly sealHead: SealHead;
  readonly sealer: ObjectSealer;
  /** Entries are taken while their sum stays within this. */
  readonly entryBytesMax: number;
  /** Memory of a builder that nobody uses any more: fresh pages cost more than what is written into them. */
  readonly memory?: SharedArrayBuffer | undefined;
}

export class PackBuilder {
  readonly #target: PackTarget;
  readonly #rows: PackRow[] = [];
  /** Grows in place; other threads may write into reserved parts of it. */
  readonly #memory: SharedArrayBuffer;
  readonly #bytes: Uint8Array;
  readonly #digests: EntryDigests[] = [];
  readonly #filling = new Set<Promise<void>>();
  #used = 0;
  #digestBytes = 0;

  constructor(target: PackTarget) {
    this.#target = target;
    this.#memory = target.memory ?? new SharedArrayBuffer(firstBytes, { maxByteLength: packBytesMax });
    this.#bytes = new Uint8Array(this.#memory);
  }

  get memory(): SharedArrayBuffer {
    return this.#memory;
  }

  get isEmpty(): boolean {
    return this.#rows.length === 0;
  }

  /** Sealed bytes of the entries that were appended; not to be asked after finish. */
  get entryBytes(): number {
    return this.#used;
  }

  hasRoom(plainBytes: number): boolean {
    const hasPlace = this.#used + plainBytes + tagBytes <= this.#target.entryBytesMax && this.#rows.length < packEntriesMax;
    return this.isEmpty || (hasPlace && this.#digestBytes + recordBytesMax <= digestBytesMax);
  }

  /** Seals `plain` as the next entry. Answers its row. */
  append(entry: Omit<PackRow, "offset" | "length">, plain: Uint8Array, digests: EntryDigests): PackRow {
    const row = this.reserve(entry, plain.length, digests);
    this.#target.sealer.seal("entry", plain, this.#bytes, row.offset);
    return row;
  }

  /** Makes the next entry, whose sealed bytes somebody else writes: `fill` tells until when. Until then its digests may come too. */
  reserve(entry: Omit<PackRow, "offset" | "length">, plainBytes: number, digests = noDigests): PackRow {
    assert(this.hasRoom(plainBytes), "an entry fits its pack");
    const length = plainBytes + tagBytes;
    this.#reserve(length);
    const row: PackRow = { ...entry, id: Uint8Array.from(entry.id), offset: this.#used, length };
    this.#used += length;
    this.#rows.push(row);
    this.#digests.push(digests);
    this.#digestBytes += digests === noDigests ? recordBytesMax : recordBytesOf(digests);
    return row;
  }

  /** Digests of a reserved entry, the `ordinal`th of the pack. */
  setDigests(ordinal: number, digests: EntryDigests): void {
    this.#digests[ordinal] = digests;
  }

  /** Of all entries that were reserved before. */
  async digests(): Promise<DigestSource> {
    while (this.#filling.size > 0) await Promise.all(this.#filling);
    return { of: (ordinal) => this.#digests[ordinal] ?? noDigests };
  }

  /** Starts the writing of reserved entries into the pack's memory; reads and the finish wait for it. */
  async fill(write: (memory: Uint8Array) => Promise<void>): Promise<void> {
    const filling = write(this.#bytes);
    this.#filling.add(filling);
    await filling;
    this.#filling.delete(filling); // One that failed stays: the pack has a hole and never becomes whole.
  }

  /** A copy of bytes that were appended. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    if (this.#filling.size > 0) await Promise.all(this.#filling);
    return Uint8Array.prototype.slice.call(this.#bytes, offset, offset + length);
  }

  /** Closes the pack and gives its bytes; nothing may be appended after. `pointsText` names points that were sealed with it. */
  async finish(pointsText: string): Promise<{ readonly bytes: Uint8Array; readonly digestBytes: number }> {
    await Promise.all(this.#filling);
    const { ownerId, writtenAtMs, sealHead } = this.#target;
    const digests = encodeDigests(this.#digests);
    const index = encodeIndex({ rows: this.#rows, ownerId, writtenAtMs, pointsText });
    this.#reserve(digests.length + index.length + 2 * tagBytes + trailerBytes);
    const digestBytes = this.#target.sealer.seal("digests", digests, this.#bytes, this.#used);
    const indexOffset = this.#used + digestBytes;
    const indexLength = this.#target.sealer.seal("index", index, this.#bytes, indexOffset);
    writeTrailer({ indexOffset, indexLength, digestBytes, sealHead }, asBuffer(this.#bytes), indexOffset + indexLength);
    this.#used = indexOffset + indexLength + trailerBytes;
    assert(this.#used <= packBytesMax, "a pack fits its maximum");
    return { bytes: this.#bytes.subarray(0, this.#used), digestBytes };
  }

  #reserve(moreBytes: number): void {
    const wanted = this.#used + moreBytes;
    if (wanted <= this.#memory.byteLength) return;
    // Memory that is not touched costs nothing, so few large steps are better than many small ones.
    this.#memory.grow(Math.max(wanted, Math.min(this.#memory.byteLength * 8, packBytesMax)));
  }
}
