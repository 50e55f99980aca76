// Several appliances on one vault: each collects only what it wrote, and a machine that moves keeps what it brought along.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { systemClock, type Clock } from "../base/clock.ts";
import { parseAreaId, type AreaId, type MachineId, type PointId } from "../contract/ids.ts";
import { blockBytes, granuleBytes } from "../disk/geometry.ts";
import { MemoryStore } from "../store/memory-store.ts";
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

const everything = { orphanGraceMs: 0, liveShareMin: 1 } as const;

async function change(vault: Vault, machineId: MachineId, content: Buffer, parentPointId: PointId): Promise<PointId> {
  const pointId = newPoint();
  const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
  await using writer = await vault.beginPoint({ pointId, machineId, parentPointId, disks });
  const bytes = randomBytes(granuleBytes);
  bytes.copy(content, blockBytes);
  await patchBlock(writer, diskId, 1, [{ index: 0, bytes }]);
  await writer.seal(sealFacts);
  return pointId;
}

const keysOf = async (store: MemoryStore, areaId: AreaId): Promise<string[]> =>
  (await Array.fromAsync(store.list(`packs/${areaId}/`))).map(({ key }) => key);

describe("Several writers of a vault", () => {
  it("leave each other's packs alone, also those of points under way", async () => {
    const store = new MemoryStore();
    const [one, other] = [parseAreaId(randomUUID()), parseAreaId(randomUUID())];
    await using first = await openTestVault(store, { areaId: one, packBytes: 100_000 });
    await using second = await openTestVault(store, { areaId: other, packBytes: 100_000 });
    const content = randomBytes(6 * blockBytes);
    const kept = await sealWhole(first, newMachine(), content);
    const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
    await using writer = await second.beginPoint({ pointId: newPoint(), machineId: newMachine(), disks });
    for (let block = 0; block < 6; block++) await patchBlock(writer, diskId, block, [{ index: 0, bytes: randomBytes(granuleBytes) }]);
    for (let block = 0; block < 6; block++) {
      const granules = Array.from({ length: 16 }, (_, index) => ({ index, bytes: randomBytes(granuleBytes) }));
      await patchBlock(writer, diskId, block, granules);
    }
    const before = await keysOf(store, other);
    assert.ok(before.length > 0);
    const report = await first.collect(everything);
    assert.equal(report.packCount, (await keysOf(store, one)).length);
    assert.deepEqual(await keysOf(store, other), before);
    await second.collect(everything);
    assert.deepEqual(await keysOf(store, other), before, "packs of a point under way stay");
    const { storedBytes } = await writer.seal(sealFacts);
    assert.ok(storedBytes > content.length, "nothing of another writer's area is relied upon");
    await assertContent(second, kept, content);
  });

  it("keep what a machine brought along when it moved, until its points need it no more", async () => {
    const store = new MemoryStore();
    let monotonicMs = 0;
    const clock: Clock = { ...systemClock, monotonicMs: () => monotonicMs };
    const [before, after] = [parseAreaId(randomUUID()), parseAreaId(randomUUID())];
    const machineId = newMachine();
    const content = randomBytes(4 * blockBytes);
    await using first = await openTestVault(store, { areaId: before, clock });
    const base = await sealWhole(first, machineId, content);
    const old = Buffer.from(content);
    await using second = await openTestVault(store, { areaId: after, clock });
    const moved = await change(second, machineId, content, base);
    const middle = Buffer.from(content);
    assert.equal(await second.removePoint(machineId, base), "held", "who lists the points now could miss it and the one upon it");
    const newest = await change(second, machineId, content, moved);
    assert.equal(await second.removePoint(machineId, moved), "held");
    for (const vault of [first, second]) await vault.collect(everything);
    await assertContent(second, moved, middle);
    await assertContent(second, newest, content);
    monotonicMs += 11 * 60_000;
    for (const pointId of [base, moved]) assert.equal(await second.removePoint(machineId, pointId), "removed");
    for (const vault of [first, second, first, second]) await vault.collect(everything);
    await using reader = await openVaultReader({ store, vaultId, key: testKey });
    await assertContent(reader, newest, content);
    assert.ok((await keysOf(store, before)).length > 0, "unchanged blocks stand where they were");
    const whole = await sealWhole(second, machineId, old);
    monotonicMs += 11 * 60_000;
    assert.equal(await second.removePoint(machineId, newest), "removed");
    for (const vault of [first, second]) await vault.collect(everything);
    assert.deepEqual(await keysOf(store, before), []);
    await assertContent(reader, whole, old);
  });
});
