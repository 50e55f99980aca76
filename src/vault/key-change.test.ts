// Keys that change while the vault is open: what is sealed with which, and when one may go.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { blockBytes } from "../disk/geometry.ts";
import { MemoryStore } from "../store/memory-store.ts";
import { openVaultReader } from "./open-vault.ts";
import type { VaultKeys } from "./sealing.ts";
import {
  assertContent,
  diskId,
  newMachine,
  newPoint,
  openTestVault,
  sealFacts,
  sealWhole,
  sendAll,
  testKey,
  vaultId,
} from "./test-vault.ts";

const second = randomBytes(32);
const both: VaultKeys = {
  current: 2,
  keys: new Map([
    [1, testKey],
    [2, second],
  ]),
};
const newer: VaultKeys = { current: 2, keys: new Map([[2, second]]) };

describe("A change of the vault's keys", () => {
  it("takes hold while the vault is open: new objects take the new key, collection rewrites the old ones, then the old key may go", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const machineId = newMachine();
    const [before, after] = [randomBytes(3 * blockBytes), randomBytes(2 * blockBytes)];
    const old = await sealWhole(vault, machineId, before);
    assert.equal(vault.hasOlderSeals(), false);
    await using reader = await openVaultReader({ store, vaultId, key: testKey });
    await assertContent(reader, old, before);
    await vault.useKeys(both);
    assert.equal(vault.hasOlderSeals(), true);
    const young = await sealWhole(vault, machineId, after);
    await reader.useKeys(both);
    await assertContent(reader, young, after);
    assert.deepEqual(
      (await reader.countSeals()).counts.map(({ generation, packCount, pointCount }) => ({ generation, packCount, pointCount })),
      [
        { generation: 1, packCount: 1, pointCount: 1 },
        { generation: 2, packCount: 1, pointCount: 1 },
      ],
    );
    await assert.rejects(vault.useKeys(newer), { code: "StateConflict", message: /packs are sealed with it/ });
    await vault.collect();
    assert.equal(vault.hasOlderSeals(), false);
    await assertContent(vault, old, before);
    await vault.removePoint(machineId, old);
    await vault.collect({ orphanGraceMs: 0 });
    const { counts, unreadableCount } = await reader.countSeals();
    assert.deepEqual([counts.map(({ generation }) => generation), unreadableCount], [[2], 0]);
    await vault.useKeys(newer);
    await assertContent(vault, young, after);
  });

  it("does not take a key away from a point under way", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const [machineId, pointId] = [newMachine(), newPoint()];
    const content = randomBytes(2 * blockBytes);
    {
      await using writer = await vault.beginPoint({
        pointId,
        machineId,
        disks: [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }],
      });
      await sendAll(writer, content);
      await vault.useKeys(both);
      await assert.rejects(vault.useKeys(newer), { code: "StateConflict" });
      await writer.seal(sealFacts);
    }
    await assertContent(vault, pointId, content);
  });

  it("counts what does not say how it is sealed, and names it", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    await sealWhole(vault, newMachine(), randomBytes(blockBytes));
    await store.put("points/x/y", Buffer.from("not a point"));
    await store.put("packs/x/y", Buffer.alloc(100));
    const { counts, unreadableCount, unreadableKeys } = await vault.countSeals();
    assert.deepEqual([counts.length, unreadableCount, unreadableKeys], [1, 2, ["packs/x/y", "points/x/y"]]);
  });
});
