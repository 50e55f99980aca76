// Memory for direct reads: page-aligned, which plain Buffers are not.

const pageBytes = 4096;

/** `byteCount` bytes that start on a page. Resizable buffers are mapped by page; the pages count only once they are touched. */
export function allocatePageAligned(byteCount: number): Uint8Array<ArrayBuffer> {
  const rounded = Math.ceil(byteCount / pageBytes) * pageBytes;
  return new Uint8Array(new ArrayBuffer(rounded, { maxByteLength: rounded }), 0, byteCount);
}
