// A set of entries, one bit each, by pack and place in it: what was marked, checked or proved.

import type { IndexEntry } from "./index-row.ts";

const firstBytes = 64;

export class EntrySet {
  readonly #packs = new Map<number, Uint8Array>();

  has({ packNumber, ordinal }: Pick<IndexEntry, "packNumber" | "ordinal">): boolean {
    return ((this.#packs.get(packNumber)?.[ordinal >> 3] ?? 0) & (1 << (ordinal & 7))) !== 0;
  }

  /** Whether it was not in the set before. */
  add({ packNumber, ordinal }: Pick<IndexEntry, "packNumber" | "ordinal">): boolean {
    const at = ordinal >> 3;
    const bits = this.#bitsOf(packNumber, at + 1);
    const byte = bits[at] ?? 0;
    const bit = 1 << (ordinal & 7);
    bits[at] = byte | bit;
    return (byte & bit) === 0;
  }

  #bitsOf(packNumber: number, bytesMin: number): Uint8Array {
    const bits = this.#packs.get(packNumber);
    if (bits !== undefined && bits.length >= bytesMin) return bits;
    const grown = new Uint8Array(Math.max(firstBytes, 2 ** Math.ceil(Math.log2(bytesMin))));
    if (bits !== undefined) grown.set(bits);
    this.#packs.set(packNumber, grown);
    return grown;
  }
}
