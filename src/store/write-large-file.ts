// Writes new files of any size, flushed; large ones go past the page cache, which costs a tenth of the processor time.

import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";

/** O_DIRECT needs offsets, lengths and memory at multiples of this. */
const alignBytes = 4096;
const directFromBytes = 1 << 20;
const stagingBytes = 4 << 20;

/** The file must not exist. Its content is durable on return; its name is not, the folder is the caller's to flush. */
export async function writeLargeFile(path: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
  await using file = await openNewFile(path, bytes.length);
  for (let offset = 0; offset < bytes.length; offset += stagingBytes) {
    signal?.throwIfAborted();
    await file.append(bytes.subarray(offset, offset + stagingBytes));
  }
  signal?.throwIfAborted();
  await file.finish();
}

/** A new file that is written from start to end. */
export interface NewFile extends AsyncDisposable {
  append(bytes: Uint8Array): Promise<void>;
  /** The content is durable on return. */
  finish(): Promise<void>;
}

/** `expectedBytes` decides how it is written; more or fewer may come. */
export async function openNewFile(path: string, expectedBytes: number): Promise<NewFile> {
  const file = await open(path, "wx", 0o600);
  const direct = expectedBytes < directFromBytes ? undefined : await openDirect(path);
  return new StagedFile(file, direct, direct === undefined ? Math.min(stagingBytes, Math.max(expectedBytes, 1)) : stagingBytes);
}

/** Undefined where the filesystem has no direct writes. */
async function openDirect(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_WRONLY | constants.O_DIRECT);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EINVAL") return undefined;
    throw error;
  }
}

class StagedFile implements NewFile {
  readonly #file: FileHandle;
  readonly #direct: FileHandle | undefined;
  /** Memory of a resizable buffer lies at a page's start; ordinary buffers do not. */
  readonly #staging: Uint8Array;
  #staged = 0;
  #position = 0;
  #isOpen = true;

  constructor(file: FileHandle, direct: FileHandle | undefined, bufferBytes: number) {
    this.#file = file;
    this.#direct = direct;
    this.#staging = new Uint8Array(new ArrayBuffer(bufferBytes, { maxByteLength: bufferBytes }));
  }

  async append(bytes: Uint8Array): Promise<void> {
    for (let taken = 0; taken < bytes.length;) {
      const part = bytes.subarray(taken, taken + this.#staging.length - this.#staged);
      this.#staging.set(part, this.#staged);
      this.#staged += part.length;
      taken += part.length;
      if (this.#staged === this.#staging.length) await this.#write();
    }
  }

  async finish(): Promise<void> {
    await this.#write();
    await this.#file.sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#direct?.close();
    await this.#file.close();
  }

  async #write(): Promise<void> {
    const alignedBytes = this.#direct === undefined ? 0 : this.#staged - (this.#staged % alignBytes);
    if (this.#direct !== undefined) await writeFully(this.#direct, this.#staging.subarray(0, alignedBytes), this.#position);
    await writeFully(this.#file, this.#staging.subarray(alignedBytes, this.#staged), this.#position + alignedBytes);
    this.#position += this.#staged;
    this.#staged = 0;
  }
}

async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
