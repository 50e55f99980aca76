// Digests of every block of a disk, kept while changes are followed, so that the source's root comes from the agent's own reading.

import { blockCountOf, digestBytes } from "../../disk/geometry.ts";
import { rootOfBlockIds } from "../../disk/page-tree.ts";

/** Disks of a machine together: 0.5 GiB of digests for a TiB is more than the agent may take, so tables end here. */
const digestTableDiskBytesMax = 2 ** 40;

export class DigestTable {
  readonly #ids: Uint8Array;
  readonly #isKnown: Uint8Array;
  readonly blockCount: number;
  #unknownCount: number;

  constructor(sizeBytes: number) {
    this.blockCount = blockCountOf(sizeBytes);
    this.#ids = new Uint8Array(this.blockCount * digestBytes);
    this.#isKnown = new Uint8Array(this.blockCount);
    this.#unknownCount = this.blockCount;
  }

  set(block: number, id: Uint8Array): void {
    this.#ids.set(id, block * digestBytes);
    if (this.#isKnown[block] === 1) return;
    this.#isKnown[block] = 1;
    this.#unknownCount -= 1;
  }

  /** What the block holds is no longer known. */
  forget(block: number): void {
    if (this.#isKnown[block] !== 1) return;
    this.#isKnown[block] = 0;
    this.#unknownCount += 1;
  }

  *unknownBlocks(): Iterable<number> {
    for (let block = 0; block < this.blockCount; block++) if (this.#isKnown[block] !== 1) yield block;
  }

  get isWhole(): boolean {
    return this.#unknownCount === 0;
  }

  /** The Merkle root, 64 hex digits. Only of a whole table. */
  root(): string {
    if (!this.isWhole) throw new Error(`assertion failed: the table lacks ${this.#unknownCount} blocks`);
    return rootOfBlockIds(this.#ids);
  }
}

export function canKeepDigests(diskSizes: readonly number[]): boolean {
  return diskSizes.reduce((sum, size) => sum + size, 0) <= digestTableDiskBytesMax;
}
