// Lends buffers again and again, so that reads do not pay for fresh memory each time. All are shared, so that threads of a disk can write into them.

/** Small buffers, all in one memory. */
const smallBytes = 64 << 10;
const smallCount = 64;

/** Keeps at most `keptMax` free buffers of `bufferBytes`, and small ones. */
export class BufferPool {
  readonly #bufferBytes: number;
  readonly #keptMax: number;
  readonly #free: Buffer[] = [];
  #smallMemory: SharedArrayBuffer | undefined;
  readonly #freeSmall: Buffer[] = [];

  constructor(options: { readonly bufferBytes: number; readonly keptMax: number }) {
    this.#bufferBytes = options.bufferBytes;
    this.#keptMax = options.keptMax;
  }

  /** A buffer of exactly `byteCount` bytes with arbitrary content. */
  lend(byteCount: number): Buffer {
    if (byteCount <= smallBytes) return this.#lendSmall(byteCount);
    if (byteCount > this.#bufferBytes || byteCount * 8 < this.#bufferBytes) return Buffer.allocUnsafeSlow(byteCount);
    const whole = this.#free.pop() ?? Buffer.from(new SharedArrayBuffer(this.#bufferBytes));
    return byteCount === whole.length ? whole : whole.subarray(0, byteCount);
  }

  /** Takes a lent buffer back; the borrower must not touch it again. */
  giveBack(buffer: Buffer): void {
    if (buffer.buffer === this.#smallMemory) this.#freeSmall.push(Buffer.from(buffer.buffer, buffer.byteOffset, smallBytes));
    else if (buffer.buffer.byteLength === this.#bufferBytes && this.#free.length < this.#keptMax)
      this.#free.push(Buffer.from(buffer.buffer));
  }

  #lendSmall(byteCount: number): Buffer {
    if (this.#smallMemory === undefined) {
      const memory = new SharedArrayBuffer(smallBytes * smallCount);
      for (let index = 0; index < smallCount; index++) this.#freeSmall.push(Buffer.from(memory, index * smallBytes, smallBytes));
      this.#smallMemory = memory;
    }
    const small = this.#freeSmall.pop();
    return small === undefined ? Buffer.allocUnsafeSlow(byteCount) : small.subarray(0, byteCount);
  }
}
