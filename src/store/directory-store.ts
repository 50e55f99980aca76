// A store in a folder of a local filesystem: each blob is one file that is whole or absent, also after a power cut.

import { link, mkdir, open, readdir, readFile, stat, unlink, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { flushFolder } from "../base/atomic-file.ts";
import { Fault } from "../contract/errors.ts";
import { HandleCache } from "./handle-cache.ts";
import { assertKey, assertPrefix, isKey } from "./key.ts";
import { rangeFault, takenKeyFault } from "./store-faults.ts";
import type { BlobRange, Store, StoredBlob, StoreKey } from "./store.ts";
import { removeAbandoned, temporaryName } from "./temporary-files.ts";
import { writeLargeFile } from "./write-large-file.ts";

/** Ends every blob's file name, so that the key "a" and the key "a/b" can both exist. */
const suffix = ".blob";
/** Never a key's segment, because of its dot. */
const temporaryFolder = ".tmp";

/** Opens the store in `root`, making it when it is missing. Files of writes that a crash cut are removed; other openers may write meanwhile. */
export async function openDirectoryStore(root: string): Promise<Store> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  await mkdir(join(root, temporaryFolder), { recursive: true, mode: 0o700 });
  await removeAbandoned(join(root, temporaryFolder));
  await flushFolder(root);
  return new DirectoryStore(root);
}

class DirectoryStore implements Store {
  readonly #root: string;
  readonly #handles = new HandleCache(64);

  constructor(root: string) {
    this.#root = root;
  }

  async put(key: StoreKey, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    assertKey(key);
    signal?.throwIfAborted();
    const path = this.#pathOf(key);
    const temporary = join(this.#root, temporaryFolder, temporaryName());
    try {
      await writeLargeFile(temporary, bytes, signal);
      await this.#makeFolder(dirname(path));
      signal?.throwIfAborted();
      await link(temporary, path);
    } catch (error) {
      if (codeOf(error) === "EEXIST") await refuseOtherContent(key, path, bytes);
      else throw spaceFault(key, error);
    } finally {
      await unlink(temporary).catch(() => undefined); // Absent when the write itself failed; else a second name of the blob.
    }
    await flushFolder(dirname(path));
  }

  async get(key: StoreKey, range?: BlobRange, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    assertKey(key);
    signal?.throwIfAborted();
    return await absentAsUndefined(async () => {
      if (range === undefined) return await readFile(this.#pathOf(key), { signal });
      return await this.#handles.use(this.#pathOf(key), async (file) => await readRange(key, file, range));
    });
  }

  async head(key: StoreKey, signal?: AbortSignal): Promise<StoredBlob | undefined> {
    assertKey(key);
    signal?.throwIfAborted();
    return await absentAsUndefined(async () => ({ key, sizeBytes: (await stat(this.#pathOf(key))).size }));
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<StoredBlob, void, undefined> {
    assertPrefix(prefix);
    const cut = prefix.lastIndexOf("/") + 1;
    yield* this.#walk(prefix.slice(0, cut), prefix, signal);
  }

  async remove(key: StoreKey, signal?: AbortSignal): Promise<void> {
    assertKey(key);
    signal?.throwIfAborted();
    const path = this.#pathOf(key);
    await this.#handles.drop(path);
    await absentAsUndefined(async () => {
      await unlink(path);
      await flushFolder(dirname(path));
    });
  }

  localFile(key: StoreKey): string {
    return `${this.#root}/${key}${suffix}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handles[Symbol.asyncDispose]();
  }

  #pathOf(key: StoreKey): string {
    return join(this.#root, key + suffix);
  }

  /** Makes a folder and its parents, each durable in its own parent. */
  async #makeFolder(folder: string): Promise<void> {
    const first = await mkdir(folder, { recursive: true, mode: 0o700 });
    if (first === undefined) return;
    for (let made = folder; made.length >= first.length; made = dirname(made)) await flushFolder(dirname(made));
  }

  /** Everything under `folder` ("" or ending in "/") that starts with `prefix`, in key order. */
  async *#walk(folder: string, prefix: string, signal?: AbortSignal): AsyncGenerator<StoredBlob, void, undefined> {
    signal?.throwIfAborted();
    const entries = (await absentAsUndefined(async () => await readdir(join(this.#root, folder), { withFileTypes: true }))) ?? [];
    const names = entries.flatMap((entry) => {
      if (entry.isDirectory()) return isKey(entry.name) ? [`${entry.name}/`] : [];
      return entry.name.endsWith(suffix) ? [entry.name.slice(0, -suffix.length)] : [];
    });
    for (const name of names.sort()) {
      const path = folder + name;
      if (!path.startsWith(prefix) && !(name.endsWith("/") && prefix.startsWith(path))) continue;
      if (name.endsWith("/")) yield* this.#walk(path, prefix, signal);
      else {
        const blob = await this.head(path, signal);
        if (blob !== undefined) yield blob;
      }
    }
  }
}

async function readRange(key: StoreKey, file: FileHandle, range: BlobRange): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(range.length);
  for (let done = 0; done < range.length;) {
    const { bytesRead } = await file.read(bytes, done, range.length - done, range.offset + done);
    if (bytesRead === 0) throw rangeFault(key, range, (await file.stat()).size);
    done += bytesRead;
  }
  return bytes;
}

async function refuseOtherContent(key: StoreKey, path: string, bytes: Uint8Array): Promise<void> {
  await using file = await open(path, "r");
  const isSame = (await file.stat()).size === bytes.length && Buffer.compare(await file.readFile(), bytes) === 0;
  if (!isSame) throw takenKeyFault(key);
  await file.sync(); // The earlier writer may not have come to its own flush.
}

async function absentAsUndefined<T>(task: () => Promise<T>): Promise<T | undefined> {
  try {
    return await task();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function spaceFault(key: StoreKey, error: unknown): unknown {
  const code = codeOf(error);
  if (code !== "ENOSPC" && code !== "EDQUOT") return error;
  return new Fault("StoreUnavailable", "could not store an object: the store's filesystem is full", {
    evidence: { key },
    causes: ["the filesystem of the vault has no space left"],
    action: "free or add space on the filesystem of the vault",
    cause: error,
  });
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
