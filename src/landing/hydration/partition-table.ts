// Finds the partitions of a disk: GPT with its checksums, MBR with logical partitions, or a disk without a table.

import { crc32 } from "node:zlib";

/** Fills `into` from `offset` of a disk. */
export type ReadAt = (offset: number, into: Buffer) => Promise<void>;

export interface Partition {
  /** As the guest's kernel counts: sda1 is 1; 0 is the whole disk when it has no table. */
  readonly number: number;
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface PartitionTable {
  readonly kind: "gpt" | "mbr" | "none";
  readonly partitions: readonly Partition[];
}

const sectorBytes = 512;
const entryCountMax = 256;
const logicalCountMax = 60;
const extendedTypes = new Set([0x05, 0x0f, 0x85]);

/** Reads the table. A partition that leaves the disk is left out. A damaged table counts as none. */
export async function readPartitionTable(disk: { readonly sizeBytes: number; readonly readAt: ReadAt }): Promise<PartitionTable> {
  if (disk.sizeBytes < 2 * sectorBytes) return wholeDisk(disk.sizeBytes);
  const sector = await readSector(disk.readAt, 0);
  if (sector.readUInt16LE(510) !== 0xaa55) return wholeDisk(disk.sizeBytes);
  const primaries = [0, 1, 2, 3].map((index) => parseMbrEntry(sector, index));
  const fits = ({ offset, sizeBytes }: Partition) => sizeBytes > 0 && offset > 0 && offset + sizeBytes <= disk.sizeBytes;
  if (primaries.some(({ type }) => type === 0xee)) {
    const lastSector = Math.floor(disk.sizeBytes / sectorBytes) - 1;
    const partitions = (await readGpt(disk, 1)) ?? (await readGpt(disk, lastSector));
    return partitions === undefined ? wholeDisk(disk.sizeBytes) : { kind: "gpt", partitions: partitions.filter(fits) };
  }
  // A filesystem without a table may carry the same two bytes; then no entry makes sense.
  const partitions = [...ofPrimaries(primaries), ...(await readLogicals(disk.readAt, primaries, disk.sizeBytes))].filter(fits);
  return partitions.length === 0 || !primaries.every(({ status }) => status === 0 || status === 0x80)
    ? wholeDisk(disk.sizeBytes)
    : { kind: "mbr", partitions };
}

interface MbrEntry {
  readonly status: number;
  readonly type: number;
  readonly firstSector: number;
  readonly sectorCount: number;
}

function parseMbrEntry(sector: Buffer, index: number): MbrEntry {
  const at = 446 + index * 16;
  return {
    status: sector.readUInt8(at),
    type: sector.readUInt8(at + 4),
    firstSector: sector.readUInt32LE(at + 8),
    sectorCount: sector.readUInt32LE(at + 12),
  };
}

function ofPrimaries(primaries: readonly MbrEntry[]): readonly Partition[] {
  return primaries.flatMap((entry, index) => (isPlain(entry) ? [partitionOf(index + 1, entry.firstSector, entry.sectorCount)] : []));
}

function isPlain({ type, sectorCount }: MbrEntry): boolean {
  return type !== 0 && sectorCount > 0 && !extendedTypes.has(type);
}

/** Follows the chain of extended boot records; a loop ends at the bound. */
async function readLogicals(readAt: ReadAt, primaries: readonly MbrEntry[], diskBytes: number): Promise<readonly Partition[]> {
  const extended = primaries.find(({ type }) => extendedTypes.has(type));
  if (extended === undefined) return [];
  const found: Partition[] = [];
  let recordSector = extended.firstSector;
  for (let count = 0; count < logicalCountMax && (recordSector + 1) * sectorBytes <= diskBytes; count++) {
    const record = await readSector(readAt, recordSector);
    if (record.readUInt16LE(510) !== 0xaa55) break;
    const own = parseMbrEntry(record, 0);
    if (isPlain(own)) found.push(partitionOf(5 + found.length, recordSector + own.firstSector, own.sectorCount));
    const next = parseMbrEntry(record, 1);
    if (!extendedTypes.has(next.type) || next.firstSector === 0) break;
    recordSector = extended.firstSector + next.firstSector;
  }
  return found;
}

async function readGpt(
  disk: { readonly sizeBytes: number; readonly readAt: ReadAt },
  headerSector: number,
): Promise<readonly Partition[] | undefined> {
  const header = await readSector(disk.readAt, headerSector);
  if (header.toString("latin1", 0, 8) !== "EFI PART") return undefined;
  const headerBytes = header.readUInt32LE(12);
  if (headerBytes < 92 || headerBytes > sectorBytes) return undefined;
  const signed = Buffer.from(header.subarray(0, headerBytes));
  signed.writeUInt32LE(0, 16);
  if (crc32(signed) !== header.readUInt32LE(16)) return undefined;
  const entryCount = header.readUInt32LE(80);
  const entryBytes = header.readUInt32LE(84);
  const entriesAt = Number(header.readBigUInt64LE(72)) * sectorBytes;
  if (entryCount > entryCountMax || entryBytes < 128 || entryBytes > 4096) return undefined;
  if (entriesAt + entryCount * entryBytes > disk.sizeBytes) return undefined;
  const entries = Buffer.alloc(entryCount * entryBytes);
  await disk.readAt(entriesAt, entries);
  if (crc32(entries) !== header.readUInt32LE(88)) return undefined;
  return Array.from({ length: entryCount }, (_, index) => index).flatMap((index) => {
    const entry = entries.subarray(index * entryBytes, (index + 1) * entryBytes);
    if (entry.subarray(0, 16).every((byte) => byte === 0)) return [];
    const first = Number(entry.readBigUInt64LE(32));
    const last = Number(entry.readBigUInt64LE(40));
    return last < first ? [] : [partitionOf(index + 1, first, last - first + 1)];
  });
}

function partitionOf(number: number, firstSector: number, sectorCount: number): Partition {
  return { number, offset: firstSector * sectorBytes, sizeBytes: sectorCount * sectorBytes };
}

function wholeDisk(sizeBytes: number): PartitionTable {
  return { kind: "none", partitions: [{ number: 0, offset: 0, sizeBytes }] };
}

async function readSector(readAt: ReadAt, sector: number): Promise<Buffer> {
  const bytes = Buffer.alloc(sectorBytes);
  await readAt(sector * sectorBytes, bytes);
  return bytes;
}
