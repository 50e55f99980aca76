// Takes exact numbers of bytes from a stream; holds at most what was asked for plus one chunk, so the peer feels backpressure.

/** Reads a byte stream piece by piece. One reader at a time. */
export class ByteReader {
  readonly #source: AsyncIterator<Buffer>;
  #held: Buffer[] = [];
  #heldBytes = 0;

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** The next `byteCount` bytes, valid until dropped; undefined when the stream ends before them. */
  async take(byteCount: number): Promise<Buffer | undefined> {
    while (this.#heldBytes < byteCount) if (!(await this.#pull())) return undefined;
    return this.#cut(byteCount);
  }

  /** Drops `byteCount` bytes without holding them; false when the stream ends before. */
  async skip(byteCount: number): Promise<boolean> {
    let left = byteCount;
    while (left > 0) {
      if (this.#heldBytes === 0 && !(await this.#pull())) return false;
      left -= this.#cut(Math.min(left, this.#heldBytes)).length;
    }
    return true;
  }

  async #pull(): Promise<boolean> {
    const next = await this.#source.next();
    if (next.done === true) return false;
    this.#held.push(next.value);
    this.#heldBytes += next.value.length;
    return true;
  }

  #cut(byteCount: number): Buffer {
    const first = this.#held[0] ?? Buffer.alloc(0);
    if (first.length >= byteCount) {
      this.#held[0] = first.subarray(byteCount);
      if (first.length === byteCount) this.#held.shift();
      this.#heldBytes -= byteCount;
      return first.subarray(0, byteCount);
    }
    const joined = Buffer.concat(this.#held);
    this.#held = joined.length > byteCount ? [joined.subarray(byteCount)] : [];
    this.#heldBytes = joined.length - byteCount;
    return joined.subarray(0, byteCount);
  }
}
