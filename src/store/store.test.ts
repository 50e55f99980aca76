// MemoryStore, DirectoryStore and the wrappers.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Clock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { openDirectoryStore } from "./directory-store.ts";
import { withFaults } from "./faulty-store.ts";
import { MemoryStore } from "./memory-store.ts";
import { testStore } from "./store-suite.ts";
import { withReadBack, withStoreLimit, withStoreRetry } from "./wrappers.ts";

let folder = "";
before(async () => void (folder = await mkdtemp(join(tmpdir(), "watari-store-"))));
after(async () => await rm(folder, { recursive: true }));

/** Waits end at once and are counted. */
function countingClock(): Clock & { waits: number[] } {
  const waits: number[] = [];
  return { waits, nowMs: () => 0, monotonicMs: () => 0, sleep: async (waitMs) => void waits.push(waitMs) };
}

testStore("MemoryStore", async () => new MemoryStore());
testStore("DirectoryStore", async () => await openDirectoryStore(join(folder, "suite")));
testStore("the wrappers", async () =>
  withReadBack(withStoreLimit(withStoreRetry(new MemoryStore(), { clock: countingClock(), log: silentLog }), 2)),
);

describe("DirectoryStore", () => {
  it("keeps blobs over a reopening and drops what a crash left half written", async () => {
    const root = join(folder, "reopen");
    const bytes = randomBytes(3 << 20);
    {
      await using store = await openDirectoryStore(root);
      await store.put("a/b", bytes);
      assert.deepEqual(await readdir(join(root, ".tmp")), []);
    }
    await using store = await openDirectoryStore(root);
    assert.ok(bytes.equals((await store.get("a/b")) ?? assert.fail("absent")));
  });

  it("is opened by others while it writes; only what ended writers left is removed", async () => {
    const root = join(folder, "shared");
    await using store = await openDirectoryStore(root);
    const ended = spawnSync(process.execPath, ["-e", ""]).pid;
    const left = join(root, ".tmp", [encodeURIComponent(hostname()), ended, "run", "write"].join("~"));
    await writeFile(left, "cut");
    const opens = async (): Promise<void> => {
      for (let time = 0; time < 40; time++) await (await openDirectoryStore(root))[Symbol.asyncDispose]();
    };
    const writes = Array.from({ length: 80 }, async (_, index) => await store.put(`w/${index}`, randomBytes(1 << 16)));
    await Promise.all([opens(), ...writes]);
    assert.deepEqual(await readdir(join(root, ".tmp")), []);
  });
});

describe("MemoryStore", () => {
  it("refuses what is over its bound and takes it after a removal", async () => {
    const store = new MemoryStore({ bytesMax: 10 });
    await store.put("a", Buffer.alloc(8));
    await assert.rejects(store.put("b", Buffer.alloc(3)), { code: "StoreUnavailable" });
    await store.remove("a");
    await store.put("b", Buffer.alloc(3));
  });
});

describe("withStoreRetry", () => {
  it("tries again what may pass, with growing waits, and gives up after attemptsMax", async () => {
    const clock = countingClock();
    let failures = 3;
    const flaky = withFaults(new MemoryStore(), () => (failures-- > 0 ? "before" : undefined));
    const store = withStoreRetry(flaky, { clock, log: silentLog, attemptsMax: 4, firstWaitMs: 10 });
    await store.put("a", Buffer.from("x"));
    assert.deepEqual(clock.waits, [10, 20, 40]);
    failures = 4;
    await assert.rejects(store.get("a"), { code: "StoreUnavailable" });
  });

  it("puts once although the answer was lost", async () => {
    let failures = 1;
    const memory = new MemoryStore();
    const store = withStoreRetry(
      withFaults(memory, () => (failures-- > 0 ? "after" : undefined)),
      { clock: countingClock(), log: silentLog },
    );
    await store.put("a", Buffer.from("x"));
    assert.ok(await memory.get("a"));
  });

  it("takes a broken list up where it broke", async () => {
    const memory = new MemoryStore();
    for (const key of ["a", "b", "c", "d"]) await memory.put(key, Buffer.from(key));
    let isBroken = false;
    const breaking = withFaults(memory, () => undefined);
    breaking.list = async function* (prefix) {
      for await (const blob of memory.list(prefix)) {
        if (blob.key === "c" && !isBroken) {
          isBroken = true;
          await withFaults(memory, () => "before").head("c");
        }
        yield blob;
      }
    };
    const store = withStoreRetry(breaking, { clock: countingClock(), log: silentLog });
    assert.deepEqual(
      (await Array.fromAsync(store.list(""))).map(({ key }) => key),
      ["a", "b", "c", "d"],
    );
    assert.ok(isBroken);
  });

  it("does not repeat what cannot pass", async () => {
    const clock = countingClock();
    const store = withStoreRetry(new MemoryStore(), { clock, log: silentLog });
    await store.put("a", Buffer.from("x"));
    await assert.rejects(store.put("a", Buffer.from("y")), { code: "StateConflict" });
    assert.deepEqual(clock.waits, []);
  });
});

describe("withStoreLimit", () => {
  it("never runs more calls at once than allowed", async () => {
    const memory = new MemoryStore();
    let running = 0;
    let most = 0;
    const counted = withFaults(memory, () => undefined);
    counted.head = async (key) => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
      return await memory.head(key);
    };
    const store = withStoreLimit(counted, 3);
    await Promise.all(Array.from({ length: 20 }, async (_, index) => await store.head(`k${index}`)));
    assert.equal(most, 3);
  });
});

describe("withReadBack", () => {
  it("notices a store that keeps other bytes than it was given", async () => {
    const memory = new MemoryStore();
    const lying = withFaults(memory, () => undefined);
    lying.put = async (key) => await memory.put(key, Buffer.from("other"));
    await assert.rejects(withReadBack(lying).put("a", Buffer.from("bytes")), { code: "DataDamaged" });
  });
});
