// Promises of reading in threads out of local files: the bytes of the point, whole and in parts, whatever happens to the files meanwhile.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { PointId } from "../contract/ids.ts";
import { blockBytes, granuleBytes, granulesPerBlock } from "../disk/geometry.ts";
import { openDirectoryStore } from "../store/directory-store.ts";
import type { Store } from "../store/store.ts";
import { openVaultReader } from "./open-vault.ts";
import { diskId, newMachine, newPoint, openTestVault, patchBlock, sealFacts, sealWhole, testKey, vaultId } from "./test-vault.ts";
import type { Vault, VaultReader } from "./vault.ts";

const blockCount = 30;
const roundCount = 4;

/** Text, noise, zeros, and a short last block. */
function makeContent(): Buffer {
  const content = Buffer.alloc(blockCount * blockBytes - 3 * granuleBytes - 100);
  for (let block = 0; block < blockCount; block++) {
    if (block % 5 === 1) continue;
    const [from, to] = [block * blockBytes, Math.min(content.length, (block + 1) * blockBytes)];
    if (block % 2 === 0) randomBytes(to - from).copy(content, from);
    else content.fill(`line ${block} of a file\n`, from, to);
  }
  return content;
}

interface Kept {
  readonly folder: string;
  readonly vault: Vault;
  /** Each point with what it holds: a full one, then ones with changed granules. */
  readonly points: readonly { readonly pointId: PointId; readonly content: Buffer }[];
  openReader(): Promise<VaultReader>;
}

async function withVault(task: (kept: Kept) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "watari-read-"));
  try {
    await using store = await openDirectoryStore(folder);
    await using vault = await openTestVault(store, { packBytes: 512 << 10 });
    const machineId = newMachine();
    const content = makeContent();
    const points = [{ pointId: await sealWhole(vault, machineId, content), content: Buffer.from(content) }];
    for (let round = 0; round < roundCount; round++) {
      const parentPointId = points.at(-1)?.pointId ?? assert.fail("there is a first point");
      const pointId = newPoint();
      const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
      await using writer = await vault.beginPoint({ pointId, machineId, parentPointId, disks });
      for (let block = 0; block < blockCount - 1; block += 2) {
        const index = (block + round) % granulesPerBlock;
        const bytes = randomBytes(granuleBytes);
        bytes.copy(content, block * blockBytes + index * granuleBytes);
        await patchBlock(writer, diskId, block, [{ index, bytes }]);
      }
      await writer.seal(sealFacts);
      points.push({ pointId, content: Buffer.from(content) });
    }
    const openReader: Kept["openReader"] = async () =>
      await openVaultReader({ store, vaultId, key: testKey, blockThreads: 2, blockCacheBytesMax: 4 * blockBytes });
    await task({ folder, vault, points, openReader });
  } finally {
    await rm(folder, { recursive: true });
  }
}

