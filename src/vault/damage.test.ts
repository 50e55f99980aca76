// Damage and crashes: every cut and every flipped bit is refused, and what was sealed stays readable.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { Fault } from "../contract/errors.ts";
import type { MachineId, PointId } from "../contract/ids.ts";
import { blockIdOf } from "../disk/block-id.ts";
import { blockBytes, granuleBytes } from "../disk/geometry.ts";
import { withFaults, type FaultMoment } from "../store/faulty-store.ts";
import { MemoryStore } from "../store/memory-store.ts";
import type { Store } from "../store/store.ts";
import { openVaultReader } from "./open-vault.ts";
import {
  assertContent,
  diskId,
  newMachine,
  newPoint,
  openTestVault,
  sealFacts,
  sealWhole,
  testKey,
  vaultId,
  patchBlock,
} from "./test-vault.ts";
import type { Vault } from "./vault.ts";

async function patchPoint(vault: Vault, machineId: MachineId, parentPointId: PointId, content: Buffer): Promise<PointId> {
  const pointId = newPoint();
  await using writer = await vault.beginPoint({
    pointId,
    machineId,
    parentPointId,
    disks: [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }],
  });
  const bytes = Buffer.alloc(granuleBytes, pointId);
  bytes.copy(content, 0);
  await patchBlock(writer, diskId, 0, [{ index: 0, bytes }]);
  await writer.seal(sealFacts);
  return pointId;
}

type MadePoints = readonly (readonly [PointId, Buffer])[];

/** A store with two points of a small disk: full blocks, a patch, pages. Reading both points uses every byte of it. */
async function madeStore(): Promise<{ store: MemoryStore; points: MadePoints }> {
  const store = new MemoryStore();
  await using vault = await openTestVault(store);
  const machineId = newMachine();
  const content = Buffer.alloc(3 * blockBytes, "some text that compresses well, ");
  for (const block of [0, 1]) randomBytes(200).copy(content, block * blockBytes);
  const before = Buffer.from(content);
  const parent = await sealWhole(vault, machineId, content);
  const pointId = await patchPoint(vault, machineId, parent, content);
  return {
    store,
    points: [
      [parent, before],
      [pointId, content],
    ],
  };
}

async function copyWith(store: Store, key: string, bytes: Uint8Array): Promise<MemoryStore> {
  const copy = new MemoryStore();
  for await (const blob of store.list(""))
    await copy.put(blob.key, blob.key === key ? bytes : ((await store.get(blob.key)) ?? assert.fail("absent")));
  return copy;
}

/** Reads every point; a fault must be DataDamaged, and content that is given must be right. Answers whether there was a fault. */
async function isRefused(store: Store, points: MadePoints, key = testKey): Promise<boolean> {
  await using reader = await openVaultReader({ store, vaultId, key });
  let wasRefused = false;
  for (const [pointId, content] of points)
    try {
      await assertContent(reader, pointId, content);
    } catch (error) {
      assert.ok(error instanceof Fault && error.code === "DataDamaged", String(error));
      wasRefused = true;
    }
  // What only changes are built on is seen by who reads everything.
  return wasRefused || (await reader.verify()).damagedCount > 0;
}

