// zstd level 1 for entries: compress when it pays, decompress to an exact size.

import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";

const params = { [constants.ZSTD_c_compressionLevel]: 1 };
/** An entry that shrinks by less than this part stays raw. */
const savingMin = 0.03;

/** One zstd frame; undefined when it saves too little to be worth unpacking. */
export function compressEntry(plain: Uint8Array): Uint8Array | undefined {
  const packed = zstdCompressSync(plain, { params });
  return packed.length <= plain.length * (1 - savingMin) ? packed : undefined;
}

/** The content of a frame; undefined when it is not one, or unpacks to more than sizeMax bytes. */
export function decompressEntry(packed: Uint8Array, sizeMax: number): Buffer | undefined {
  try {
    return zstdDecompressSync(packed, { maxOutputLength: sizeMax });
  } catch {
    return undefined; // Every failure here is of the bytes; the caller names the object that they came from.
  }
}
