// MemoryDisk, FileDisk, excluded ranges and computeRoot.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { computeRoot } from "./compute-root.ts";
import { idOf, zeroId } from "./digest.ts";
import { testWritableDisk } from "./disk-suite.ts";
import { withExcludedRanges } from "./excluded-disk.ts";
import { openFileDisk } from "./file-disk.ts";
import { blockBytes } from "./geometry.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { rootOfBlockIds } from "./page-tree.ts";

let folder = "";
before(async () => void (folder = await mkdtemp(join(tmpdir(), "watari-disk-"))));
after(async () => await rm(folder, { recursive: true }));
const freshPath = (): string => join(folder, randomUUID());

testWritableDisk("MemoryDisk", { make: async (sizeBytes) => new MemoryDisk(new Uint8Array(sizeBytes)) });
testWritableDisk("FileDisk", { make: async (createSizeBytes) => await openFileDisk(freshPath(), { access: "write", createSizeBytes }) });

function rootByDefinition(content: Buffer): string {
  const ids: Uint8Array[] = [];
  for (let offset = 0; offset < content.length; offset += blockBytes) {
    const block = Buffer.alloc(blockBytes);
    content.copy(block, 0, offset, offset + blockBytes);
    ids.push(idOf(Buffer.concat(Array.from({ length: 16 }, (_, granule) => idOf(block.subarray(granule * 4096, (granule + 1) * 4096))))));
  }
  return rootOfBlockIds(Buffer.concat(ids));
}

describe("FileDisk", () => {
  it("knows the holes of a sparse file", async () => {
    await using disk = await openFileDisk(freshPath(), { access: "write", createSizeBytes: 4 << 20 });
    await disk.write(1 << 20, Buffer.alloc(65_536, 1));
    await disk.flush();
    assert.deepEqual(await disk.extents(0, 4 << 20), [
      { offset: 0, length: 1 << 20, kind: "zero" },
      { offset: 1 << 20, length: 65_536, kind: "data" },
      { offset: (1 << 20) + 65_536, length: (3 << 20) - 65_536, kind: "zero" },
    ]);
  });

  it("tells a missing file and one that is in the way", async () => {
    await assert.rejects(openFileDisk(freshPath(), { access: "read" }), { code: "NotFound" });
    const path = freshPath();
    await (await openFileDisk(path, { access: "write", createSizeBytes: 1 }))[Symbol.asyncDispose]();
    await assert.rejects(openFileDisk(path, { access: "write", createSizeBytes: 1 }), { code: "StateConflict" });
  });
});

describe("computeRoot", () => {
  it("is the root of the padded blocks at any size", async () => {
    for (const sizeBytes of [1, 65_536, 65_537, 128 * blockBytes, 128 * blockBytes + 1, 260 * blockBytes + 12_345]) {
      const content = Buffer.alloc(sizeBytes);
      randomBytes(Math.min(sizeBytes, 100_000)).copy(content, sizeBytes - Math.min(sizeBytes, 100_000));
      assert.equal(await computeRoot(new MemoryDisk(content)), rootByDefinition(content), `${sizeBytes} bytes`);
    }
    assert.equal(await computeRoot(new MemoryDisk(Buffer.alloc(0))), Buffer.from(zeroId).toString("hex"));
  });
});

describe("withExcludedRanges", () => {
  it("reads excluded ranges as zeros in content, extents and root", async () => {
    const content = randomBytes(300_000);
    const excluded = [
      { offset: 70_000, length: 10 },
      { offset: 65_536, length: 65_536 },
      { offset: 299_000, length: 5000 },
      { offset: 5, length: 0 },
    ];
    const expected = Buffer.from(content).fill(0, 65_536, 131_072).fill(0, 299_000);
    await using disk = withExcludedRanges(new MemoryDisk(content), excluded);
    for (const [from, to] of [
      [0, 300_000],
      [65_000, 66_000],
      [70_001, 70_004],
      [298_999, 300_000],
    ] as const) {
      const part = Buffer.alloc(to - from, 1);
      await disk.read(from, part);
      assert.ok(part.equals(expected.subarray(from, to)));
    }
    assert.deepEqual(
      (await disk.extents(0, 300_000)).map(({ offset, kind }) => [offset, kind]),
      [
        [0, "data"],
        [65_536, "zero"],
        [131_072, "data"],
        [299_000, "zero"],
      ],
    );
    assert.equal(await computeRoot(disk), rootByDefinition(expected));
  });
});
