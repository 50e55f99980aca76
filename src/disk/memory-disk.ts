// A disk in memory: for tests, and for content that is small.

import type { Extent, WritableDisk } from "./disk.ts";
import { assertInside } from "./range.ts";
import { extentsOf } from "./extents.ts";

export class MemoryDisk implements WritableDisk {
  readonly sizeBytes: number;
  /** The content itself; changes to it are changes to the disk. */
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.sizeBytes = bytes.length;
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    assertInside(this, offset, into.length);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  async write(offset: number, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    assertInside(this, offset, bytes.length);
    this.bytes.set(bytes, offset);
  }

  async flush(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
  }

  async extents(offset: number, length: number, signal?: AbortSignal): Promise<readonly Extent[]> {
    signal?.throwIfAborted();
    assertInside(this, offset, length);
    return extentsOf(this.bytes, offset, length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Memory needs no closing.
  }
}
