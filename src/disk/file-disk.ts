// A disk in a raw image file or a block device. Holes of the file are known to be zero and are never read.

import { constants, open, type FileHandle } from "node:fs/promises";
import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import type { Extent, WritableDisk } from "./disk.ts";
import { clipExtents, pushExtent } from "./extents.ts";
import { loadHoleSeeker, type HoleSeeker } from "./hole-seeker.ts";
import { assertInside } from "./range.ts";

export interface FileDiskOptions {
  readonly access: "read" | "write";
  /** A block device that is mounted or otherwise in use is refused, and nobody mounts it meanwhile. */
  readonly isExclusive?: boolean;
  /** Makes the file with this size, all zeros; it must not exist. Needs access "write". */
  readonly createSizeBytes?: number;
}

/** Opens a raw image. Its size is the file's size and does not change. */
export async function openFileDisk(path: string, options: FileDiskOptions): Promise<WritableDisk> {
  const isNew = options.createSizeBytes !== undefined;
  assert(!isNew || options.access === "write", "a disk that is made can be written");
  const file = await openFile(path, flagsOf(options));
  try {
    if (options.createSizeBytes !== undefined) await file.truncate(options.createSizeBytes);
    return new FileDisk(file, await sizeOf(file), options.access, await loadHoleSeeker());
  } catch (error) {
    await file.close();
    throw error;
  }
}

class FileDisk implements WritableDisk {
  readonly sizeBytes: number;
  readonly #file: FileHandle;
  readonly #access: FileDiskOptions["access"];
  readonly #seeker: HoleSeeker | undefined;
  #isOpen = true;

  constructor(file: FileHandle, sizeBytes: number, access: FileDiskOptions["access"], seeker: HoleSeeker | undefined) {
    this.#file = file;
    this.sizeBytes = sizeBytes;
    this.#access = access;
    this.#seeker = seeker;
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    assertInside(this, offset, into.length);
    for (let done = 0; done < into.length;) {
      signal?.throwIfAborted();
      const { bytesRead } = await this.#file.read(into, done, into.length - done, offset + done);
      if (bytesRead === 0)
        throw new Fault("DataDamaged", `could not read a disk image at byte ${offset + done}: the file has become shorter`);
      done += bytesRead;
    }
  }

  async write(offset: number, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    assert(this.#access === "write", "a disk opened for reading is not written");
    assertInside(this, offset, bytes.length);
    for (let done = 0; done < bytes.length;) {
      signal?.throwIfAborted();
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, offset + done);
      done += bytesWritten;
    }
  }

  async flush(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    await this.#file.datasync();
  }

  async extents(offset: number, length: number, signal?: AbortSignal): Promise<readonly Extent[]> {
    signal?.throwIfAborted();
    assertInside(this, offset, length);
    const end = offset + length;
    const extents: Extent[] = [];
    for (let at = offset; at < end;) {
      const dataAt = Math.min(end, this.#seeker?.nextData(this.#file.fd, at) ?? at);
      pushExtent(extents, { offset: at, length: dataAt - at, kind: "zero" });
      if (dataAt === end) break;
      at = Math.min(end, this.#seeker?.nextHole(this.#file.fd, dataAt) ?? end);
      pushExtent(extents, { offset: dataAt, length: at - dataAt, kind: "data" });
    }
    return clipExtents(extents, offset, length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#file.close();
  }
}

function flagsOf({ access, createSizeBytes, isExclusive = false }: FileDiskOptions): string | number {
  if (createSizeBytes !== undefined) return "wx+";
  if (!isExclusive) return access === "write" ? "r+" : "r";
  // open(2): without O_CREAT this is a claim on a block device, and nothing for a file.
  return (access === "write" ? constants.O_RDWR : constants.O_RDONLY) | constants.O_EXCL;
}

async function openFile(path: string, flags: string | number): Promise<FileHandle> {
  try {
    return await open(path, flags, 0o600);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT") throw new Fault("NotFound", "could not open a disk image: no such file", { evidence: { path }, cause: error });
    if (code === "EBUSY")
      throw new Fault("StateConflict", "could not open a disk: it is mounted or in use", { evidence: { path }, cause: error });
    if (code === "EEXIST")
      throw new Fault("StateConflict", "could not make a disk image: the file exists", { evidence: { path }, cause: error });
    throw error;
  }
}

/** A block device says 0 in stat; its end is found by bisection of one-byte reads. */
async function sizeOf(file: FileHandle): Promise<number> {
  const stat = await file.stat();
  if (!stat.isBlockDevice()) return stat.size;
  const probe = Buffer.alloc(1);
  let readable = 0;
  let step = 2 ** 46;
  while (step >= 512) {
    const { bytesRead } = await file.read(probe, 0, 1, readable + step - 1);
    if (bytesRead === 1) readable += step;
    step /= 2;
  }
  return readable;
}
