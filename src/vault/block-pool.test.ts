// Promises of work on blocks in other threads: the same objects as without, and nothing of a point with a wrong block.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import { computeRoot } from "../disk/compute-root.ts";
import { blockIdOf } from "../disk/block-id.ts";
import { blockBytes, granuleBytes, granulesPerBlock } from "../disk/geometry.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import { MemoryStore } from "../store/memory-store.ts";
import { openVaultReader } from "./open-vault.ts";
import {
  assertContent,
  blockAt,
  diskId,
  newMachine,
  newPoint,
  openTestVault,
  sealFacts,
  testKey,
  vaultId,
  patchBlock,
} from "./test-vault.ts";
import type { PointWriter, SentBlock } from "./vault.ts";

const blockCount = 40;
const small = { packBytes: 512 << 10 };

/** Text, noise, zeros and blocks that are there twice. */
function makeContent(): Buffer {
  const content = Buffer.alloc(blockCount * blockBytes);
  for (let block = 0; block < blockCount; block++) {
    if (block % 5 === 1) continue;
    if (block % 2 === 0) randomBytes(blockBytes).copy(content, block * blockBytes);
    else content.fill(`line ${block} of a file\n`, block * blockBytes, (block + 1) * blockBytes);
  }
  content.copyWithin(9 * blockBytes, 8 * blockBytes, 9 * blockBytes);
  return content;
}

