// A vault whose index lies in a folder: it is there again when the vault is opened again, and never believed against the store.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { PointId } from "../contract/ids.ts";
import { blockIdOf } from "../disk/block-id.ts";
import { blockBytes } from "../disk/geometry.ts";
import { MemoryStore } from "../store/memory-store.ts";
import type { Store } from "../store/store.ts";
import { assertContent, blockAt, diskId, newMachine, newPoint, openTestVault, sealFacts, sealWhole } from "./test-vault.ts";
import type { VaultOptions } from "./open-vault.ts";

async function inFolder(test: (options: Partial<VaultOptions>) => Promise<void>): Promise<void> {
  const indexFolder = await mkdtemp(join(tmpdir(), "watari-index-"));
  try {
    await test({ indexFolder, indexTableMax: 32, packBytes: 9 * blockBytes });
  } finally {
    await rm(indexFolder, { recursive: true });
  }
}

/** Counts what is read of packs. */
function countingReads(store: Store): { readonly store: Store; readonly packReads: () => number } {
  let count = 0;
  const counting: Store = {
    put: async (key, bytes, signal) => await store.put(key, bytes, signal),
    get: async (key, range, signal) => {
      if (key.startsWith("packs/")) count += 1;
      return await store.get(key, range, signal);
    },
    head: async (key, signal) => await store.head(key, signal),
    list: (prefix, signal) => store.list(prefix, signal),
    remove: async (key, signal) => await store.remove(key, signal),
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
  return { store: counting, packReads: () => count };
}

describe("A vault with an index folder", () => {
  it("knows all of before when it is opened again, without reading a pack", async () => {
    await inFolder(async (options) => {
      const store = new MemoryStore();
      const machineId = newMachine();
      const content = randomBytes(150 * blockBytes);
      let pointId: PointId;
      {
        await using vault = await openTestVault(store, options);
        pointId = await sealWhole(vault, machineId, content);
      }
      const counting = countingReads(store);
      await using vault = await openTestVault(counting.store, options);
      const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
      await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, disks });
      const ids = Array.from({ length: 150 }, (_, block) => blockIdOf(blockAt(content, block)));
      assert.deepEqual(new Set(await writer.need(diskId, 0, ids)), new Set([false]));
      assert.equal(counting.packReads(), 0);
      await assertContent(vault, pointId, content);
    });
  });

  it("tells another machine nothing of what it has kept", async () => {
    await inFolder(async (options) => {
      const store = new MemoryStore();
      const content = randomBytes(40 * blockBytes);
      {
        await using vault = await openTestVault(store, options);
        await sealWhole(vault, newMachine(), content);
      }
      await using vault = await openTestVault(store, options);
      const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
      await using writer = await vault.beginPoint({ pointId: newPoint(), machineId: newMachine(), disks });
      assert.deepEqual(await writer.need(diskId, 0, [blockIdOf(blockAt(content, 3))]), [true]);
    });
  });

  it("asks again for content whose pack went while it was closed, and takes in packs that it missed", async () => {
    await inFolder(async (options) => {
      const store = new MemoryStore();
      const machineId = newMachine();
      const content = randomBytes(40 * blockBytes);
      {
        await using vault = await openTestVault(store, options);
        await sealWhole(vault, machineId, content);
      }
      const [gone = assert.fail("there are packs")] = await Array.fromAsync(store.list("packs/"), ({ key }) => key);
      const more = randomBytes(40 * blockBytes);
      {
        await using vault = await openTestVault(store);
        await sealWhole(vault, machineId, more);
      }
      await store.remove(gone);
      await using vault = await openTestVault(store, options);
      const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
      await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, disks });
      let neededCount = 0;
      for (const bytes of [content, more])
        for (let block = 0; block < 40; block++) {
          const [isNeeded] = await writer.need(diskId, block, [blockIdOf(blockAt(bytes, block))]);
          if (isNeeded === true) neededCount += 1;
        }
      assert.ok(neededCount > 0 && neededCount <= 9, `${neededCount} blocks of one pack`);
    });
  });

  it("collects, moves entries and verifies as one that has all in memory", async () => {
    await inFolder(async (options) => {
      const store = new MemoryStore();
      const machineId = newMachine();
      const contents: Buffer[] = [];
      const points: PointId[] = [];
      const common = randomBytes(20 * blockBytes);
      for (let round = 0; round < 4; round++) {
        await using vault = await openTestVault(store, options);
        const content = Buffer.concat([common, randomBytes(30 * blockBytes)]);
        contents.push(content);
        points.push(await sealWhole(vault, machineId, content));
        if (round > 0) await vault.removePoint(machineId, points[round - 1] ?? newPoint());
        await vault.collect({ orphanGraceMs: 0, liveShareMin: 1 });
        await assertContent(vault, points[round] ?? newPoint(), content);
        assert.equal((await vault.verify()).damagedCount, 0);
      }
      await using vault = await openTestVault(store, options);
      await vault.collect({ orphanGraceMs: 0, liveShareMin: 1 });
      const left = await vault.collect({ isDryRun: true, orphanGraceMs: 0, liveShareMin: 1 });
      assert.deepEqual([left.removedPackCount, left.rewrittenPackCount], [0, 0]);
      await using writer = await vault.beginPoint({
        pointId: newPoint(),
        machineId,
        parentPointId: points[3] ?? newPoint(),
        disks: [{ diskId, sizeBytes: common.length + 30 * blockBytes, isBoot: true, excluded: [] }],
      });
      await writer.seal(sealFacts);
    });
  });
});