describe("Vault objects", () => {
  it("are refused when one bit is flipped", async () => {
    const { store, points } = await madeStore();
    for await (const { key, sizeBytes } of store.list("")) {
      const bytes = (await store.get(key)) ?? assert.fail("absent");
      for (let bit = 0; bit < sizeBytes * 8; bit += sizeBytes > 2000 ? 29 : 13) {
        const flipped = Uint8Array.from(bytes);
        flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        assert.ok(await isRefused(await copyWith(store, key, flipped), points), `bit ${bit} of ${sizeBytes} bytes of ${key} is noticed`);
      }
    }
  });

  it("are refused at every length that is not their own", async () => {
    const { store, points } = await madeStore();
    for await (const { key, sizeBytes } of store.list("")) {
      const bytes = (await store.get(key)) ?? assert.fail("absent");
      for (let cut = 0; cut < sizeBytes; cut += sizeBytes > 2000 ? 17 : 3)
        assert.ok(await isRefused(await copyWith(store, key, bytes.subarray(0, cut)), points), `${key} cut to ${cut}`);
      assert.ok(await isRefused(await copyWith(store, key, Buffer.concat([bytes, Buffer.alloc(1)])), points), "one byte more");
    }
  });

  it("do not open with another key, for another vault, or under another name", async () => {
    const { store, points } = await madeStore();
    assert.ok(await isRefused(store, points, randomBytes(32)));
    const moved = new MemoryStore();
    for await (const { key } of store.list("")) {
      const bytes = (await store.get(key)) ?? assert.fail("absent");
      await moved.put(key.startsWith("packs/") ? key.replace(/.{8}$/, "00000000") : key, bytes);
    }
    assert.ok(await isRefused(moved, points));
  });

  it("that are damaged are named by a verification, block by block, and the rest is read", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const content = randomBytes(20 * blockBytes + 5000);
    const pointId = await sealWhole(vault, newMachine(), content);
    const whole = await vault.verify();
    assert.deepEqual([whole.damagedCount, whole.readBlocks, whole.pointCount], [0, 21, 1]);
    const [pack] = await Array.fromAsync(store.list("packs/"));
    const key = pack?.key ?? assert.fail("absent");
    const bytes = (await store.get(key)) ?? assert.fail("absent");
    bytes[7 * (blockBytes + 16) + 100] = (bytes[7 * (blockBytes + 16) + 100] ?? 0) ^ 1;
    await using reader = await openVaultReader({ store: await copyWith(store, key, bytes), vaultId, key: testKey });
    const report = await reader.verify();
    const { finding, ...place } = report.damaged[0] ?? assert.fail("absent");
    assert.equal(report.damagedCount, 1);
    assert.deepEqual(place, {
      ...{ pointId, diskId, offset: 7 * blockBytes, length: blockBytes },
      ...{ packKey: key, packOffset: 7 * (blockBytes + 16) },
    });
    assert.match(finding, /seal of the entry/);
  });
});

describe("Vault verification", () => {
  it("reads what points share once, and names every point that damage concerns", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const content = randomBytes(130 * blockBytes);
    const machineId = newMachine();
    const first = await sealWhole(vault, machineId, content);
    const second = await patchPoint(vault, machineId, first, content);
    const whole = await vault.verify();
    assert.deepEqual([whole.damagedCount, whole.readBlocks, whole.pointCount], [0, 131, 2]);
    const packs = await Array.fromAsync(store.list("packs/"));
    const { key } = packs.reduce((one, other) => (one.sizeBytes > other.sizeBytes ? one : other));
    const bytes = (await store.get(key)) ?? assert.fail("absent");
    // The first block, on which the second point's patch stands, and one that both points have.
    for (const block of [0, 129]) bytes[block * (blockBytes + 16) + 5] = (bytes[block * (blockBytes + 16) + 5] ?? 0) ^ 8;
    await using reader = await openVaultReader({ store: await copyWith(store, key, bytes), vaultId, key: testKey });
    const { damaged } = await reader.verify();
    const seen = damaged.map(({ pointId, offset }) => `${pointId} ${offset / blockBytes}`);
    const expected = [first, second].flatMap((pointId) => [0, 129].map((block) => `${pointId} ${block}`));
    assert.deepEqual(seen.toSorted(), expected.toSorted());
    assert.deepEqual(await reader.verify({ pointId: second }).then((report) => report.damagedCount), 2);
    const gone = new MemoryStore();
    for await (const blob of store.list(""))
      if (blob.key !== key) await gone.put(blob.key, (await store.get(blob.key)) ?? assert.fail("absent"));
    await using without = await openVaultReader({ store: gone, vaultId, key: testKey });
    assert.ok((await without.verify()).damagedCount >= 2);
  });
});

describe("Lost points", () => {
  it("are found in packs and restored, the damaged ones not", async () => {
    const store = new MemoryStore();
    const machineId = newMachine();
    const content = randomBytes(5 * blockBytes);
    const before = Buffer.from(content);
    const points = await (async () => {
      await using vault = await openTestVault(store);
      const first = await sealWhole(vault, machineId, content);
      const second = await patchPoint(vault, machineId, first, content);
      const third = await sealWhole(vault, newMachine(), randomBytes(blockBytes));
      await vault.collect();
      return { first, second, third };
    })();
    for await (const { key } of store.list("points/")) await store.remove(key);
    await using vault = await openTestVault(store);
    assert.deepEqual(await Array.fromAsync(vault.listPoints()), []);
    const lost = await Array.fromAsync(vault.listLostPoints());
    assert.deepEqual(new Set(lost.map(({ point }) => point.pointId)), new Set(Object.values(points)));
    assert.ok(lost.every(({ isWhole }) => isWhole));
    for (const { point } of lost) await vault.restoreLostPoint(point.pointId);
    await assertContent(vault, points.first, before);
    await assertContent(vault, points.second, content);
    assert.deepEqual(await Array.fromAsync(vault.listLostPoints()), []);
    await assert.rejects(vault.restoreLostPoint(newPoint()), { code: "NotFound" });
    for await (const { key } of store.list("points/")) await store.remove(key);
    const packs = await Array.fromAsync(store.list("packs/"));
    await store.remove(packs.reduce((one, other) => (one.sizeBytes > other.sizeBytes ? one : other)).key);
    await using poor = await openTestVault(store);
    const left = await Array.fromAsync(poor.listLostPoints());
    assert.equal(left.find(({ point }) => point.pointId === points.second)?.isWhole, false);
    await assert.rejects(poor.restoreLostPoint(points.second), { code: "NotFound" });
  });
});

