// The Store interface: immutable blobs by key, behind a directory, memory or an Azure Blob container.

/** A key: [a-z0-9-] segments joined by "/", at most 512 characters. */
export type StoreKey = string;

export interface StoredBlob {
  readonly key: StoreKey;
  readonly sizeBytes: number;
}

/** Half-open byte range. */
export interface BlobRange {
  readonly offset: number;
  readonly length: number;
}

export interface Store extends AsyncDisposable {
  /**
   * Writes a blob whole. Durable on return. A key is written once: the same bytes again are accepted,
   * other bytes under a taken key throw Fault StateConflict. After an abort the blob is absent or whole.
   */
  put(key: StoreKey, bytes: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** The whole blob or a range of it; undefined when the key is unknown. A range beyond the end throws Fault DataDamaged. */
  get(key: StoreKey, range?: BlobRange, signal?: AbortSignal): Promise<Uint8Array | undefined>;
  head(key: StoreKey, signal?: AbortSignal): Promise<StoredBlob | undefined>;
  /** Blobs whose key starts with `prefix`, in key order. */
  list(prefix: string, signal?: AbortSignal): AsyncIterable<StoredBlob>;
  /** Removes a blob; an unknown key is no fault. */
  remove(key: StoreKey, signal?: AbortSignal): Promise<void>;
  /**
   * Where a file of this machine holds a blob's bytes, for those who read many small parts of it, and check them; undefined when none
   * does. It may be absent, or go at any time: then ask get().
   */
  localFile?(key: StoreKey): string | undefined;
}
