// Lends buffers of one size again and again, so that big reads do not pay for fresh memory each time.

/** Keeps at most `keptMax` free buffers of `bufferBytes`. */
export class BufferPool {
  readonly #bufferBytes: number;
  readonly #keptMax: number;
  readonly #free: Buffer[] = [];

  constructor(options: { readonly bufferBytes: number; readonly keptMax: number }) {
    this.#bufferBytes = options.bufferBytes;
    this.#keptMax = options.keptMax;
  }

  /** A buffer of exactly `byteCount` bytes with arbitrary content. */
  lend(byteCount: number): Buffer {
    if (byteCount > this.#bufferBytes || byteCount * 8 < this.#bufferBytes) return Buffer.allocUnsafeSlow(byteCount);
    // Shared, so that threads of a disk can write into it.
    const whole = this.#free.pop() ?? Buffer.from(new SharedArrayBuffer(this.#bufferBytes));
    return byteCount === whole.length ? whole : whole.subarray(0, byteCount);
  }

  /** Takes a lent buffer back; the borrower must not touch it again. */
  giveBack(buffer: Buffer): void {
    if (buffer.buffer.byteLength !== this.#bufferBytes || this.#free.length >= this.#keptMax) return;
    this.#free.push(Buffer.from(buffer.buffer));
  }
}
