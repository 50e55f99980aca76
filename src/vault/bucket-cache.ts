// Buckets of runs that were read lately, in memory that is used again and again: the oldest goes when room is wanted.

/** Holds nearly every bucket; larger ones are read each time. */
const slotWords = 2048;
const slotCount = 1024;

export class BucketCache {
  /** Not there before the first read. */
  #memory: Uint32Array | undefined;
  readonly #slots = new Map<number, number>();
  readonly #keys = new Float64Array(slotCount);
  readonly #lengths = new Uint32Array(slotCount);
  #next = 0;

  has(serial: number, bucket: number): boolean {
    return this.#slots.has(keyOf(serial, bucket));
  }

  /** Valid until the program next waits. */
  get(serial: number, bucket: number): Uint32Array | undefined {
    const slot = this.#slots.get(keyOf(serial, bucket));
    return slot === undefined ? undefined : this.#memory?.subarray(slot * slotWords, slot * slotWords + (this.#lengths[slot] ?? 0));
  }

  /** Memory for a bucket of so many numbers, which the caller fills at once. Valid as long as get's. */
  room(serial: number, bucket: number, wordCount: number): Uint32Array {
    if (wordCount > slotWords) return new Uint32Array(wordCount);
    this.#memory ??= new Uint32Array(slotWords * slotCount);
    const slot = this.#next;
    this.#next = (slot + 1) % slotCount;
    this.#slots.delete(this.#keys[slot] ?? 0);
    const key = keyOf(serial, bucket);
    this.#keys[slot] = key;
    this.#lengths[slot] = wordCount;
    this.#slots.set(key, slot);
    return this.#memory.subarray(slot * slotWords, slot * slotWords + wordCount);
  }
}

/** Serials are never used again, and there are fewer than 2^21 of them as long as an index may grow. */
function keyOf(serial: number, bucket: number): number {
  return serial * 2 ** 32 + bucket;
}
