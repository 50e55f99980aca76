// Copies of packs on this machine: changes read what they stand on there, in bounds, and a removed pack is gone here too.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { blockBytes, granuleBytes } from "../disk/geometry.ts";
import { withFaults } from "../store/faulty-store.ts";
import { openLocalCopies } from "../store/local-copies.ts";
import { MemoryStore } from "../store/memory-store.ts";
import type { Store } from "../store/store.ts";
import { assertContent, diskId, newMachine, newPoint, openTestVault, sealFacts, sealWhole, patchBlock } from "./test-vault.ts";
import type { Vault } from "./vault.ts";
import type { MachineId, PointId } from "../contract/ids.ts";

const blockCount = 96;

function counted(memory: Store): { readonly store: Store; readonly counts: { gets: number } } {
  const counts = { gets: 0 };
  const store = withFaults(memory, ({ kind, key }) => {
    if (kind === "get" && key.startsWith("packs/")) counts.gets += 1;
    return undefined;
  });
  return { store, counts };
}

/** One granule of each block changes. */
async function change(vault: Vault, machineId: MachineId, content: Buffer, parentPointId: PointId): Promise<PointId> {
  const pointId = newPoint();
  const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
  await using writer = await vault.beginPoint({ pointId, machineId, parentPointId, disks });
  for (let block = 0; block < blockCount; block++) {
    const bytes = randomBytes(granuleBytes);
    bytes.copy(content, block * blockBytes);
    await patchBlock(writer, diskId, block, [{ index: 0, bytes }]);
  }
  await writer.seal(sealFacts);
  return pointId;
}

async function inFolder(task: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "watari-copies-"));
  try {
    await task(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe("Local copies of packs", () => {
  it("spare changes the call for each block that they stand on", async () => {
    await inFolder(async (folder) => {
      const getsOf = async (isCopied: boolean): Promise<number> => {
        const { store, counts } = counted(new MemoryStore());
        const options = { folder: join(folder, "copies"), bytesMax: 100 << 20, prefix: "packs/", freeBytesMin: 0 };
        const near = isCopied ? await openLocalCopies(store, options) : store;
        await using vault = await openTestVault(near, { packBytes: 1 << 20, blockCacheBytesMax: 1 });
        const machineId = newMachine();
        const content = randomBytes(blockCount * blockBytes);
        const first = await sealWhole(vault, machineId, content);
        const second = await change(vault, machineId, content, first);
        const { gets } = counts;
        await assertContent(vault, second, content);
        if (isCopied) await near[Symbol.asyncDispose]();
        return gets;
      };
      const [far, near] = [await getsOf(false), await getsOf(true)];
      assert.ok(far >= blockCount, `${far} calls without copies`);
      assert.equal(near, 0);
    });
  });

  it("of packs from before are fetched whole once parts of them are read again and again", async () => {
    await inFolder(async (folder) => {
      const memory = new MemoryStore();
      const machineId = newMachine();
      const content = randomBytes(blockCount * blockBytes);
      const first = await (async () => {
        await using vault = await openTestVault(memory);
        return await sealWhole(vault, machineId, content);
      })();
      const { store, counts } = counted(memory);
      await using near = await openLocalCopies(store, {
        folder: join(folder, "c"),
        bytesMax: 100 << 20,
        prefix: "packs/",
        freeBytesMin: 0,
      });
      await using vault = await openTestVault(near, { blockCacheBytesMax: 1 });
      const second = await change(vault, machineId, content, first);
      assert.ok(counts.gets < blockCount / 2, `${counts.gets} calls`);
      await assertContent(vault, second, content);
    });
  });

  it("stay within their bounds, and go with their packs", async () => {
    await inFolder(async (folder) => {
      const memory = new MemoryStore();
      const bytesMax = 3 << 20;
      const [copies, poorCopies] = [join(folder, "c"), join(folder, "p")];
      await using near = await openLocalCopies(memory, { folder: copies, bytesMax, prefix: "packs/", freeBytesMin: 0 });
      await using vault = await openTestVault(near, { packBytes: 1 << 20, blockCacheBytesMax: 1 });
      const machineId = newMachine();
      const content = randomBytes(blockCount * blockBytes);
      const pointId = await sealWhole(vault, machineId, content);
      assert.ok((await readdir(copies)).length <= 3);
      await assertContent(vault, pointId, content);
      await vault.removeMachine(machineId);
      assert.deepEqual(await readdir(copies), []);
      await using full = await openLocalCopies(memory, {
        folder: poorCopies,
        bytesMax,
        prefix: "packs/",
        freeBytesMin: Number.MAX_SAFE_INTEGER,
      });
      await using poor = await openTestVault(full, { packBytes: 1 << 20, blockCacheBytesMax: 1 });
      await assertContent(poor, await sealWhole(poor, machineId, content), content);
      assert.deepEqual(await readdir(poorCopies), []);
    });
  });
});
