// The vault's promises over a store in memory: round trips, sharing, order, refusal.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import type { PointId } from "../contract/ids.ts";
import { computeRoot } from "../disk/compute-root.ts";
import { blockIdOf } from "../disk/block-id.ts";
import { idOf, toHex, zeroId } from "../disk/digest.ts";
import { blockBytes, granuleBytes } from "../disk/geometry.ts";
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
  sealWhole,
  sendAll,
  testKey,
  vaultId,
  patchBlock,
} from "./test-vault.ts";

describe("Vault", () => {
  it("gives back random disks after random patches over several points, in another process's reader too", async () => {
    const patch = fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), fill: fc.nat(3) });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 600_000 }),
        fc.array(fc.record({ patches: fc.array(patch, { maxLength: 30 }), grow: fc.nat(200_000) }), { minLength: 1, maxLength: 12 }),
        fc.boolean(),
        async (firstSize, generations, isSmallPack) => {
          const store = new MemoryStore();
          await using vault = await openTestVault(store, {
            packBytes: isSmallPack ? 100_000 : 64 << 20,
            blockCacheBytesMax: isSmallPack ? 70_000 : 1 << 20,
          });
          const machineId = newMachine();
          let content = randomBytes(firstSize);
          content.fill(0, Math.floor(firstSize / 3), Math.floor(firstSize / 2));
          let parentPointId = await sealWhole(vault, machineId, content);
          const made: [PointId, Buffer][] = [[parentPointId, Buffer.from(content)]];
          for (const { patches, grow } of generations) {
            content = Buffer.concat([content, Buffer.alloc(grow)]);
            const pointId = newPoint();
            await using writer = await vault.beginPoint({
              pointId,
              machineId,
              parentPointId,
              disks: [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }],
            });
            const running: Promise<void>[] = [];
            for (const { at, fill } of patches) {
              const granule = Math.floor((at * content.length) / granuleBytes);
              const bytes = fill === 0 ? Buffer.alloc(granuleBytes) : randomBytes(granuleBytes);
              bytes.fill(0, Math.min(granuleBytes, content.length - granule * granuleBytes));
              bytes.copy(content, granule * granuleBytes);
              running.push(patchBlock(writer, diskId, Math.floor(granule / 16), [{ index: granule % 16, bytes }]));
            }
            await Promise.all(running);
            const { point } = await writer.seal(sealFacts);
            assert.equal(point.disks[0]?.root, await computeRoot(new MemoryDisk(content)));
            made.push([pointId, Buffer.from(content)]);
            parentPointId = pointId;
          }
          await using reader = await openVaultReader({ store, vaultId, key: testKey });
          for (const [pointId, expected] of made) {
            await assertContent(vault, pointId, expected);
            await assertContent(reader, pointId, expected);
          }
          await using reopened = await openTestVault(store);
          for (const [pointId, expected] of made) await assertContent(reopened, pointId, expected);
        },
      ),
      { numRuns: 15 },
    );
  });

  it("lists points with their facts, by machine and in all", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const [one, other] = [newMachine(), newMachine()];
    const points = [
      await sealWhole(vault, one, randomBytes(10)),
      await sealWhole(vault, one, randomBytes(10)),
      await sealWhole(vault, other, randomBytes(10)),
    ];
    await using reader = await openVaultReader({ store, vaultId, key: testKey });
    const listed = await Array.fromAsync(reader.listPoints());
    assert.deepEqual(listed.map(({ pointId }) => pointId).sort(), [...points].sort());
    assert.equal((await Array.fromAsync(reader.listPoints(one))).length, 2);
    const found = await reader.point(points[2] ?? assert.fail("absent"));
    assert.equal(found?.machineId, other);
    assert.equal(found.timeMs, 1000);
    assert.equal(await reader.point(newPoint()), undefined);
    await assert.rejects(reader.openDisk(newPoint(), diskId), { code: "NotFound" });
  });

  it("stores changed granules, not changed blocks", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const machineId = newMachine();
    const content = randomBytes(32 << 20);
    const parentPointId = await sealWhole(vault, machineId, content);
    await using writer = await vault.beginPoint({
      pointId: newPoint(),
      machineId,
      parentPointId,
      disks: [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }],
    });
    for (let block = 0; block < 512; block += 8) await patchBlock(writer, diskId, block, [{ index: 3, bytes: randomBytes(granuleBytes) }]);
    const { storedBytes } = await writer.seal(sealFacts);
    assert.ok(storedBytes < 64 * granuleBytes * 1.15, `${storedBytes} bytes stored for ${64 * granuleBytes} changed`);
  });

  it("stores a block once for a machine, and tells no machine what another one has", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const [one, other] = [newMachine(), newMachine()];
    const content = Buffer.concat([randomBytes(blockBytes), Buffer.alloc(blockBytes)]);
    await sealWhole(vault, one, content);
    const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
    await using again = await vault.beginPoint({ pointId: newPoint(), machineId: one, disks });
    assert.equal(await sendAll(again, content), 0);
    await using foreign = await vault.beginPoint({ pointId: newPoint(), machineId: other, disks });
    const id = blockIdOf(blockAt(content, 0));
    assert.deepEqual(await foreign.need(diskId, 0, [id, zeroId]), [true, false]);
    assert.throws(() => foreign.setBlock(diskId, 0, id), { code: "InputInvalid" });
    assert.equal(await sendAll(foreign, content), 1);
    const { point } = await foreign.seal(sealFacts);
    await assertContent(vault, point.pointId, content);
  });

  it("refuses bytes that do not fit their id, and pages given as blocks", async () => {
    await using vault = await openTestVault(new MemoryStore());
    const machineId = newMachine();
    const content = randomBytes(blockBytes);
    const pointId = await sealWhole(vault, machineId, content);
    const root = (await vault.point(pointId))?.disks[0]?.root ?? assert.fail("absent");
    await using writer = await vault.beginPoint({
      pointId: newPoint(),
      machineId,
      disks: [{ diskId, sizeBytes: 2 * blockBytes, isBoot: true, excluded: [] }],
    });
    const bytes = randomBytes(blockBytes);
    await assert.rejects(writer.putBlock(diskId, 0, blockIdOf(content), bytes), { code: "DataDamaged" });
    await assert.rejects(writer.putBlock(diskId, 0, zeroId, bytes), { code: "DataDamaged" });
    await assert.rejects(writer.putBlock(diskId, 0, idOf(bytes.subarray(1)), bytes.subarray(1)), { code: "DataDamaged" });
    await assert.rejects(writer.putBlock(diskId, 2, blockIdOf(bytes), bytes), { code: "InputInvalid" });
    const granule = Buffer.alloc(granuleBytes);
    for (const granules of [[32], [1, 0], [3, 3], [-1], [0.5], [0, 1], []])
      await assert.rejects(writer.changeGranules(diskId, { granules, bytes: granule, packing: "raw" }), { code: "InputInvalid" });
    const wrong = { granules: [0], bytes: granule, packing: "raw", digest: idOf(randomBytes(granuleBytes)) } as const;
    await assert.rejects(writer.changeGranules(diskId, wrong), { code: "DataDamaged" });
    await assert.rejects(writer.changeGranules(diskId, { granules: [0], bytes: granule, packing: "zstd" }), { code: "DataDamaged" });
    assert.deepEqual(await writer.need(diskId, 0, [Buffer.from(root, "hex"), blockIdOf(bytes)]), [true, true]);
  });

  it("takes blocks as zstd frames, and refuses frames of other content", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const machineId = newMachine();
    const content = Buffer.concat([Buffer.alloc(blockBytes, "text "), randomBytes(blockBytes)]);
    const [textId, noiseId] = [blockIdOf(blockAt(content, 0)), blockIdOf(blockAt(content, 1))];
    const pointId = newPoint();
    await using writer = await vault.beginPoint({
      pointId,
      machineId,
      disks: [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }],
    });
    const frameOf = (bytes: Uint8Array): Uint8Array => zstdCompressSync(bytes);
    for (const frame of [
      frameOf(blockAt(content, 1)),
      frameOf(Buffer.alloc(blockBytes + 1, "text ")),
      frameOf(Buffer.alloc(1 << 30)),
      frameOf(blockAt(content, 0)).subarray(0, 10),
      randomBytes(100),
      new Uint8Array(0),
    ])
      await assert.rejects(writer.putBlock(diskId, 0, textId, frame, "zstd"), { code: "DataDamaged" });
    await writer.putBlock(diskId, 0, textId, frameOf(blockAt(content, 0)), "zstd");
    await writer.putBlock(diskId, 1, noiseId, frameOf(blockAt(content, 1)), "zstd");
    await writer.seal(sealFacts);
    await using reader = await openVaultReader({ store, vaultId, key: testKey });
    await assertContent(reader, pointId, content);
  });

  it("lets the last of several writes to a block win", async () => {
    await using vault = await openTestVault(new MemoryStore(), { packBytes: 100_000, blockCacheBytesMax: 1 });
    const machineId = newMachine();
    const content = randomBytes(8 * blockBytes);
    const parentPointId = await sealWhole(vault, machineId, content);
    const pointId = newPoint();
    await using writer = await vault.beginPoint({
      pointId,
      machineId,
      parentPointId,
      disks: [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }],
    });
    const granules = Array.from({ length: 4 }, () => randomBytes(granuleBytes));
    const patch = async (block: number, index: number, which: number): Promise<void> =>
      await patchBlock(writer, diskId, block, [{ index, bytes: granules[which] ?? assert.fail("absent") }]);
    const full = randomBytes(blockBytes);
    const running = [patch(0, 1, 0), patch(0, 2, 1), patch(0, 1, 2), patch(1, 0, 0), patch(2, 0, 0)];
    writer.setBlock(diskId, 1, zeroId);
    running.push(patch(1, 5, 3), writer.putBlock(diskId, 2, blockIdOf(full), full), patch(2, 4, 1));
    await Promise.all(running);
    await writer.seal(sealFacts);
    granules[2]?.copy(content, granuleBytes);
    granules[1]?.copy(content, 2 * granuleBytes);
    content.fill(0, blockBytes, 2 * blockBytes);
    granules[3]?.copy(content, blockBytes + 5 * granuleBytes);
    full.copy(content, 2 * blockBytes);
    granules[1]?.copy(content, 2 * blockBytes + 4 * granuleBytes);
    await assertContent(vault, pointId, content);
  });

  it("shows nothing of a point that was given up, and takes the machine's next point", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store, { packBytes: 100_000 });
    const machineId = newMachine();
    const content = randomBytes(10 * blockBytes);
    const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
    {
      await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, disks });
      await sendAll(writer, content);
      await assert.rejects(vault.beginPoint({ pointId: newPoint(), machineId, disks }), { code: "StateConflict" });
      await assert.rejects(vault.removeMachine(machineId), { code: "StateConflict" });
    }
    assert.deepEqual(await Array.fromAsync(vault.listPoints()), []);
    await assertContent(vault, await sealWhole(vault, machineId, content), content);
  });

  it("stores a block once for all machines, tells none of the others, and keeps what one still needs", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const [one, other] = [newMachine(), newMachine()];
    const shared = randomBytes(20 * blockBytes);
    const own = randomBytes(blockBytes);
    const gone = await sealWhole(vault, one, Buffer.concat([shared, own]));
    const pointId = newPoint();
    const disks = [{ diskId, sizeBytes: shared.length, isBoot: true, excluded: [] }];
    {
      await using writer = await vault.beginPoint({ pointId, machineId: other, disks });
      assert.equal(await sendAll(writer, shared), 20, "the appliance asks for what this machine did not send");
      assert.equal(await sendAll(writer, shared), 0, "and then no more");
      const { storedBytes, sharedBytes } = await writer.seal(sealFacts);
      assert.ok(storedBytes < blockBytes, `${storedBytes} bytes stored`);
      assert.ok(sharedBytes >= shared.length, `${sharedBytes} bytes shared`);
    }
    const { freedBytes } = await vault.removeMachine(one);
    assert.ok(freedBytes < blockBytes, "what the other needs is most of the pack");
    await vault.collect({ liveShareMin: 1 });
    assert.deepEqual(await vault.removeMachine(one), { freedBytes: 0 });
    assert.equal(await vault.point(gone), undefined);
    await assertContent(vault, pointId, shared);
    await using reader = await openVaultReader({ store, vaultId, key: testKey });
    await assertContent(reader, pointId, shared);
    await assertContent(vault, await sealWhole(vault, one, shared), shared);
  });

  it("refuses bytes of another digest also where another machine stored the content", async () => {
    await using vault = await openTestVault(new MemoryStore());
    const content = randomBytes(blockBytes);
    await sealWhole(vault, newMachine(), content);
    const disks = [{ diskId, sizeBytes: blockBytes, isBoot: true, excluded: [] }];
    await using writer = await vault.beginPoint({ pointId: newPoint(), machineId: newMachine(), disks });
    const wrong = { block: 0, id: blockIdOf(content), bytes: randomBytes(blockBytes), packing: "raw" } as const;
    await assert.rejects(writer.putBlocks(diskId, [wrong]), { code: "DataDamaged" });
  });

  it("refuses a smaller disk, an unknown parent and a sealed point", async () => {
    await using vault = await openTestVault(new MemoryStore());
    const machineId = newMachine();
    const parentPointId = await sealWhole(vault, machineId, randomBytes(2 * blockBytes));
    const disks = [{ diskId, sizeBytes: blockBytes, isBoot: true, excluded: [] }];
    await assert.rejects(vault.beginPoint({ pointId: newPoint(), machineId, parentPointId, disks }), { code: "InputInvalid" });
    await assert.rejects(vault.beginPoint({ pointId: newPoint(), machineId, parentPointId: newPoint(), disks }), { code: "NotFound" });
    await assert.rejects(vault.beginPoint({ pointId: newPoint(), machineId: newMachine(), parentPointId, disks }), { code: "NotFound" });
    await assert.rejects(vault.beginPoint({ pointId: parentPointId, machineId, disks }), { code: "StateConflict" });
  });

  it("tells the id of a block, and refuses to seal under other roots", async () => {
    await using vault = await openTestVault(new MemoryStore());
    const machineId = newMachine();
    const content = randomBytes(3 * blockBytes);
    const parentPointId = await sealWhole(vault, machineId, content);
    const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
    const root = await computeRoot(new MemoryDisk(content));
    {
      await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, parentPointId, disks });
      assert.deepEqual((await writer.blockIds(diskId, 1, 1)).map(toHex), [toHex(blockIdOf(blockAt(content, 1)))]);
      writer.setBlock(diskId, 1, zeroId);
      assert.deepEqual((await writer.blockIds(diskId, 1, 1)).map(toHex), [toHex(zeroId)]);
      await assert.rejects(writer.seal({ ...sealFacts, expectedRoots: [{ diskId, root }] }), { code: "RootsDiffer" });
    }
    assert.equal((await Array.fromAsync(vault.listPoints())).length, 1);
    await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, parentPointId, disks });
    await writer.seal({ ...sealFacts, expectedRoots: [{ diskId, root }] });
  });
});
