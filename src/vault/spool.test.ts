// The spool: packs wait in it while the store is slow or away, a full one is a Fault, and nothing of it outlives its use.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { systemClock, type Clock } from "../base/clock.ts";
import { blockBytes } from "../disk/geometry.ts";
import { withFaults } from "../store/faulty-store.ts";
import { MemoryStore } from "../store/memory-store.ts";
import type { Store } from "../store/store.ts";
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
  patchBlock,
} from "./test-vault.ts";

let folder = "";
before(async () => void (folder = await mkdtemp(join(tmpdir(), "watari-spool-"))));
after(async () => await rm(folder, { recursive: true }));

const packBytes = 100_000;
const disksOf = (content: Buffer) => [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];

/** Puts of packs wait until `release` is called. */
function gatedStore(memory: MemoryStore): { store: Store; release: () => void } {
  const gate = Promise.withResolvers<void>();
  const store = withFaults(memory, () => undefined);
  store.put = async (key, bytes, signal) => {
    if (key.startsWith("packs/"))
      await Promise.race([gate.promise, new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)))]);
    await memory.put(key, bytes, signal);
  };
  return { store, release: () => gate.resolve() };
}

/** A clock whose waits end at once; the vault's waits for a stall are the only ones. */
const impatientClock: Clock = { ...systemClock, sleep: async () => await new Promise((resolve) => setImmediate(resolve)) };
const patientClock: Clock = {
  ...systemClock,
  sleep: async (_waitMs, signal) => await new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason))),
};

describe("Spool", () => {
  it("takes packs while the store waits, gives their blocks back, and is empty at the end", async () => {
    const memory = new MemoryStore();
    const { store, release } = gatedStore(memory);
    const spool = { folder: join(folder, "a"), spoolBytesMax: 10_000_000 };
    await mkdir(spool.folder);
    await writeFile(join(spool.folder, "left-by-a-crash"), "x");
    await using vault = await openTestVault(store, { packBytes, spool, uploadsMax: 1, clock: patientClock, blockCacheBytesMax: 1 });
    assert.deepEqual(await readdir(spool.folder), []);
    const content = randomBytes(20 * blockBytes);
    const pointId = newPoint();
    await using writer = await vault.beginPoint({ pointId, machineId: newMachine(), disks: disksOf(content) });
    await sendAll(writer, content);
    assert.ok((await readdir(spool.folder)).length > 5, "packs wait in the spool");
    const patch = randomBytes(4096);
    for (const block of [0, 3, 19]) {
      await patchBlock(writer, diskId, block, [{ index: 1, bytes: patch }]);
      patch.copy(content, block * blockBytes + 4096);
    }
    release();
    await writer.seal(sealFacts);
    assert.deepEqual(await readdir(spool.folder), []);
    await assertContent(vault, pointId, content);
  });

  it("writes no pack twice while uploads end quickly", async () => {
    const memory = new MemoryStore();
    const spool = { folder: join(folder, "quick"), spoolBytesMax: 10_000_000 };
    const spooled = new Set<string>();
    const store = withFaults(memory, () => undefined);
    store.put = async (key, bytes, signal) => {
      for (const name of await readdir(spool.folder)) spooled.add(name);
      await memory.put(key, bytes, signal);
    };
    const stillClock: Clock = { ...patientClock, monotonicMs: () => 5 };
    await using vault = await openTestVault(store, { packBytes, spool, uploadsMax: 1, clock: stillClock });
    await sealWhole(vault, newMachine(), randomBytes(blockBytes));
    // An upload has ended, and by this clock it is always just now.
    await sealWhole(vault, newMachine(), randomBytes(20 * blockBytes));
    assert.deepEqual([...spooled], []);
  });

  it("waits for room as long as uploads end, and says SpoolFull when none does", async () => {
    const content = randomBytes(20 * blockBytes);
    const spool = { folder: join(folder, "b"), spoolBytesMax: 200_000 };
    await using flowing = await openTestVault(new MemoryStore(), { packBytes, spool, uploadsMax: 1, clock: patientClock });
    await assertContent(flowing, await sealWhole(flowing, newMachine(), content), content);
    const memory = new MemoryStore();
    const { store, release } = gatedStore(memory);
    const machineId = newMachine();
    await using vault = await openTestVault(store, {
      packBytes,
      spool: { ...spool, folder: join(folder, "c") },
      uploadsMax: 1,
      clock: impatientClock,
    });
    {
      await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, disks: disksOf(content) });
      await assert.rejects(sendAll(writer, content), { code: "SpoolFull", retry: "later" });
      await assert.rejects(writer.putBlock(diskId, 0, randomBytes(32), blockAt(content, 0)), { code: "SpoolFull" });
    }
    assert.deepEqual(await readdir(join(folder, "c")), [], "a point that is given up leaves nothing");
    release();
    await assertContent(vault, await sealWhole(vault, machineId, content), content);
  });

  it("tries uploads again while the store is away", async () => {
    const memory = new MemoryStore();
    let failuresLeft = 30;
    const store = withFaults(memory, ({ kind, key }) =>
      kind === "put" && key.startsWith("packs/") && failuresLeft-- > 0 ? "after" : undefined,
    );
    const content = randomBytes(8 * blockBytes);
    await using vault = await openTestVault(store, {
      packBytes,
      spool: { folder: join(folder, "d"), spoolBytesMax: 10_000_000 },
      clock: impatientClock,
    });
    await assertContent(vault, await sealWhole(vault, newMachine(), content), content);
    assert.ok(failuresLeft <= 0);
  });

  it(
    "says SpoolFull when its disk is full",
    { skip: process.getuid?.() === 0 ? false : "mounting a small filesystem needs root" },
    async () => {
      const mount = join(folder, "small");
      await mkdir(mount);
      await promisify(execFile)("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", mount]);
      try {
        const { store } = gatedStore(new MemoryStore());
        await using vault = await openTestVault(store, {
          packBytes,
          spool: { folder: join(mount, "spool"), spoolBytesMax: 10_000_000 },
          uploadsMax: 1,
          clock: patientClock,
        });
        const content = randomBytes(8 * blockBytes);
        await using writer = await vault.beginPoint({ pointId: newPoint(), machineId: newMachine(), disks: disksOf(content) });
        await assert.rejects(sendAll(writer, content), { code: "SpoolFull" });
      } finally {
        await promisify(execFile)("umount", [mount]);
      }
    },
  );
});