function counted(store: Store): { readonly store: Store; readonly counts: { gets: number } } {
  const counts = { gets: 0 };
  const counting: Store = {
    put: async (key, bytes) => await store.put(key, bytes),
    get: async (key, range) => {
      counts.gets += 1;
      return await store.get(key, range);
    },
    head: async (key) => await store.head(key),
    list: (prefix) => store.list(prefix),
    remove: async (key) => await store.remove(key),
    localFile: (key) => store.localFile?.(key),
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
  return { store: counting, counts };
}

async function packFiles(folder: string): Promise<string[]> {
  const names = await readdir(join(folder, "packs"), { recursive: true, withFileTypes: true });
  return names.filter((each) => each.isFile()).map((each) => join(each.parentPath, each.name));
}

describe("A disk of packs in local files", () => {
  it("gives any range of any point, patched or not, into any memory, to many at once", async () => {
    await withVault(async ({ points, openReader }) => {
      await using reader = await openReader();
      for (const { pointId, content } of points) {
        await using disk = await reader.openDisk(pointId, diskId);
        const range = fc.record({
          from: fc.nat(content.length - 1),
          length: fc.integer({ min: 1, max: 20 * blockBytes }),
          isShared: fc.boolean(),
        });
        const small = fc.record({ from: fc.nat(content.length - 1), length: fc.integer({ min: 1, max: 9000 }), isShared: fc.boolean() });
        await fc.assert(
          fc.asyncProperty(fc.array(fc.oneof(range, small), { minLength: 1, maxLength: 12 }), async (wishes) => {
            await Promise.all(
              wishes.map(async ({ from, length: wanted, isShared }) => {
                const length = Math.min(wanted, content.length - from);
                const into = isShared ? Buffer.from(new SharedArrayBuffer(length)) : Buffer.alloc(length);
                await disk.read(from, into);
                assert.ok(into.equals(content.subarray(from, from + length)), `${length} bytes from ${from}`);
              }),
            );
          }),
          { numRuns: 12 },
        );
      }
    });
  });

  it("is read by its files alone once its packs and pages are known", async () => {
    await withVault(async ({ folder, points }) => {
      await using folderStore = await openDirectoryStore(folder);
      const { store, counts } = counted(folderStore);
      await using reader = await openVaultReader({ store, vaultId, key: testKey, blockThreads: 2 });
      const { pointId, content } = points.at(-1) ?? assert.fail("there are points");
      await using disk = await reader.openDisk(pointId, diskId);
      await disk.extents(0, disk.sizeBytes);
      const before = counts.gets;
      const whole = Buffer.alloc(content.length);
      await disk.read(0, whole);
      assert.ok(whole.equals(content));
      assert.equal(counts.gets, before);
    });
  });

  it("never gives a byte that was changed in a file, and gives all of it again when the file is whole", async () => {
    await withVault(async ({ folder, points, openReader }) => {
      const { pointId, content } = points.at(-1) ?? assert.fail("there are points");
      await using reader = await openReader();
      await using disk = await reader.openDisk(pointId, diskId);
      await disk.read(0, Buffer.alloc(1)); // Packs and pages are known, files are open.
      await disk.extents(0, disk.sizeBytes);
      const whole = new Map<string, Buffer>();
      for (const path of await packFiles(folder)) whole.set(path, await readFile(path));
      for (let round = 0; round < 6; round++) {
        for (const [path, bytes] of whole) {
          const damaged = Buffer.from(bytes);
          for (let at = 50 + 37 * round; at < damaged.length * 0.9; at += 30_000)
            damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << round), at);
          // Into the file as it is, which threads have open.
          await writeFile(path, damaged, { flag: "r+" });
        }
        let refusedCount = 0;
        for (let at = 0; at < content.length; at += granuleBytes * 7) {
          const into = Buffer.alloc(Math.min(granuleBytes * (1 + (at % 5)), content.length - at), 0xee);
          const isGiven = await disk.read(at, into).then(
            () => true,
            (error: unknown) => {
              assert.equal(error instanceof Error && "code" in error && error.code, "DataDamaged");
              return false;
            },
          );
          if (isGiven) assert.ok(into.equals(content.subarray(at, at + into.length)), `wrong bytes at ${at}`);
          else refusedCount += 1;
        }
        assert.ok(refusedCount > 0, "some of it is damaged");
        for (const [path, bytes] of whole) await writeFile(path, bytes, { flag: "r+" });
      }
      const all = Buffer.alloc(content.length);
      await disk.read(0, all);
      assert.ok(all.equals(content));
    });
  });

  it("goes on when its packs are rewritten and removed below it", async () => {
    await withVault(async ({ vault, points, openReader }) => {
      const { pointId: oldId } = points.at(-1) ?? assert.fail("there are points");
      const machineId = (await vault.point(oldId))?.machineId ?? assert.fail("the point is there");
      // Most of it is new, the rest stands in packs of the points before, which are then mostly garbage.
      const content = Buffer.from(points[0]?.content ?? assert.fail("there are points"));
      for (let block = 0; block < blockCount - 1; block += 2) randomBytes(blockBytes - 1).copy(content, block * blockBytes);
      const pointId = await sealWhole(vault, machineId, content);
      await using reader = await openReader();
      await using disk = await reader.openDisk(pointId, diskId);
      const read = async (): Promise<void> => {
        const into = Buffer.alloc(content.length);
        await disk.read(0, into);
        assert.ok(into.equals(content));
      };
      await read();
      for (const each of points) await vault.removePoint(machineId, each.pointId);
      const report = await vault.collect({ orphanGraceMs: 0, liveShareMin: 1 });
      assert.ok(report.rewrittenPackCount > 0, "packs went");
      await read();
      await using fresh = await openReader();
      await using again = await fresh.openDisk(pointId, diskId);
      const into = Buffer.alloc(5000);
      await again.read(4 * blockBytes + 100, into);
      assert.ok(into.equals(content.subarray(4 * blockBytes + 100, 4 * blockBytes + 5100)));
    });
  });
});