/** The blocks in one shared memory, as the appliance receives them. */
function sentBlocks(content: Buffer, blocks: readonly number[]): SentBlock[] {
  const parts = blocks.map((block) => {
    const plain = blockAt(content, block);
    const packed = zstdCompressSync(plain);
    return packed.length < plain.length * 0.9
      ? { plain, bytes: packed, packing: "zstd" as const }
      : { plain, bytes: plain, packing: "raw" as const };
  });
  const memory = new Uint8Array(new SharedArrayBuffer(parts.reduce((sum, { bytes }) => sum + bytes.length, 0)));
  let at = 0;
  return parts.map(({ plain, bytes, packing }, index) => {
    memory.set(bytes, at);
    at += bytes.length;
    return { block: blocks[index] ?? 0, id: blockIdOf(plain), bytes: memory.subarray(at - bytes.length, at), packing };
  });
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

async function sendAllTogether(writer: PointWriter, content: Buffer): Promise<void> {
  const isData = (block: number): boolean => !blockAt(content, block).equals(Buffer.alloc(blockBytes));
  const blocks = numbers(blockCount).filter(isData);
  const halves = [blocks.filter((block) => block % 3 === 0), blocks.filter((block) => block % 3 !== 0)];
  await Promise.all(halves.map(async (half) => await writer.putBlocks(diskId, sentBlocks(content, half))));
}

for (const blockThreads of [0, 2]) {
  describe(`Vault with ${blockThreads} threads for blocks`, () => {
    const begin = { disks: [{ diskId, sizeBytes: blockCount * blockBytes, isBoot: true, excluded: [] }] };

    test("gives back blocks that were stored as they were sent, and granules that were changed in them", async () => {
      await using store = new MemoryStore();
      await using vault = await openTestVault(store, { ...small, blockThreads, blockCacheBytesMax: blockBytes });
      const machineId = newMachine();
      const content = makeContent();
      const first = newPoint();
      {
        await using writer = await vault.beginPoint({ ...begin, pointId: first, machineId });
        await sendAllTogether(writer, content);
        const { point } = await writer.seal(sealFacts);
        assert.equal(point.disks[0]?.root, await computeRoot(new MemoryDisk(content)));
      }
      const changed = Buffer.from(content);
      let parentPointId = first;
      for (let round = 0; round < 3; round++) {
        const pointId = newPoint();
        await using writer = await vault.beginPoint({ ...begin, pointId, machineId, parentPointId });
        await Promise.all(
          numbers(blockCount).map(async (block) => {
            const index = (block + round) % granulesPerBlock;
            const at = block * blockBytes + index * granuleBytes;
            if (block === 3) changed.fill(0, block * blockBytes, (block + 1) * blockBytes);
            else randomBytes(granuleBytes / 2).copy(changed, at);
            const indexes = block === 3 ? numbers(granulesPerBlock) : [index];
            const start = block * blockBytes;
            const granuleOf = (each: number): Buffer => changed.subarray(start + each * granuleBytes, start + (each + 1) * granuleBytes);
            await patchBlock(
              writer,
              diskId,
              block,
              indexes.map((each) => ({ index: each, bytes: Buffer.from(granuleOf(each)) })),
            );
          }),
        );
        const { point } = await writer.seal(sealFacts);
        assert.equal(point.disks[0]?.root, await computeRoot(new MemoryDisk(changed)));
        parentPointId = pointId;
      }
      await assertContent(vault, first, content);
      await using fresh = await openTestVault(store);
      await assertContent(fresh, parentPointId, changed);
    });

    test("breaks a point with a block that does not fit its id, and takes the machine's next one", async () => {
      await using store = new MemoryStore();
      await using vault = await openTestVault(store, { ...small, blockThreads });
      const machineId = newMachine();
      const content = makeContent();
      const pointId = newPoint();
      {
        await using writer = await vault.beginPoint({ ...begin, pointId, machineId });
        const blocks = sentBlocks(content, [0, 2, 4]);
        const wrong = blocks.map((each) => (each.block === 2 ? { ...each, id: blockIdOf(blockAt(content, 4)) } : each));
        await assert.rejects(writer.putBlocks(diskId, wrong), { code: "DataDamaged" });
        await assert.rejects(async () => await writer.seal(sealFacts), { code: "DataDamaged" });
      }
      assert.equal(await vault.point(pointId), undefined);
      await using writer = await vault.beginPoint({ ...begin, pointId, machineId });
      await sendAllTogether(writer, content);
      await writer.seal(sealFacts);
      await assertContent(vault, pointId, content);
    });

    test("refuses stored bytes that were changed, whole blocks and parts of them", async () => {
      await using store = new MemoryStore();
      const content = makeContent();
      const pointId = newPoint();
      {
        await using vault = await openTestVault(store, { ...small, blockThreads });
        await using writer = await vault.beginPoint({ ...begin, pointId, machineId: newMachine() });
        await sendAllTogether(writer, content);
        await writer.seal(sealFacts);
      }
      await using damaged = new MemoryStore();
      for await (const { key } of store.list("")) {
        const bytes = Buffer.from((await store.get(key)) ?? assert.fail("absent"));
        // Every entry of 64 KiB or its frame has one of these bytes.
        if (key.startsWith("packs/")) for (let at = 100; at < bytes.length / 2; at += 200) bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
        await damaged.put(key, bytes);
      }
      await using reader = await openVaultReader({ store: damaged, vaultId, key: testKey, blockThreads });
      await using disk = await reader.openDisk(pointId, diskId);
      const whole = Buffer.from(new SharedArrayBuffer(8 * blockBytes));
      await assert.rejects(disk.read(0, whole), { code: "DataDamaged" });
      await assert.rejects(disk.read(0, Buffer.alloc(8 * blockBytes)), { code: "DataDamaged" });
      await assert.rejects(disk.read(granuleBytes, Buffer.alloc(granuleBytes)), { code: "DataDamaged" });
    });

    test("gives the same bytes into shared memory, own memory, and in parts, to many readers at once", async () => {
      await using store = new MemoryStore();
      const content = makeContent();
      const pointId = newPoint();
      await using vault = await openTestVault(store, { ...small, blockThreads });
      await using writer = await vault.beginPoint({ ...begin, pointId, machineId: newMachine() });
      await sendAllTogether(writer, content);
      await writer.seal(sealFacts);
      await using reader = await openVaultReader({ store, vaultId, key: testKey, blockThreads, blockCacheBytesMax: blockBytes });
      await using disk = await reader.openDisk(pointId, diskId);
      await Promise.all(
        numbers(24).map(async (turn) => {
          const [offset, length] = [turn * 3 * granuleBytes, (turn % 5 === 0 ? 1 : 12 * granulesPerBlock) * granuleBytes];
          const into = turn % 2 === 0 ? Buffer.from(new SharedArrayBuffer(length)) : Buffer.alloc(length);
          await disk.read(offset, into);
          assert.ok(into.equals(content.subarray(offset, offset + length)), `turn ${turn}`);
        }),
      );
    });
  });
}
