// Partition tables are found where they are, damaged ones count as none, and no input makes the parser fail.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { parseHead } from "./filesystem.ts";
import { readPartitionTable } from "./partition-table.ts";

const sector = 512;

function tableOf(bytes: Buffer) {
  const readAt = async (offset: number, into: Buffer) => {
    assert.ok(offset >= 0 && offset + into.length <= bytes.length, "reads stay inside the disk");
    bytes.copy(into, 0, offset, offset + into.length);
  };
  return readPartitionTable({ sizeBytes: bytes.length, readAt });
}

interface Piece {
  readonly first: number;
  readonly count: number;
}

/** A GPT of its own making: the parser is not tested with the parser's own ideas. */
function gptDisk(sectors: number, pieces: readonly Piece[], copies: "both" | "backup" = "both"): Buffer {
  const disk = Buffer.alloc(sectors * sector);
  disk.writeUInt16LE(0xaa55, 510);
  disk[450] = 0xee;
  disk.writeUInt32LE(1, 454);
  disk.writeUInt32LE(sectors - 1, 458);
  const entries = Buffer.alloc(128 * 128);
  for (const [index, { first, count }] of pieces.entries()) {
    entries.fill(0x11, index * 128, index * 128 + 32);
    entries.writeBigUInt64LE(BigInt(first), index * 128 + 32);
    entries.writeBigUInt64LE(BigInt(first + count - 1), index * 128 + 40);
  }
  const put = (headerSector: number, entriesSector: number) => {
    const header = Buffer.alloc(sector);
    header.write("EFI PART");
    header.writeUInt32LE(92, 12);
    header.writeBigUInt64LE(BigInt(entriesSector), 72);
    header.writeUInt32LE(128, 80);
    header.writeUInt32LE(128, 84);
    header.writeUInt32LE(crc32(entries), 88);
    header.writeUInt32LE(crc32(header.subarray(0, 92)), 16);
    header.copy(disk, headerSector * sector);
    entries.copy(disk, entriesSector * sector);
  };
  if (copies === "both") put(1, 2);
  put(sectors - 1, sectors - 33);
  return disk;
}

const piecesArbitrary = fc.array(fc.record({ first: fc.integer({ min: 40, max: 900 }), count: fc.integer({ min: 1, max: 60 }) }), {
  maxLength: 6,
});

describe("readPartitionTable", () => {
  it("finds GPT partitions, from the backup too", async () => {
    await fc.assert(
      fc.asyncProperty(piecesArbitrary, fc.constantFrom("both" as const, "backup" as const), async (pieces, copies) => {
        const { kind, partitions } = await tableOf(gptDisk(1024, pieces, copies));
        assert.equal(kind, "gpt");
        assert.deepEqual(
          partitions,
          pieces.map(({ first, count }, index) => ({ number: index + 1, offset: first * sector, sizeBytes: count * sector })),
        );
      }),
      { numRuns: 30 },
    );
  });

  it("finds primary and logical MBR partitions as the kernel numbers them", async () => {
    const disk = Buffer.alloc(200 * sector);
    const entry = (at: number, index: number, type: number, first: number, count: number) => {
      disk[at * sector + 446 + index * 16 + 4] = type;
      disk.writeUInt32LE(first, at * sector + 446 + index * 16 + 8);
      disk.writeUInt32LE(count, at * sector + 446 + index * 16 + 12);
      disk.writeUInt16LE(0xaa55, at * sector + 510);
    };
    entry(0, 0, 0x83, 10, 20);
    entry(0, 1, 0x05, 50, 100);
    entry(50, 0, 0x83, 2, 10);
    entry(50, 1, 0x05, 30, 20);
    entry(80, 0, 0x82, 2, 10);
    const { kind, partitions } = await tableOf(disk);
    assert.equal(kind, "mbr");
    assert.deepEqual(
      partitions.map(({ number, offset }) => [number, offset / sector]),
      [
        [1, 10],
        [5, 52],
        [6, 82],
      ],
    );
  });

  it("takes a disk without a table as one partition", async () => {
    const disk = Buffer.alloc(100 * sector);
    assert.deepEqual(await tableOf(disk), { kind: "none", partitions: [{ number: 0, offset: 0, sizeBytes: disk.length }] });
  });

  it("reads no entry of a header whose checksum is wrong", async () => {
    const good = gptDisk(256, [{ first: 40, count: 8 }], "backup");
    await fc.assert(
      fc.asyncProperty(fc.nat(91), fc.integer({ min: 1, max: 255 }), async (at, mask) => {
        const disk = Buffer.from(good);
        const position = 255 * sector + at;
        disk.writeUInt8(disk.readUInt8(position) ^ mask, position);
        assert.equal((await tableOf(disk)).kind, "none");
      }),
    );
  });

  it("never fails on random sectors", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 64, maxLength: 64 }), fc.boolean(), async (bytes, isProtective) => {
        const disk = Buffer.alloc(64 * sector);
        disk.set(bytes, 446);
        if (isProtective) disk[450] = 0xee;
        disk.writeUInt16LE(0xaa55, 510);
        for (const { offset, sizeBytes } of (await tableOf(disk)).partitions) assert.ok(offset >= 0 && offset + sizeBytes <= disk.length);
      }),
    );
  });
});

describe("parseHead", () => {
  it("names filesystems by their marks", () => {
    const head = (at: number, mark: string | number) => {
      const bytes = Buffer.alloc(68 * 1024);
      if (typeof mark === "number") bytes.writeUInt16LE(mark, at);
      else bytes.write(mark, at, "latin1");
      return parseHead(bytes).kind;
    };
    assert.deepEqual(
      [
        head(0x438, 0xef53),
        head(0, "XFSB"),
        head(0x10040, "_BHRfS_M"),
        head(4086, "SWAPSPACE2"),
        head(0, "LUKS\u00ba\u00be"),
        head(0, "?"),
      ],
      ["ext", "xfs", "btrfs", "swap", "luks", "unknown"],
    );
    const lvm = Buffer.alloc(68 * 1024);
    lvm.write("LABELONE", 512);
    lvm.write("LVM2 001", 536);
    assert.equal(parseHead(lvm).kind, "lvm");
  });
});
