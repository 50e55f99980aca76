// Keeps copies of large objects in a folder, bounded, so that parts of them are read there and not by one call each from far away.

import { mkdir, rm, statfs, unlink } from "node:fs/promises";
import { join } from "node:path";
import { HandleCache } from "./handle-cache.ts";
import type { BlobRange, Store, StoreKey } from "./store.ts";
import { writeLargeFile } from "./write-large-file.ts";

export interface LocalCopiesOptions {
  /** Folder of this store alone; what it holds is removed when it is opened. */
  readonly folder: string;
  readonly bytesMax: number;
  /** Only of objects whose key begins so. */
  readonly prefix: string;
  /** A copy is not made when less would be left on the folder's filesystem; 1 GiB unless told. */
  readonly freeBytesMin?: number;
}

/** An object of which so many parts were read from far is fetched whole: its other parts are likely to be read too. */
const farReadsMax = 32;
const farCountsMax = 4096;
const filesOpenMax = 32;

interface Copy {
  readonly path: string;
  readonly sizeBytes: number;
}

/** Objects never change, so a copy is as good as its object until that is removed. What cannot be copied is read from the store. */
export async function openLocalCopies(store: Store, options: LocalCopiesOptions): Promise<Store> {
  await rm(options.folder, { recursive: true, force: true });
  await mkdir(options.folder, { recursive: true, mode: 0o700 });
  return new LocalCopies(store, options);
}

class LocalCopies implements Store {
  readonly #store: Store;
  readonly #options: LocalCopiesOptions;
  readonly #handles = new HandleCache(filesOpenMax);
  /** Least recently used first. */
  readonly #copies = new Map<StoreKey, Copy>();
  readonly #farReads = new Map<StoreKey, number>();
  readonly #fetching = new Map<StoreKey, Promise<void>>();
  #bytes = 0;
  #fileCount = 0;

  constructor(store: Store, options: LocalCopiesOptions) {
    this.#store = store;
    this.#options = options;
  }

  async put(key: StoreKey, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#store.put(key, bytes, signal);
    // After it, so that a line that is down costs no writes here; before the return, because the bytes are the caller's again then.
    if (key.startsWith(this.#options.prefix)) await this.#keep(key, await this.#write(bytes));
  }

  async get(key: StoreKey, range?: BlobRange, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    if (range === undefined || !key.startsWith(this.#options.prefix)) return await this.#store.get(key, range, signal);
    await this.#fetching.get(key);
    const copy = this.#copies.get(key);
    if (copy !== undefined) {
      const bytes = await this.#readCopy(key, copy, range);
      if (bytes !== undefined) return bytes;
    }
    this.#countFarRead(key);
    return await this.#store.get(key, range, signal);
  }

  async head(key: StoreKey, signal?: AbortSignal): ReturnType<Store["head"]> {
    return await this.#store.head(key, signal);
  }

  list(prefix: string, signal?: AbortSignal): ReturnType<Store["list"]> {
    return this.#store.list(prefix, signal);
  }

  async remove(key: StoreKey, signal?: AbortSignal): Promise<void> {
    await this.#fetching.get(key);
    await this.#drop(key);
    await this.#store.remove(key, signal);
  }

  localFile(key: StoreKey): string | undefined {
    const copy = this.#copies.get(key);
    if (copy === undefined) return this.#store.localFile?.(key);
    this.#copies.delete(key);
    this.#copies.set(key, copy);
    return copy.path;
  }

  /** The store below stays open: it is the caller's. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#fetching.values());
    await this.#handles[Symbol.asyncDispose]();
    await rm(this.#options.folder, { recursive: true, force: true });
  }

  async #readCopy(key: StoreKey, copy: Copy, range: BlobRange): Promise<Uint8Array | undefined> {
    this.#copies.delete(key);
    this.#copies.set(key, copy);
    try {
      return await this.#handles.use(copy.path, async (file) => {
        const bytes = Buffer.allocUnsafe(range.length);
        const { bytesRead } = await file.read(bytes, 0, range.length, range.offset);
        return bytesRead === range.length ? bytes : undefined;
      });
    } catch {
      // Dropped meanwhile, or its disk failed: the store has the same bytes.
      await this.#drop(key);
      return undefined;
    }
  }

  #countFarRead(key: StoreKey): void {
    const count = (this.#farReads.get(key) ?? 0) + 1;
    this.#farReads.delete(key);
    if (count < farReadsMax || this.#fetching.has(key)) {
      this.#farReads.set(key, count);
      for (const oldest of this.#farReads.keys()) {
        if (this.#farReads.size <= farCountsMax) return;
        this.#farReads.delete(oldest);
      }
      return;
    }
    const fetching = this.#fetch(key).finally(() => this.#fetching.delete(key));
    this.#fetching.set(key, fetching);
  }

  /** Never rejects: who asked for a part has it already. */
  async #fetch(key: StoreKey): Promise<void> {
    try {
      const bytes = await this.#store.get(key);
      if (bytes !== undefined) await this.#keep(key, await this.#write(bytes));
    } catch {
      // The next parts are read from far, and their reader meets the fault.
    }
  }

  /** Undefined when there is no room for a copy. */
  async #write(bytes: Uint8Array): Promise<Copy | undefined> {
    const { folder, bytesMax, freeBytesMin = 1 << 30 } = this.#options;
    const path = join(folder, `${this.#fileCount++}`);
    try {
      const { bavail, bsize } = await statfs(folder);
      if (bytes.length > bytesMax || bavail * bsize - bytes.length < freeBytesMin) return undefined;
      await writeLargeFile(path, bytes);
      return { path, sizeBytes: bytes.length };
    } catch {
      await unlink(path).catch(() => undefined); // Absent when it could not even be made.
      return undefined;
    }
  }

  async #keep(key: StoreKey, copy: Copy | undefined): Promise<void> {
    if (copy === undefined) return;
    if (this.#copies.has(key)) return await this.#discard(copy);
    this.#copies.set(key, copy);
    this.#bytes += copy.sizeBytes;
    for (const oldest of this.#copies.keys()) {
      if (this.#bytes <= this.#options.bytesMax) return;
      await this.#drop(oldest);
    }
  }

  async #drop(key: StoreKey): Promise<void> {
    const copy = this.#copies.get(key);
    if (copy === undefined) return;
    this.#copies.delete(key);
    this.#bytes -= copy.sizeBytes;
    await this.#discard(copy);
  }

  async #discard(copy: Copy | undefined): Promise<void> {
    if (copy === undefined) return;
    await this.#handles.drop(copy.path);
    await unlink(copy.path).catch(() => undefined); // Gone already: that is what is wanted.
  }
}
