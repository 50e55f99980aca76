// Where each entry of a machine stands: digest → place, about 50 bytes an entry in typed arrays, bounded.

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
const noEntry = 0xffff_ffff;

interface Chunk {
  readonly digests: Buffer;
  /** Pack number, offset, length, traits for each entry. */
  readonly places: Uint32Array;
}

export interface EntryIndexOptions {
  /** 64 Mi entries (4 TiB of full blocks, 3.2 GiB of memory) unless told. */
  readonly entriesMax?: number;
}

/** Open addressing over entry numbers; entries are never removed, a later add of the same id and kind replaces the place. */
export class EntryIndex {
  readonly #entriesMax: number;
  readonly #chunks: Chunk[] = [];
  #slots = new Uint32Array(1024).fill(noEntry);
  #count = 0;

  constructor(options: EntryIndexOptions = {}) {
    this.#entriesMax = options.entriesMax ?? 64 * 2 ** 20;
  }

  get count(): number {
    return this.#count;
  }

  find(kind: EntryKind, id: Uint8Array): EntryPlace | undefined {
    const entry = this.#slots[this.#slotOf(kind, id)];
    return entry === undefined || entry === noEntry ? undefined : this.#placeOf(entry);
  }

  set(id: Uint8Array, place: EntryPlace): void {
    const slot = this.#slotOf(place.kind, id);
    const entry = this.#slots[slot] ?? noEntry;
    if (entry !== noEntry) return this.#write(entry, place);
    if (this.#count >= this.#entriesMax)
      throw new Fault("LimitReached", "could not index a stored block: the machine has more blocks than the index may hold", {
        evidence: { entriesMax: this.#entriesMax },
      });
    if (this.#count % chunkEntries === 0)
      this.#chunks.push({ digests: Buffer.allocUnsafeSlow(chunkEntries * digestBytes), places: new Uint32Array(chunkEntries * 4) });
    const added = this.#count++;
    this.#chunkOf(added).digests.set(id, (added % chunkEntries) * digestBytes);
    this.#write(added, place);
    this.#slots[slot] = added;
    if (this.#count > this.#slots.length * 0.7) this.#grow();
  }

  #chunkOf(entry: number): Chunk {
    const chunk = this.#chunks[Math.floor(entry / chunkEntries)];
    assert(chunk !== undefined, "an entry's chunk exists");
    return chunk;
  }

  /** The slot that holds this id, or the free one where it belongs. */
  #slotOf(kind: EntryKind, id: Uint8Array): number {
    const mask = this.#slots.length - 1;
    const view = asBuffer(id);
    for (let slot = view.readUInt32LE(0) & mask; ; slot = (slot + 1) & mask) {
      const entry = this.#slots[slot] ?? noEntry;
      if (entry === noEntry) return slot;
      const { digests, places } = this.#chunkOf(entry);
      const at = entry % chunkEntries;
      if (
        digests.compare(view, 0, digestBytes, at * digestBytes, (at + 1) * digestBytes) === 0 &&
        ((places[at * 4 + 3] ?? 0) & 1) === (kind === "page" ? 1 : 0)
      )
        return slot;
    }
  }

  #placeOf(entry: number): EntryPlace {
    const { places } = this.#chunkOf(entry);
    const at = (entry % chunkEntries) * 4;
    const traits = places[at + 3] ?? 0;
    return {
      packNumber: places[at] ?? 0,
      offset: places[at + 1] ?? 0,
      length: places[at + 2] ?? 0,
      kind: (traits & 1) === 0 ? "block" : "page",
      form: (traits & 2) === 0 ? "full" : "patch",
      method: (traits & 4) === 0 ? "raw" : "zstd",
      depth: traits >> 3,
    };
  }

  #write(entry: number, place: EntryPlace): void {
    const { places } = this.#chunkOf(entry);
    const at = (entry % chunkEntries) * 4;
    places[at] = place.packNumber;
    places[at + 1] = place.offset;
    places[at + 2] = place.length;
    places[at + 3] =
      (place.kind === "page" ? 1 : 0) | (place.form === "patch" ? 2 : 0) | (place.method === "zstd" ? 4 : 0) | (place.depth << 3);
  }

  #grow(): void {
    const slots = new Uint32Array(this.#slots.length * 2).fill(noEntry);
    const mask = slots.length - 1;
    for (let entry = 0; entry < this.#count; entry++) {
      let slot = this.#chunkOf(entry).digests.readUInt32LE((entry % chunkEntries) * digestBytes) & mask;
      while (slots[slot] !== noEntry) slot = (slot + 1) & mask;
      slots[slot] = entry;
    }
    this.#slots = slots;
  }
}
