// A store in memory, bounded: for tests and rehearsals. Nothing outlives the process.

import { Fault } from "../contract/errors.ts";
import { assertKey, assertPrefix } from "./key.ts";
import { rangeFault, takenKeyFault } from "./store-faults.ts";
import type { BlobRange, Store, StoredBlob, StoreKey } from "./store.ts";

export interface MemoryStoreOptions {
  /** 1 GiB unless told. */
  readonly bytesMax?: number;
}

export class MemoryStore implements Store {
  readonly #blobs = new Map<StoreKey, Uint8Array>();
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(options: MemoryStoreOptions = {}) {
    this.#bytesMax = options.bytesMax ?? 2 ** 30;
  }

  async put(key: StoreKey, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    assertKey(key);
    signal?.throwIfAborted();
    const present = this.#blobs.get(key);
    if (present !== undefined) {
      if (Buffer.compare(present, bytes) !== 0) throw takenKeyFault(key);
      return;
    }
    if (this.#bytes + bytes.length > this.#bytesMax)
      throw new Fault("StoreUnavailable", "could not store an object: the memory store is full", {
        evidence: { bytesMax: this.#bytesMax },
      });
    this.#blobs.set(key, Uint8Array.from(bytes));
    this.#bytes += bytes.length;
  }

  async get(key: StoreKey, range?: BlobRange, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    assertKey(key);
    signal?.throwIfAborted();
    const blob = this.#blobs.get(key);
    if (blob === undefined || range === undefined) return blob?.slice();
    if (range.offset + range.length > blob.length) throw rangeFault(key, range, blob.length);
    return blob.slice(range.offset, range.offset + range.length);
  }

  async head(key: StoreKey, signal?: AbortSignal): Promise<StoredBlob | undefined> {
    assertKey(key);
    signal?.throwIfAborted();
    const blob = this.#blobs.get(key);
    return blob === undefined ? undefined : { key, sizeBytes: blob.length };
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<StoredBlob, void, undefined> {
    assertPrefix(prefix);
    signal?.throwIfAborted();
    for (const key of [...this.#blobs.keys()].filter((key) => key.startsWith(prefix)).sort()) {
      signal?.throwIfAborted();
      const blob = this.#blobs.get(key);
      if (blob !== undefined) yield { key, sizeBytes: blob.length };
    }
  }

  async remove(key: StoreKey, signal?: AbortSignal): Promise<void> {
    assertKey(key);
    signal?.throwIfAborted();
    this.#bytes -= this.#blobs.get(key)?.length ?? 0;
    this.#blobs.delete(key);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Others may hold the same store; memory needs no closing.
  }
}
