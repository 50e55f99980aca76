// Bytes of a pack: index rows and trailer. Layout: docs/design/vault-format.md, Pack.

import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import { parseMachineId, type AreaId, type MachineId } from "../contract/ids.ts";
import { asBuffer } from "../disk/digest.ts";
import { digestBytes } from "../disk/geometry.ts";
import type { EntryPlace } from "./index-row.ts";
import { depthMax } from "./patch.ts";
import { saltBytes, tagBytes, type SealHead } from "./sealing.ts";

export const packBytesMax = 80 << 20;
/** Of packs of version 1. */
const packEntriesReadMax = 262_144;
/** Of packs that are written now: entries, index and points fit packBytesMax. */
export const packEntriesMax = 131_072;
export const pointTextBytesMax = 4 << 20;
export const trailerBytes = 64;
const rowBytes = 48;
const countBytes = 4;
/** Version 2: count, owner, time, length of the points' text. */
const headBytes = countBytes + 16 + 8 + 4;
const magic = Buffer.from("WTRPACK\0", "latin1");

/** One row of a pack's index. */
export interface PackRow extends Omit<EntryPlace, "packNumber"> {
  readonly id: Uint8Array;
  /** Of a patch, what it stands on; unknown in version 1. */
  readonly baseId?: Uint8Array;
}

/** What a pack says of itself at its end. */
export interface PackIndex {
  readonly rows: readonly PackRow[];
  /** The machine that proved to have the content of every entry. */
  readonly ownerId: MachineId;
  /** Milliseconds since 1970; 0 in version 1. */
  readonly writtenAtMs: number;
  /** JSON of the points that were sealed with this pack, one a line; or nothing. */
  readonly pointsText: string;
}

export interface Trailer {
  readonly indexOffset: number;
  /** Sealed length. */
  readonly indexLength: number;
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

/** An opened index, proved to cover the pack's entries without a gap. */
export function parseIndex(
  pack: { readonly key: string; readonly areaId: AreaId; readonly version: 1 | 2 },
  plain: Uint8Array,
  indexOffset: number,
): PackIndex {
  const bytes = asBuffer(plain);
  const firstRowAt = pack.version === 1 ? countBytes : headBytes;
  const rowCount = bytes.length < firstRowAt ? -1 : bytes.readUInt32BE(0);
  const basesAt = firstRowAt + rowCount * rowBytes;
  if (rowCount < 0 || rowCount > packEntriesReadMax || basesAt > bytes.length) throw damagedPack(pack.key, "its index has a wrong size");
  const rows: PackRow[] = [];
  let expectedOffset = 0;
  let textAt = basesAt;
  for (let at = firstRowAt; at < basesAt; at += rowBytes) {
    const row = parseRow(pack.key, bytes, at);
    if (row.offset !== expectedOffset) throw damagedPack(pack.key, "its entries do not follow each other");
    expectedOffset += row.length;
    if (row.form === "full" || pack.version === 1) rows.push(row);
    else {
      rows.push({ ...row, baseId: bytes.subarray(textAt, textAt + digestBytes) });
      textAt += digestBytes;
    }
  }
  if (expectedOffset !== indexOffset) throw damagedPack(pack.key, "its entries do not reach its index");
  const textBytes = pack.version === 1 ? 0 : bytes.readUInt32BE(countBytes + 24);
  if (textAt + textBytes !== bytes.length) throw damagedPack(pack.key, "its index has a wrong size");
  // In version 1 every area is a machine's.
  if (pack.version === 1) return { rows, ownerId: parseMachineId(pack.areaId), writtenAtMs: 0, pointsText: "" };
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
  into.writeUInt16BE(trailer.sealHead.version, at + 54);
  into.set(magic, at + 56);
}

/** Reads the trailer from the end of a pack of `packBytes` bytes. */
export function parseTrailer(packKey: string, packBytes: number, tail: Uint8Array): Trailer {
  if (packBytes > packBytesMax) throw damagedPack(packKey, "it is larger than a pack may be");
  if (tail.length < trailerBytes) throw damagedPack(packKey, "it is cut");
  const bytes = asBuffer(tail).subarray(tail.length - trailerBytes);
  if (!bytes.subarray(56).equals(magic)) throw damagedPack(packKey, "it does not end as a pack");
  const version = bytes.readUInt16BE(54);
  if (version !== 1 && version !== 2) throw damagedPack(packKey, "it has a version that this program does not know");
  const generation = bytes.readUInt32BE(40);
  const isKnown = bytes.subarray(44, 54).equals(Buffer.alloc(10)) && (version === 1 ? generation === 0 : generation > 0);
  if (!isKnown) throw damagedPack(packKey, "its trailer has unknown content");
  const [indexOffset, indexLength] = [bytes.readUInt32BE(0), bytes.readUInt32BE(4)];
  if (indexOffset + indexLength + trailerBytes !== packBytes) throw damagedPack(packKey, "its trailer does not fit its size");
  const salt = Uint8Array.from(bytes.subarray(8, 8 + saltBytes));
  return { indexOffset, indexLength, sealHead: { version, generation: version === 1 ? 1 : generation, salt } };
}

export function damagedPack(packKey: string, finding: string): Fault {
  return new Fault("DataDamaged", `could not read a pack: ${finding}`, {
    evidence: { pack: packKey },
    causes: ["the pack was changed or cut in the store", "the vault key is not the one that it was written with"],
  });
}
