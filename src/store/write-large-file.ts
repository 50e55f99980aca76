// Writes a new file of any size and flushes it; large ones go past the page cache, which costs a tenth of the processor time.

import { constants, type PathLike } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";

/** O_DIRECT needs offsets, lengths and memory at multiples of this. */
const alignBytes = 4096;
const directFromBytes = 1 << 20;
const stagingBytes = 4 << 20;

/** The file must not exist. Its content is durable on return; its name is not, the folder is the caller's to flush. */
export async function writeLargeFile(path: PathLike, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
  const written = bytes.length < directFromBytes ? 0 : await writeDirect(path, bytes, signal);
  await using file = await open(path, written === 0 ? "w" : "r+", 0o600);
  await writeFully(file, bytes.subarray(written), written);
  signal?.throwIfAborted();
  await file.sync();
}

/** Writes as many whole 4 KiB as it can; 0 where the filesystem has no direct writes. */
async function writeDirect(path: PathLike, bytes: Uint8Array, signal?: AbortSignal): Promise<number> {
  const end = bytes.length - (bytes.length % alignBytes);
  try {
    await using file = await open(path, constants.O_CREAT | constants.O_WRONLY | constants.O_DIRECT, 0o600);
    // Memory of a resizable buffer lies at a page's start; ordinary buffers do not.
    const staging = new Uint8Array(new ArrayBuffer(stagingBytes, { maxByteLength: stagingBytes }));
    for (let offset = 0; offset < end; offset += stagingBytes) {
      signal?.throwIfAborted();
      const chunk = bytes.subarray(offset, Math.min(end, offset + stagingBytes));
      staging.set(chunk);
      await writeFully(file, staging.subarray(0, chunk.length), offset);
    }
    return end;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EINVAL") return 0;
    throw error;
  }
}

async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