describe("Vault after a crash", () => {
  for (const moment of ["before", "after"] satisfies FaultMoment[])
    it(`at each store call, the fault coming ${moment} it, reads what was sealed and goes on`, async () => {
      for (let failAt = 1; ; failAt++) {
        const memory = new MemoryStore();
        const machineId = newMachine();
        const content = randomBytes(5 * blockBytes);
        const first = await (async () => {
          await using vault = await openTestVault(memory, { packBytes: 100_000 });
          return await sealWhole(vault, machineId, content);
        })();
        let wasHit = false;
        const faulty = withFaults(memory, ({ number }) => {
          wasHit ||= number === failAt;
          return number >= failAt ? moment : undefined;
        });
        const next = randomBytes(5 * blockBytes);
        await using broken = await openTestVault(faulty, { packBytes: 100_000 });
        const outcome = await sealWhole(broken, machineId, next).catch((error: unknown) => error);
        if (!wasHit) return assert.equal(typeof outcome, "string", "without a fault the point is sealed");
        assert.ok(outcome instanceof Fault && outcome.code === "StoreUnavailable", String(outcome));
        await using reopened = await openTestVault(memory);
        await assertContent(reopened, first, content);
        for await (const point of reopened.listPoints())
          assert.equal((await reopened.verify({ pointId: point.pointId })).damagedCount, 0, "every point that is seen is whole");
        await assertContent(reopened, await sealWhole(reopened, machineId, next), next);
        // The vault that met the faults goes on too, once the store answers again.
        assert.ok(failAt < 100);
      }
    });

  it("never relies on a patch whose base did not become durable", async () => {
    const memory = new MemoryStore();
    const machineId = newMachine();
    const content = randomBytes(4 * blockBytes);
    const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
    // The first pack never arrives; the later ones do.
    let firstKey: string | undefined;
    const losing = withFaults(memory, () => undefined);
    losing.put = async (key, bytes, signal) => {
      firstKey ??= key;
      if (key === firstKey) await new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
      else await memory.put(key, bytes, signal);
    };
    const block = randomBytes(blockBytes);
    {
      await using vault = await openTestVault(losing, { packBytes: 70_000 });
      await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, disks });
      const put = async (index: number, bytes: Buffer): Promise<void> => await writer.putBlock(diskId, index, blockIdOf(bytes), bytes);
      await put(0, Buffer.from(block));
      await put(1, randomBytes(blockBytes));
      const patch = randomBytes(granuleBytes);
      await patchBlock(writer, diskId, 0, [{ index: 2, bytes: patch }]);
      patch.copy(block, 2 * granuleBytes);
      for (let index = 0; index < 4; index++) await put(2, randomBytes(blockBytes));
      assert.ok((await Array.fromAsync(memory.list("packs/"))).length >= 2, "later packs are durable");
    }
    block.copy(content, 0);
    await using reopened = await openTestVault(memory);
    await assertContent(reopened, await sealWhole(reopened, machineId, content), content);
  });

  it("that removed half of a machine removes the rest when asked again", async () => {
    for (let failAt = 1; ; failAt++) {
      const memory = new MemoryStore();
      const machineId = newMachine();
      {
        await using vault = await openTestVault(memory, { packBytes: 100_000 });
        await patchPoint(vault, machineId, await sealWhole(vault, machineId, randomBytes(5 * blockBytes)), Buffer.alloc(5 * blockBytes));
      }
      let wasHit = false;
      const faulty = withFaults(memory, ({ number }) => {
        wasHit ||= number === failAt;
        return number === failAt ? "after" : undefined;
      });
      await using vault = await openTestVault(faulty);
      const outcome = await vault.removeMachine(machineId).catch((error: unknown) => error);
      if (!wasHit) return;
      assert.ok(outcome instanceof Fault);
      for await (const point of vault.listPoints()) assert.equal((await vault.verify({ pointId: point.pointId })).damagedCount, 0);
      await vault.removeMachine(machineId);
      assert.deepEqual(await Array.fromAsync(memory.list("")), []);
    }
  });
});
