// Bytes of a pack: index rows and trailer. Layout: docs/design/vault-format.md, Pack.

import { Fault } from "../contract/errors.ts";
import { asBuffer } from "../disk/digest.ts";
import { digestBytes } from "../disk/geometry.ts";
import type { EntryPlace } from "./entry-index.ts";
import { depthMax } from "./patch.ts";
import { saltBytes, tagBytes } from "./sealing.ts";

export const packBytesMax = 80 << 20;
export const packEntriesMax = 262_144;
export const trailerBytes = 64;
const rowBytes = 48;
const countBytes = 4;
const formatVersion = 1;
const magic = Buffer.from("WTRPACK\0", "latin1");

/** One row of a pack's index. */
export interface PackRow extends Omit<EntryPlace, "packNumber"> {
  readonly id: Uint8Array;
}

export interface Trailer {
  readonly indexOffset: number;
  /** Sealed length. */
  readonly indexLength: number;
  readonly salt: Uint8Array;
}

export function indexBytesOf(rowCount: number): number {
  return countBytes + rowCount * rowBytes;
}

export function encodeIndex(rows: readonly PackRow[]): Buffer {
  const bytes = Buffer.alloc(indexBytesOf(rows.length));
  bytes.writeUInt32BE(rows.length, 0);
  for (const [index, row] of rows.entries()) {
    const at = countBytes + index * rowBytes;
    bytes.set(row.id, at);
    bytes.writeUInt32BE(row.offset, at + 32);
    bytes.writeUInt32BE(row.length, at + 36);
    bytes.writeUInt8(row.kind === "block" ? 1 : 2, at + 40);
    bytes.writeUInt8(row.form === "full" ? 0 : 1, at + 41);
    bytes.writeUInt8(row.method === "raw" ? 0 : 1, at + 42);
    bytes.writeUInt8(row.depth, at + 43);
  }
  return bytes;
}

/** Rows of an opened index, proved to cover the pack's entries without a gap. */
export function* parseIndex(packKey: string, plain: Uint8Array, indexOffset: number): Generator<PackRow, void, undefined> {
  const bytes = asBuffer(plain);
  const rowCount = bytes.length < countBytes ? -1 : bytes.readUInt32BE(0);
  if (rowCount < 0 || rowCount > packEntriesMax || bytes.length !== indexBytesOf(rowCount))
    throw damagedPack(packKey, "its index has a wrong size");
  let expectedOffset = 0;
  for (let at = countBytes; at < bytes.length; at += rowBytes) {
    const row = parseRow(packKey, bytes, at);
    if (row.offset !== expectedOffset) throw damagedPack(packKey, "its entries do not follow each other");
    expectedOffset += row.length;
    yield row;
  }
  if (expectedOffset !== indexOffset) throw damagedPack(packKey, "its entries do not reach its index");
}

function parseRow(packKey: string, bytes: Buffer, at: number): PackRow {
  const [kind, form, method, depth] = [bytes[at + 40] ?? 0, bytes[at + 41] ?? 0, bytes[at + 42] ?? 0, bytes[at + 43] ?? 0];
  const length = bytes.readUInt32BE(at + 36);
  const isKnown =
    (kind === 1 || kind === 2) &&
    form <= 1 &&
    method <= 1 &&
    depth <= depthMax &&
    depth > 0 === (form === 1) &&
    bytes.readUInt32BE(at + 44) === 0;
  if (!isKnown || length <= tagBytes) throw damagedPack(packKey, "its index has a row of unknown form");
  return {
    id: bytes.subarray(at, at + digestBytes),
    offset: bytes.readUInt32BE(at + 32),
    length,
    kind: kind === 1 ? "block" : "page",
    form: form === 0 ? "full" : "patch",
    method: method === 0 ? "raw" : "zstd",
    depth,
  };
}

export function writeTrailer(trailer: Trailer, into: Buffer, at: number): void {
  into.fill(0, at, at + trailerBytes);
  into.writeUInt32BE(trailer.indexOffset, at);
  into.writeUInt32BE(trailer.indexLength, at + 4);
  into.set(trailer.salt, at + 8);
  into.writeUInt16BE(formatVersion, at + 54);
  into.set(magic, at + 56);
}

/** Reads the trailer from the end of a pack of `packBytes` bytes. */
export function parseTrailer(packKey: string, packBytes: number, tail: Uint8Array): Trailer {
  if (packBytes > packBytesMax) throw damagedPack(packKey, "it is larger than a pack may be");
  if (tail.length < trailerBytes) throw damagedPack(packKey, "it is cut");
  const bytes = asBuffer(tail).subarray(tail.length - trailerBytes);
  if (!bytes.subarray(56).equals(magic)) throw damagedPack(packKey, "it does not end as a pack");
  if (bytes.readUInt16BE(54) !== formatVersion) throw damagedPack(packKey, "it has a version that this program does not know");
  if (!bytes.subarray(40, 54).equals(Buffer.alloc(14))) throw damagedPack(packKey, "its trailer has unknown content");
  const [indexOffset, indexLength] = [bytes.readUInt32BE(0), bytes.readUInt32BE(4)];
  if (indexOffset + indexLength + trailerBytes !== packBytes) throw damagedPack(packKey, "its trailer does not fit its size");
  return { indexOffset, indexLength, salt: Uint8Array.from(bytes.subarray(8, 8 + saltBytes)) };
}

export function damagedPack(packKey: string, finding: string): Fault {
  return new Fault("DataDamaged", `could not read a pack: ${finding}`, {
    evidence: { pack: packKey },
    causes: ["the pack was changed or cut in the store", "the vault key is not the one that it was written with"],
  });
}
