// Writes a GUID partition table: protective MBR, header and entries at the front, their copies at the end.

import { crc32 } from "node:zlib";

const sectorBytes = 512;
const entryCount = 128;
const entryBytes = 128;
const entrySectors = (entryCount * entryBytes) / sectorBytes;

export interface GptPartition {
  /** Type GUID in its usual text form. */
  readonly type: string;
  readonly firstSector: number;
  readonly sectorCount: number;
}

/** The pieces to write for a disk of `sectorCount` sectors. Partition ids follow from the position. */
export function gptImage(
  sectorCount: number,
  partitions: readonly GptPartition[],
): readonly { readonly offset: number; readonly bytes: Buffer }[] {
  const entries = Buffer.alloc(entryCount * entryBytes);
  for (const [index, { type, firstSector, sectorCount: length }] of partitions.entries()) {
    const at = index * entryBytes;
    guidBytes(type).copy(entries, at);
    entries.fill(0xa0 + index, at + 16, at + 32);
    entries.writeBigUInt64LE(BigInt(firstSector), at + 32);
    entries.writeBigUInt64LE(BigInt(firstSector + length - 1), at + 40);
  }
  const last = sectorCount - 1;
  return [
    { offset: 0, bytes: protectiveMbr(sectorCount) },
    { offset: sectorBytes, bytes: header(sectorCount, entries, { own: 1, other: last, entriesAt: 2 }) },
    { offset: 2 * sectorBytes, bytes: entries },
    { offset: (last - entrySectors) * sectorBytes, bytes: entries },
    { offset: last * sectorBytes, bytes: header(sectorCount, entries, { own: last, other: 1, entriesAt: last - entrySectors }) },
  ];
}

function protectiveMbr(sectorCount: number): Buffer {
  const mbr = Buffer.alloc(sectorBytes);
  mbr[450] = 0xee;
  mbr.writeUInt32LE(1, 454);
  mbr.writeUInt32LE(Math.min(sectorCount - 1, 0xffff_ffff), 458);
  mbr.writeUInt16LE(0xaa55, 510);
  return mbr;
}

function header(sectorCount: number, entries: Buffer, at: { own: number; other: number; entriesAt: number }): Buffer {
  const bytes = Buffer.alloc(sectorBytes);
  bytes.write("EFI PART", 0, "latin1");
  bytes.writeUInt32LE(0x10000, 8);
  bytes.writeUInt32LE(92, 12);
  bytes.writeBigUInt64LE(BigInt(at.own), 24);
  bytes.writeBigUInt64LE(BigInt(at.other), 32);
  bytes.writeBigUInt64LE(BigInt(2 + entrySectors), 40);
  bytes.writeBigUInt64LE(BigInt(sectorCount - 2 - entrySectors), 48);
  bytes.fill(0x5a, 56, 72);
  bytes.writeBigUInt64LE(BigInt(at.entriesAt), 72);
  bytes.writeUInt32LE(entryCount, 80);
  bytes.writeUInt32LE(entryBytes, 84);
  bytes.writeUInt32LE(crc32(entries), 88);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 16);
  return bytes;
}

/** The mixed-endian form that GPT stores. */
function guidBytes(text: string): Buffer {
  const hex = text.replaceAll("-", "");
  const bytes = Buffer.from(hex, "hex");
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}
