// The footer that makes a raw file a fixed VHD: Microsoft's Virtual Hard Disk Image Format Specification, Hard Disk Footer Format.

import { open } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";

export const vhdFooterBytes = 512;
/** Azure takes VHDs whose disk is a whole number of MiB. */
const alignmentBytes = 1 << 20;
const epochMs = 946_684_800_000;
const fixed = 2;

/** Grows a raw image with zeros to a whole number of MiB and appends the footer. Durable when the caller flushes the file. */
export async function appendVhdFooter(path: string, { clock, random }: { readonly clock: Clock; readonly random: Random }): Promise<void> {
  await using file = await open(path, "r+");
  const sizeBytes = vhdSizeOf((await file.stat()).size);
  await file.truncate(sizeBytes);
  const footer = createVhdFooter({ sizeBytes, timeMs: clock.nowMs(), uniqueId: random.bytes(16) });
  await file.write(footer, 0, vhdFooterBytes, sizeBytes);
}

/** Size of the disk in a VHD that holds this many bytes. */
export function vhdSizeOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / alignmentBytes) * alignmentBytes;
}

/** Size of the disk that a footer describes; undefined unless it is a whole footer of a fixed disk. */
export function readVhdSize(footer: Buffer): number | undefined {
  const isFixed = footer.length === vhdFooterBytes && footer.toString("latin1", 0, 8) === "conectix" && footer.readUInt32BE(60) === fixed;
  if (!isFixed || footer.readUInt32BE(64) !== checksumOf(footer)) return undefined;
  return Number(footer.readBigUInt64BE(48));
}

export function createVhdFooter(facts: { readonly sizeBytes: number; readonly timeMs: number; readonly uniqueId: Uint8Array }): Buffer {
  const footer = Buffer.alloc(vhdFooterBytes);
  footer.write("conectix", 0, "latin1");
  footer.writeUInt32BE(2, 8); // Features: a bit that is always set.
  footer.writeUInt32BE(0x0001_0000, 12);
  footer.fill(0xff, 16, 24); // A fixed disk has no header elsewhere.
  footer.writeUInt32BE(Math.floor((facts.timeMs - epochMs) / 1000), 24);
  // Readers take the size from the geometry, which is rounded, unless they know a writer that sets the size itself; this is one.
  footer.write("win ", 28, "latin1");
  footer.writeUInt32BE(0x000a_0000, 32);
  footer.write("Wi2k", 36, "latin1");
  footer.writeBigUInt64BE(BigInt(facts.sizeBytes), 40);
  footer.writeBigUInt64BE(BigInt(facts.sizeBytes), 48);
  const { cylinders, heads, sectors } = geometryOf(facts.sizeBytes / 512);
  footer.writeUInt16BE(cylinders, 56);
  footer.writeUInt8(heads, 58);
  footer.writeUInt8(sectors, 59);
  footer.writeUInt32BE(fixed, 60);
  footer.set(facts.uniqueId, 68);
  footer.writeUInt32BE(checksumOf(footer), 64);
  return footer;
}

/** One's complement of the sum of all bytes but the checksum's own. */
function checksumOf(footer: Buffer): number {
  let sum = 0;
  for (const [index, byte] of footer.entries()) if (index < 64 || index >= 68) sum += byte;
  return ~sum >>> 0;
}

/** The specification's appendix, CHS Calculation. */
function geometryOf(sectorCount: number): { readonly cylinders: number; readonly heads: number; readonly sectors: number } {
  const total = Math.min(sectorCount, 65_535 * 16 * 255);
  if (total >= 65_535 * 16 * 63) return { cylinders: Math.floor(total / 255 / 16), heads: 16, sectors: 255 };
  let sectors = 17;
  let cylindersByHeads = Math.floor(total / sectors);
  let heads = Math.max(4, Math.floor((cylindersByHeads + 1023) / 1024));
  if (cylindersByHeads >= heads * 1024 || heads > 16) {
    [sectors, heads] = [31, 16];
    cylindersByHeads = Math.floor(total / sectors);
  }
  if (cylindersByHeads >= heads * 1024) {
    [sectors, heads] = [63, 16];
    cylindersByHeads = Math.floor(total / sectors);
  }
  return { cylinders: Math.floor(cylindersByHeads / heads), heads, sectors };
}
