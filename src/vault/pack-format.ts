// Bytes of a pack: index rows and trailer. Layout: docs/design/vault-format.md, Pack.

import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import { parseMachineId, type MachineId } from "../contract/ids.ts";
import { asBuffer } from "../disk/digest.ts";
import { digestBytes } from "../disk/geometry.ts";
import type { EntryPlace } from "./index-row.ts";
import { depthMax } from "./patch.ts";
import { tagBytes } from "./gcm.ts";
import { formatVersion, saltBytes, type SealHead } from "./sealing.ts";

export const packBytesMax = 80 << 20;
/** Entries, digests, index and points of so many fit packBytesMax. */
export const packEntriesMax = 65_536;
export const digestBytesMax = 6 << 20;
export const pointTextBytesMax = 4 << 20;
export const trailerBytes = 64;
const rowBytes = 48;
const countBytes = 4;
/** Count, owner, time, length of the points' text. */
const headBytes = countBytes + 16 + 8 + 4;
const magic = Buffer.from("WTRPACK\0", "latin1");

/** One row of a pack's index. */
export interface PackRow extends Omit<EntryPlace, "packNumber"> {
  readonly id: Uint8Array;
  /** Of a patch, what it stands on. */
  readonly baseId?: Uint8Array;
}

/** What a pack says of itself at its end. */
export interface PackIndex {
  readonly rows: readonly PackRow[];
  /** The machine that proved to have the content of every entry. */
  readonly ownerId: MachineId;
  /** Milliseconds since 1970. */
  readonly writtenAtMs: number;
  /** JSON of the points that were sealed with this pack, one a line; or nothing. */
  readonly pointsText: string;
}

export interface Trailer {
  readonly indexOffset: number;
  /** Sealed length. */
  readonly indexLength: number;
  /** Sealed length of the digests, which end where the index begins. */
  readonly digestBytes: number;
  readonly sealHead: SealHead;
}

function indexBytesOf(counts: { readonly rows: number; readonly patches: number; readonly pointTextBytes: number }): number {
  return headBytes + counts.rows * rowBytes + counts.patches * digestBytes + counts.pointTextBytes;
}

export function encodeIndex({ rows, ownerId, writtenAtMs, pointsText }: PackIndex): Buffer {
  const text = Buffer.from(pointsText, "utf8");
  const patches = rows.filter(({ form }) => form === "patch");
  const bytes = Buffer.alloc(indexBytesOf({ rows: rows.length, patches: patches.length, pointTextBytes: text.length }));
  bytes.writeUInt32BE(rows.length, 0);
  bytes.write(ownerId.replaceAll("-", ""), countBytes, "hex");
  bytes.writeBigUInt64BE(BigInt(writtenAtMs), countBytes + 16);
  bytes.writeUInt32BE(text.length, countBytes + 24);
  let at = headBytes;
  for (const row of rows) {
    writeRow(bytes, at, row);
    at += rowBytes;
  }
  for (const { baseId } of patches) {
    assert(baseId !== undefined, "a patch names its base");
    bytes.set(baseId, at);
    at += digestBytes;
  }
  bytes.set(text, at);
  return bytes;
}

function writeRow(bytes: Buffer, at: number, row: PackRow): void {
  bytes.set(row.id, at);
  bytes.writeUInt32BE(row.offset, at + 32);
  bytes.writeUInt32BE(row.length, at + 36);
  bytes.writeUInt8(row.kind === "block" ? 1 : 2, at + 40);
  bytes.writeUInt8(row.form === "full" ? 0 : 1, at + 41);
  bytes.writeUInt8(row.method === "raw" ? 0 : 1, at + 42);
  bytes.writeUInt8(row.depth, at + 43);
}

/** An opened index, proved to cover the pack's `entryBytes` without a gap. */
export function parseIndex(packKey: string, plain: Uint8Array, entryBytes: number): PackIndex {
  const bytes = asBuffer(plain);
  const rowCount = bytes.length < headBytes ? -1 : bytes.readUInt32BE(0);
  const basesAt = headBytes + rowCount * rowBytes;
  if (rowCount < 0 || rowCount > packEntriesMax || basesAt > bytes.length) throw damagedPack(packKey, "its index has a wrong size");
  const rows: PackRow[] = [];
  let expectedOffset = 0;
  let textAt = basesAt;
  for (let at = headBytes; at < basesAt; at += rowBytes) {
    const row = parseRow(packKey, bytes, at);
    if (row.offset !== expectedOffset) throw damagedPack(packKey, "its entries do not follow each other");
    expectedOffset += row.length;
    if (row.form === "full") rows.push(row);
    else {
      rows.push({ ...row, baseId: bytes.subarray(textAt, textAt + digestBytes) });
      textAt += digestBytes;
    }
  }
  if (expectedOffset !== entryBytes) throw damagedPack(packKey, "its entries do not reach its digests");
  if (textAt + bytes.readUInt32BE(countBytes + 24) !== bytes.length) throw damagedPack(packKey, "its index has a wrong size");
  return {
    rows,
    ownerId: parseMachineId(bytes.toString("hex", countBytes, countBytes + 16).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-")),
    writtenAtMs: Number(bytes.readBigUInt64BE(countBytes + 16)),
    pointsText: bytes.toString("utf8", textAt),
  };
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
  into.set(trailer.sealHead.salt, at + 8);
  into.writeUInt32BE(trailer.sealHead.generation, at + 40);
  into.writeUInt32BE(trailer.digestBytes, at + 44);
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
  const generation = bytes.readUInt32BE(40);
  const isKnown = bytes.subarray(48, 54).equals(Buffer.alloc(6)) && generation > 0;
  if (!isKnown) throw damagedPack(packKey, "its trailer has unknown content");
  const [indexOffset, indexLength, digestBytes] = [bytes.readUInt32BE(0), bytes.readUInt32BE(4), bytes.readUInt32BE(44)];
  if (indexOffset + indexLength + trailerBytes !== packBytes || digestBytes > indexOffset)
    throw damagedPack(packKey, "its trailer does not fit its size");
  const salt = Uint8Array.from(bytes.subarray(8, 8 + saltBytes));
  return { indexOffset, indexLength, digestBytes, sealHead: { generation, salt } };
}

export function damagedPack(packKey: string, finding: string): Fault {
  return new Fault("DataDamaged", `could not read a pack: ${finding}`, {
    evidence: { pack: packKey },
    causes: ["the pack was changed or cut in the store", "the vault key is not the one that it was written with"],
  });
}
