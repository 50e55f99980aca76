// Bounds of reads and writes: a range outside the disk is a fault of the program that asks.

import { assert } from "../base/assert.ts";

export function assertInside(disk: { readonly sizeBytes: number }, offset: number, length: number): void {
  assert(
    Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0 && offset + length <= disk.sizeBytes,
    `range ${offset}+${length} lies inside a disk of ${disk.sizeBytes} bytes`,
  );
}
