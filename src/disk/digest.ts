// Block and page ids: SHA-256 of the bytes, or 32 zero bytes when all of them are zero.

import { hash } from "node:crypto";
import { blockBytes, digestBytes } from "./geometry.ts";

const zeroBytes = Buffer.alloc(blockBytes);
/** The id of every all-zero block and page. Never written to. */
export const zeroId: Uint8Array = Buffer.alloc(digestBytes);

/** Whether every byte is zero. */
export function isAllZero(bytes: Uint8Array): boolean {
  for (let offset = 0; offset < bytes.length; offset += blockBytes) {
    const end = Math.min(offset + blockBytes, bytes.length);
    if (zeroBytes.compare(bytes, offset, end, 0, end - offset) !== 0) return false;
  }
  return true;
}

/** Id of a whole block or page. The caller pads a short last block with zeros first. */
export function idOf(bytes: Uint8Array): Uint8Array {
  return isAllZero(bytes) ? zeroId : hash("sha256", bytes, "buffer");
}

export function isZeroId(id: Uint8Array): boolean {
  return equalBytes(id, zeroId);
}

export function equalBytes(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && Buffer.compare(one, other) === 0;
}

export function toHex(id: Uint8Array): string {
  return asBuffer(id).toString("hex");
}

/** Bytes of 64 hex digits. */
export function idFromHex(text: string): Uint8Array {
  const id = Buffer.from(text, "hex");
  if (id.length !== digestBytes) throw new TypeError(`not a digest: ${text.slice(0, 80)}`);
  return id;
}

/** The same memory as a Buffer. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
