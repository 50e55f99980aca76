// Buckets of runs that were read lately, bounded in bytes, least recently used out first.

const bytesMax = 8 << 20;

export class BucketCache {
  readonly #buckets = new Map<number, Uint32Array>();
  #bytes = 0;

  has(serial: number, bucket: number): boolean {
    return this.#buckets.has(keyOf(serial, bucket));
  }

  get(serial: number, bucket: number): Uint32Array | undefined {
    const key = keyOf(serial, bucket);
    const rows = this.#buckets.get(key);
    if (rows === undefined) return undefined;
    this.#buckets.delete(key);
    this.#buckets.set(key, rows);
    return rows;
  }

  set(serial: number, bucket: number, rows: Uint32Array): void {
    const key = keyOf(serial, bucket);
    if (this.#buckets.has(key)) return;
    this.#buckets.set(key, rows);
    this.#bytes += rows.byteLength + overheadBytes;
    for (const [oldKey, old] of this.#buckets) {
      if (this.#bytes <= bytesMax) return;
      this.#buckets.delete(oldKey);
      this.#bytes -= old.byteLength + overheadBytes;
    }
  }
}

/** Of an array and its place in the map. */
const overheadBytes = 256;

/** Serials are never used again, and there are fewer than 2^21 of them as long as an index may grow. */
function keyOf(serial: number, bucket: number): number {
  return serial * 2 ** 32 + bucket;
}
