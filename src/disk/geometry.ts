// Sizes that every part agrees on: a disk is a row of 64 KiB blocks, tracked in granules of 4 KiB.

export const blockBytes = 65_536;
export const granuleBytes = 4_096;
export const granulesPerBlock = blockBytes / granuleBytes;
export const digestBytes = 32;
/** Ids in one page of the page tree; 128 × 32 bytes is one 4 KiB page. */
export const idsPerPage = 128;
/** Largest disk that is accepted: 64 TiB, far under 2^53 bytes. */
export const diskBytesMax = 64 * 2 ** 40;

/** Blocks of a disk; the last one may be short on the disk and is padded with zeros before it is digested. */
export function blockCountOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / blockBytes);
}

export function granuleCountOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / granuleBytes);
}
