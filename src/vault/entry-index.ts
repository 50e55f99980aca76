// Where each stored entry stands: digest → places, about 60 bytes an entry in typed arrays, bounded. One digest may stand in several packs.

import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import { asBuffer } from "../disk/digest.ts";
import { digestBytes } from "../disk/geometry.ts";
import type { EntryKind } from "./patch.ts";

/** Place and form of one entry. */
export interface EntryPlace {
  readonly packNumber: number;
  readonly offset: number;
  /** Sealed length. */
  readonly length: number;
  readonly kind: EntryKind;
  readonly form: "full" | "patch";
  readonly method: "raw" | "zstd";
  readonly depth: number;
}

const chunkEntries = 16_384;
const none = 0xffff_ffff;
/** Numbers of one entry: pack number, offset, length, traits, number of the base. */
const placeNumbers = 5;

interface Chunk {
  readonly digests: Buffer;
  readonly places: Uint32Array;
}

export interface EntryIndexOptions {
  /** 64 Mi entries (4 TiB of full blocks, 3.8 GiB of memory) unless told. */
  readonly entriesMax?: number;
}

/** Open addressing over entry numbers. Entries are never removed: an index that holds many of gone packs is built anew. */
export class EntryIndex {
  readonly #entriesMax: number;
  readonly #chunks: Chunk[] = [];
  #slots = new Uint32Array(1024).fill(none);
  #count = 0;

  constructor(options: EntryIndexOptions = {}) {
    this.#entriesMax = options.entriesMax ?? 64 * 2 ** 20;
  }

  get count(): number {
    return this.#count;
  }

  /** Number of the first entry with this digest that `accept` takes; undefined when there is none. */
  find(kind: EntryKind, id: Uint8Array, accept: (number: number) => boolean): number | undefined {
    const mask = this.#slots.length - 1;
    const view = asBuffer(id);
    for (let slot = view.readUInt32LE(0) & mask; ; slot = (slot + 1) & mask) {
      const number = this.#slots[slot] ?? none;
      if (number === none) return undefined;
      if (this.#isOf(number, kind, view) && this.packNumberOf(number) !== none && accept(number)) return number;
    }
  }

  /** Adds an entry beside others of the same digest. Answers its number. `baseId` is of a patch's base, which may be unknown yet. */
  add(id: Uint8Array, place: EntryPlace, baseId?: Uint8Array): number {
    const base = baseId === undefined ? none : this.#numberOf(place.kind, baseId);
    const number = this.#placelessOf(place.kind, id) ?? this.#append(place.kind, id);
    const { places, at } = this.#at(number);
    places[at] = place.packNumber;
    places[at + 1] = place.offset;
    places[at + 2] = place.length;
    places[at + 3] =
      (place.kind === "page" ? 1 : 0) | (place.form === "patch" ? 2 : 0) | (place.method === "zstd" ? 4 : 0) | (place.depth << 3);
    places[at + 4] = base;
    return number;
  }

  packNumberOf(number: number): number {
    const { places, at } = this.#at(number);
    return places[at] ?? none;
  }

  depthOf(number: number): number {
    const { places, at } = this.#at(number);
    return (places[at + 3] ?? 0) >> 3;
  }

  /** Whether the number stands for an entry, not only for the digest of a base that is not stored. */
  hasPlace(number: number): boolean {
    return this.packNumberOf(number) !== none;
  }

  placeOf(number: number): EntryPlace {
    const { places, at } = this.#at(number);
    const traits = places[at + 3] ?? 0;
    return {
      packNumber: places[at] ?? none,
      offset: places[at + 1] ?? 0,
      length: places[at + 2] ?? 0,
      kind: (traits & 1) === 0 ? "block" : "page",
      form: (traits & 2) === 0 ? "full" : "patch",
      method: (traits & 4) === 0 ? "raw" : "zstd",
      depth: traits >> 3,
    };
  }

  /** Digest of the entry's content; a view. */
  idOf(number: number): Uint8Array {
    const { digests } = this.#chunkOf(number);
    const at = (number % chunkEntries) * digestBytes;
    return digests.subarray(at, at + digestBytes);
  }

  /** Digest of what a patch stands on; undefined for full entries, and for patches of version 1. */
  baseIdOf(number: number): Uint8Array | undefined {
    const { places, at } = this.#at(number);
    const base = places[at + 4] ?? none;
    return base === none ? undefined : this.idOf(base);
  }

  #isOf(number: number, kind: EntryKind, view: Buffer): boolean {
    const { digests, places } = this.#chunkOf(number);
    const at = number % chunkEntries;
    return (
      digests.compare(view, 0, digestBytes, at * digestBytes, (at + 1) * digestBytes) === 0 &&
      ((places[at * placeNumbers + 3] ?? 0) & 1) === (kind === "page" ? 1 : 0)
    );
  }

  /** Some number of this digest, with a place or without. */
  #numberOf(kind: EntryKind, id: Uint8Array): number {
    return this.find(kind, id, () => true) ?? this.#placelessOf(kind, id) ?? this.#append(kind, id);
  }

  #placelessOf(kind: EntryKind, id: Uint8Array): number | undefined {
    const mask = this.#slots.length - 1;
    const view = asBuffer(id);
    for (let slot = view.readUInt32LE(0) & mask; ; slot = (slot + 1) & mask) {
      const number = this.#slots[slot] ?? none;
      if (number === none) return undefined;
      if (this.#isOf(number, kind, view) && this.packNumberOf(number) === none) return number;
    }
  }

  #append(kind: EntryKind, id: Uint8Array): number {
    if (this.#count >= this.#entriesMax)
      throw new Fault("LimitReached", "could not index a stored block: there are more blocks than the index may hold", {
        evidence: { entriesMax: this.#entriesMax },
      });
    if (this.#count % chunkEntries === 0)
      this.#chunks.push({
        digests: Buffer.allocUnsafeSlow(chunkEntries * digestBytes),
        places: new Uint32Array(chunkEntries * placeNumbers),
      });
    const number = this.#count++;
    this.#chunkOf(number).digests.set(id, (number % chunkEntries) * digestBytes);
    const { places, at } = this.#at(number);
    places[at] = none;
    places[at + 3] = kind === "page" ? 1 : 0;
    places[at + 4] = none;
    this.#putInSlot(number, id);
    if (this.#count > this.#slots.length * 0.7) this.#grow();
    return number;
  }

  #putInSlot(number: number, id: Uint8Array): void {
    const mask = this.#slots.length - 1;
    let slot = asBuffer(id).readUInt32LE(0) & mask;
    while (this.#slots[slot] !== none) slot = (slot + 1) & mask;
    this.#slots[slot] = number;
  }

  #grow(): void {
    this.#slots = new Uint32Array(this.#slots.length * 2).fill(none);
    for (let number = 0; number < this.#count; number++) this.#putInSlot(number, this.idOf(number));
  }

  #chunkOf(number: number): Chunk {
    const chunk = this.#chunks[Math.floor(number / chunkEntries)];
    assert(chunk !== undefined, "an entry's chunk exists");
    return chunk;
  }

  #at(number: number): { readonly places: Uint32Array; readonly at: number } {
    return { places: this.#chunkOf(number).places, at: (number % chunkEntries) * placeNumbers };
  }
}
