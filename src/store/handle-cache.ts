// Keeps the files that are read again and again open, at most a given number; a file in use is never closed.

import { open, type FileHandle } from "node:fs/promises";

interface OpenFile {
  readonly handle: Promise<FileHandle>;
  users: number;
  isDropped: boolean;
}

export class HandleCache implements AsyncDisposable {
  readonly #filesMax: number;
  /** Least recently used first. */
  readonly #files = new Map<string, OpenFile>();

  constructor(filesMax: number) {
    this.#filesMax = filesMax;
  }

  /** Calls `task` with the open file; throws what open throws. */
  async use<T>(path: string, task: (handle: FileHandle) => Promise<T>): Promise<T> {
    const file = this.#files.get(path) ?? { handle: open(path, "r"), users: 0, isDropped: false };
    this.#files.delete(path);
    this.#files.set(path, file);
    file.users += 1;
    try {
      return await task(await file.handle);
    } catch (error) {
      if (this.#files.get(path) === file) this.#files.delete(path);
      file.isDropped = true;
      throw error;
    } finally {
      file.users -= 1;
      if (file.isDropped && file.users === 0) await close(file);
      await this.#trim();
    }
  }

  /** Forgets a file, for example because it is removed. */
  async drop(path: string): Promise<void> {
    const file = this.#files.get(path);
    if (file === undefined) return;
    this.#files.delete(path);
    file.isDropped = true;
    if (file.users === 0) await close(file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const path of this.#files.keys()) await this.drop(path);
  }

  async #trim(): Promise<void> {
    for (const [path, file] of this.#files) {
      if (this.#files.size <= this.#filesMax) return;
      if (file.users === 0) await this.drop(path);
    }
  }
}

async function close(file: OpenFile): Promise<void> {
  const handle = await file.handle.catch(() => undefined); // One that did not open needs no closing; use() told why.
  await handle?.close();
}
