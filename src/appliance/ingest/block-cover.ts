// Which blocks of a disk were announced: a bitmap that tells when none is missing.

/** Grows with the disk: one bit a block. */
export class BlockCover {
  readonly #bits: Uint8Array;
  readonly #blockCount: number;
  #covered = 0;

  constructor(blockCount: number) {
    this.#blockCount = blockCount;
    this.#bits = new Uint8Array(Math.ceil(blockCount / 8));
  }

  add(block: number): void {
    const index = block >>> 3;
    const bit = 1 << (block & 7);
    const byte = this.#bits[index] ?? 0;
    if ((byte & bit) !== 0) return;
    this.#bits[index] = byte | bit;
    this.#covered += 1;
  }

  get missingCount(): number {
    return this.#blockCount - this.#covered;
  }
}
