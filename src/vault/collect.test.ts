// Collection beside writers, readers, retention and crashes, in every order: no live point loses a byte, and no garbage stays.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseAreaId, parsePackId, type MachineId, type PointId } from "../contract/ids.ts";
import { blockIdOf } from "../disk/block-id.ts";
import { isZeroId, toHex } from "../disk/digest.ts";
import { blockBytes, granuleBytes } from "../disk/geometry.ts";
import { withFaults, type FaultMoment } from "../store/faulty-store.ts";
import { MemoryStore } from "../store/memory-store.ts";
import type { Store } from "../store/store.ts";
import { openVaultReader } from "./open-vault.ts";
import { openStoredPack, type FoundPack } from "./pack.ts";
import { toVaultSecret } from "./sealing.ts";
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
  patchBlock,
} from "./test-vault.ts";
import type { Vault } from "./vault.ts";

const blockCount = 6;
/** Some blocks each, so that a point takes several calls. */
const packBytes = 9000;
/** Blocks 0 to 4 are the common ones, in base 7 of a choice. */
const inCommon = 0 + 7 * (1 + 7 * (2 + 7 * (3 + 7 * (4 + 7 * 6))));
const everything = { orphanGraceMs: 0, liveShareMin: 1 } as const;
/** Contents that machines have in common. */
const commonBlocks = Array.from({ length: 5 }, (_, index) =>
  Buffer.concat([randomBytes(3000), Buffer.alloc(blockBytes - 3000, index + 1)]),
);

/** What should be there. */
class Model {
  /** Points that are there, whatever was going on when a crash came. */
  readonly points = new Map<PointId, { readonly machineId: MachineId; readonly content: Buffer }>();
  /** Of every point that was ever about to be sealed. */
  readonly contents = new Map<PointId, Buffer>();

  newestOf(machineId: MachineId): { readonly pointId: PointId; readonly content: Buffer } | undefined {
    const own = [...this.points].filter(([, point]) => point.machineId === machineId);
    const last = own.at(-1);
    return last === undefined ? undefined : { pointId: last[0], content: last[1].content };
  }
}

interface Step {
  readonly kind: "full" | "patch" | "giveUp" | "retain" | "collect" | "read";
  readonly choice: number;
}

const stepsOf = (kinds: readonly Step["kind"][]): fc.Arbitrary<Step[]> =>
  fc.array(fc.record({ kind: fc.constantFrom(...kinds), choice: fc.nat(1 << 20) }), { minLength: 1, maxLength: 5 });

function contentOf(choice: number): Buffer {
  const content = Buffer.alloc(blockCount * blockBytes);
  for (let block = 0, left = choice; block < blockCount; block++, left = Math.floor(left / 7)) {
    const which = left % 7;
    if (which < commonBlocks.length) commonBlocks[which]?.copy(content, block * blockBytes);
    else if (which === 5) randomBytes(500).copy(content, block * blockBytes);
  }
  return content;
}

/** `turn` lets others act in between. */
async function writePoint(
  { vault, model, turn }: { readonly vault: Vault; readonly model: Model; readonly turn: () => Promise<void> },
  machineId: MachineId,
  step: Step,
): Promise<void> {
  const base = step.kind === "patch" ? model.newestOf(machineId) : undefined;
  const content = base === undefined ? contentOf(step.choice) : Buffer.from(base.content);
  const pointId = newPoint();
  const disks = [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }];
  await using writer = await vault.beginPoint({
    ...{ pointId, machineId, disks },
    ...(base === undefined ? {} : { parentPointId: base.pointId }),
  });
  if (base === undefined) {
    await sendAll(writer, content.subarray(0, 3 * blockBytes));
    await turn();
    await sendAll(writer, content);
  } else
    for (let change = 0; change < 3; change++) {
      const granule = Math.floor(step.choice / 5 ** change) % (blockCount * 16);
      const bytes = change === 2 ? Buffer.alloc(granuleBytes, step.choice) : randomBytes(granuleBytes);
      bytes.copy(content, granule * granuleBytes);
      await patchBlock(writer, diskId, Math.floor(granule / 16), [{ index: granule % 16, bytes }]);
      await turn();
    }
  await turn();
  if (step.kind === "giveUp") return;
  model.contents.set(pointId, content);
  await writer.seal(sealFacts);
  model.points.set(pointId, { machineId, content });
}

async function retain(vault: Vault, model: Model, choice: number): Promise<void> {
  const removable = [...model.points].filter(([pointId, { machineId }]) => model.newestOf(machineId)?.pointId !== pointId);
  const [pointId, point] = removable[choice % Math.max(1, removable.length)] ?? [];
  if (pointId === undefined || point === undefined) return;
  model.points.delete(pointId);
  const outcome = await vault.removePoint(point.machineId, pointId);
  if (outcome === "held") model.points.set(pointId, point);
}

async function readOne(reader: Vault | Awaited<ReturnType<typeof openVaultReader>>, model: Model, choice: number): Promise<void> {
  const [pointId, point] = [...model.points][choice % Math.max(1, model.points.size)] ?? [];
  if (pointId === undefined || point === undefined) return;
  const holdId = `reader-${choice}`;
  if (!(await reader.holdPoint(pointId, holdId))) return;
  await assertContent(reader, pointId, point.content);
  await reader.releasePoint(pointId, holdId);
}

/** A crash: from call number `crashAt` on the store is out of this instance's reach; every call takes its turn from the scheduler. */
function scheduledStore(memory: Store, scheduler: fc.Scheduler, crashAt: number): Store {
  const store = withFaults(memory, ({ number }) => (number >= crashAt ? "before" : undefined));
  const turn = async (call: string): Promise<void> => await scheduler.schedule(Promise.resolve(), call).then(() => undefined);
  return {
    put: async (key, bytes, signal) => {
      await turn(`put ${key}`);
      await store.put(key, bytes, signal);
      await turn(`put done ${key}`);
    },
    get: async (key, range, signal) => {
      await turn(`get ${key}`);
      return await store.get(key, range, signal);
    },
    head: async (key, signal) => {
      await turn(`head ${key}`);
      return await store.head(key, signal);
    },
    remove: async (key, signal) => {
      await turn(`remove ${key}`);
      await store.remove(key, signal);
    },
    async *list(prefix, signal) {
      await turn(`list ${prefix}`);
      for await (const blob of store.list(prefix, signal)) {
        yield blob;
        await turn("list on");
      }
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** A new process looks at what there is. */
async function assertAfter(memory: Store, model: Model): Promise<void> {
  await using vault = await openTestVault(memory, { packBytes });
  const there = new Map<PointId, Buffer>();
  for await (const { pointId } of vault.listPoints()) there.set(pointId, model.contents.get(pointId) ?? assert.fail("nobody wrote it"));
  for (const pointId of model.points.keys()) assert.ok(there.has(pointId), "what was sealed and not removed is there");
  for (let round = 0; round < 2; round++) {
    for (const [pointId, content] of there) await assertContent(vault, pointId, content);
    await vault.collect(everything);
  }
  await using reader = await openVaultReader({ store: memory, vaultId, key: testKey });
  for (const [pointId, content] of there) await assertContent(reader, pointId, content);
  await assertNoGarbage(memory, there.values());
}

/** Looks into the packs by itself: every stored block is one of a live point or a base of one, and none is there twice. */
async function assertNoGarbage(store: Store, contents: Iterable<Buffer>): Promise<void> {
  const liveIds = new Set<string>();
  for (const content of contents)
    for (let at = 0; at < content.length; at += blockBytes) {
      const id = blockIdOf(content.subarray(at, at + blockBytes));
      if (!isZeroId(id)) liveIds.add(toHex(id));
    }
  const stored = new Map<string, string | undefined>();
  for await (const { key, sizeBytes } of store.list("packs/")) {
    const [, areaId = "", packId = ""] = key.split("/");
    const found: FoundPack = { key, sizeBytes, areaId: parseAreaId(areaId), packId: parsePackId(packId) };
    const opened = await openStoredPack({ store, secret: toVaultSecret(vaultId, testKey) }, found);
    for (const row of opened?.index.rows ?? assert.fail("absent")) {
      if (row.kind !== "block") continue;
      assert.ok(!stored.has(toHex(row.id)), "a block is stored once");
      stored.set(toHex(row.id), row.baseId === undefined ? undefined : toHex(row.baseId));
    }
  }
  const needed = new Set<string>();
  for (let id of liveIds) for (; !needed.has(id); id = stored.get(id) ?? id) needed.add(id);
  assert.deepEqual([...stored.keys()].sort(), [...needed].sort());
}

describe("Collection", () => {
  it("beside writers, readers and retention, with a crash anywhere, loses no byte and leaves no garbage", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.tuple(stepsOf(["full", "patch", "giveUp"]), stepsOf(["full", "patch", "patch"])),
        fc.tuple(stepsOf(["retain", "retain", "read"]), stepsOf(["collect"]), stepsOf(["read"])),
        fc.nat(400),
        async (scheduler, writers, [retention, collections, reads], crashAt) => {
          const memory = new MemoryStore();
          const model = new Model();
          const machines = [newMachine(), newMachine()] as const;
          {
            await using vault = await openTestVault(memory, { packBytes });
            const now = { vault, model, turn: async () => undefined };
            // What all have in common is garbage at first: a point of another machine had it, and patches on it.
            const gone = newMachine();
            for (const machineId of [gone, ...machines]) {
              await writePoint(now, machineId, { kind: "full", choice: machineId === gone ? inCommon : 7 ** 6 - 1 });
              for (const choice of [99_991, 31_337]) await writePoint(now, machineId, { kind: "patch", choice });
            }
            for (const [pointId, { machineId }] of model.points) {
              if (machineId !== gone) continue;
              model.points.delete(pointId);
              assert.equal(await vault.removePoint(gone, pointId), "removed");
            }
          }
          const isCrashing = crashAt % 2 === 0;
          const store = scheduledStore(memory, scheduler, isCrashing ? crashAt : Number.MAX_SAFE_INTEGER);
          const vault = await openTestVault(store, { packBytes, blockCacheBytesMax: 1 });
          const reader = await openVaultReader({ store, vaultId, key: testKey, blockCacheBytesMax: 1 });
          const turn = async (): Promise<void> => await scheduler.schedule(Promise.resolve(), "writer").then(() => undefined);
          const act = async (step: Step, machineId: MachineId): Promise<void> => {
            if (step.kind === "retain") await retain(vault, model, step.choice);
            else if (step.kind === "collect") await vault.collect(everything);
            else if (step.kind === "read") await readOne(step.choice % 2 === 0 ? reader : vault, model, step.choice);
            else await writePoint({ vault, model, turn }, machineId, step);
          };
          const run = async (steps: readonly Step[], machineId: MachineId): Promise<void> => {
            for (const step of steps) await act(step, machineId);
          };
          const actors = [run(writers[0], machines[0]), run(writers[1], machines[1])];
          for (const steps of [retention, collections, reads]) actors.push(run(steps, machines[0]));
          const results = await scheduler.waitFor(Promise.allSettled(actors));
          for (const result of results)
            if (result.status === "rejected") {
              const reason: unknown = result.reason;
              assert.ok(isCrashing && reason instanceof Error && "code" in reason && reason.code === "StoreUnavailable", reason as Error);
            }
          await assertAfter(memory, model);
        },
      ),
      { numRuns: 30, endOnFailure: true },
    );
  });

  for (const moment of ["before", "after"] satisfies FaultMoment[])
    it(`that is cut at any store call, the fault coming ${moment} it, loses nothing and is gone on with`, async () => {
      for (let failAt = 1; ; failAt++) {
        const memory = new MemoryStore();
        const contents = new Map<PointId, Buffer>();
        {
          await using vault = await openTestVault(memory, { packBytes });
          for (const machineId of [newMachine(), newMachine()]) {
            const gone = await sealWhole(vault, machineId, contentOf(inCommon));
            const content = contentOf(99_991);
            contents.set(await sealWhole(vault, machineId, content), content);
            assert.equal(await vault.removePoint(machineId, gone), "removed");
          }
        }
        let wasHit = false;
        const faulty = withFaults(memory, ({ number }) => {
          wasHit ||= number === failAt;
          return number >= failAt ? moment : undefined;
        });
        {
          await using vault = await openTestVault(faulty, { packBytes });
          const outcome = await vault.collect(everything).catch((error: unknown) => error);
          if (!wasHit) return assert.ok(failAt > 20 && !(outcome instanceof Error), String(outcome));
        }
        await using reopened = await openTestVault(memory, { packBytes });
        for (const [pointId, content] of contents) await assertContent(reopened, pointId, content);
        for (let round = 0; round < 2; round++) await reopened.collect(everything);
        for (const [pointId, content] of contents) await assertContent(reopened, pointId, content);
        await assertNoGarbage(memory, contents.values());
      }
    });

  it("says in a dry run what it then does, and rewrites no more than it is allowed to", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store, { packBytes: 1 << 20 });
    const machineId = newMachine();
    const shared = randomBytes(2 * blockBytes);
    const gone = await sealWhole(vault, machineId, Buffer.concat([shared, randomBytes(30 * blockBytes)]));
    const kept = await sealWhole(vault, machineId, shared);
    await vault.removePoint(machineId, gone);
    const before = await Array.fromAsync(store.list(""));
    assert.equal((await vault.collect({ isDryRun: true })).removedPackCount, 0, "young packs stay");
    const { movedBytes: _, tookMs: _took, ...promised } = await vault.collect({ isDryRun: true, orphanGraceMs: 0 });
    assert.deepEqual(await Array.fromAsync(store.list("")), before);
    const few = await vault.collect({ orphanGraceMs: Number.MAX_SAFE_INTEGER, moveBytesMax: 1000 });
    assert.deepEqual([few.removedPackCount, few.rewrittenPackCount], [0, 0]);
    const { movedBytes, tookMs: _also, ...done } = await vault.collect({ orphanGraceMs: 0 });
    assert.deepEqual(done, promised);
    assert.ok(done.removedPackCount === 2 && done.rewrittenPackCount === 1 && movedBytes >= 2 * blockBytes);
    await assertContent(vault, kept, shared);
  });

  it("joins the small packs of many points", async () => {
    const store = new MemoryStore();
    await using vault = await openTestVault(store);
    const machineId = newMachine();
    const contents = new Map<PointId, Buffer>();
    for (let count = 0; count < 20; count++) {
      const content = randomBytes(blockBytes);
      contents.set(await sealWhole(vault, machineId, content), content);
    }
    await vault.collect();
    assert.equal((await Array.fromAsync(store.list("packs/"))).length, 1);
    await using reader = await openVaultReader({ store, vaultId, key: testKey });
    for (const [pointId, content] of contents) await assertContent(reader, pointId, content);
  });

  it("removes nothing while a point cannot be followed", async () => {
    const store = new MemoryStore();
    const machineId = newMachine();
    {
      await using vault = await openTestVault(store, { packBytes });
      const gone = await sealWhole(vault, machineId, contentOf(inCommon));
      await sealWhole(vault, machineId, randomBytes(4 * blockBytes));
      await vault.removePoint(machineId, gone);
    }
    const [first] = await Array.fromAsync(store.list("packs/"));
    const packs = await Array.fromAsync(store.list("packs/"));
    const largest = packs.reduce((one, other) => (one.sizeBytes > other.sizeBytes ? one : other), first ?? assert.fail("absent"));
    await store.remove(largest.key);
    await using vault = await openTestVault(store, { packBytes });
    await assert.rejects(vault.collect(everything), { code: "DataDamaged" });
    assert.equal((await Array.fromAsync(store.list("packs/"))).length, packs.length - 1);
  });

  it("rewrites packs of an older key generation, after which the older key is not needed", async () => {
    const store = new MemoryStore();
    const machineId = newMachine();
    const [before, after] = [randomBytes(3 * blockBytes), randomBytes(3 * blockBytes)];
    const keys = new Map([
      [1, testKey],
      [2, randomBytes(32)],
    ]);
    {
      await using vault = await openTestVault(store);
      await sealWhole(vault, machineId, before);
    }
    const newer = await (async () => {
      await using vault = await openTestVault(store, { key: { current: 2, keys } });
      const [old] = await Array.fromAsync(vault.listPoints());
      await assertContent(vault, old?.pointId ?? assert.fail("absent"), before);
      const pointId = await sealWhole(vault, machineId, after);
      await vault.removePoint(machineId, old?.pointId ?? assert.fail("absent"));
      await vault.collect({ orphanGraceMs: 0 });
      return pointId;
    })();
    await using vault = await openTestVault(store, { key: { current: 2, keys: new Map([...keys].slice(1)) } });
    await assertContent(vault, newer, after);
    await using old = await openVaultReader({ store, vaultId, key: testKey });
    await assert.rejects(assertContent(old, newer, after), { code: "DataDamaged", message: /key generation 2, which is not at hand/ });
  });
});

describe("Holds", () => {
  it("of before outlive a remover that was killed", async () => {
    const store = new MemoryStore();
    const machineId = newMachine();
    await using vault = await openTestVault(store);
    const pointId = await sealWhole(vault, machineId, contentOf(inCommon));
    assert.ok(await vault.holdPoint(pointId, "landed-1"));
    const killed = withFaults(store, ({ number, key }) => (number > 1 && key.startsWith("holds/") ? "before" : undefined));
    await using broken = await openTestVault(killed);
    await assert.rejects(broken.removePoint(machineId, pointId), { code: "StoreUnavailable" });
    assert.equal((await Array.fromAsync(store.list("removals/"))).length, 1);
    assert.equal(await vault.holdPoint(pointId, "landed-2"), false, "a new holder takes the point for gone");
    assert.ok(await vault.holdPoint(pointId, "landed-1"));
    assert.equal(await vault.removePoint(machineId, pointId), "held");
    assert.deepEqual(await Array.fromAsync(store.list("removals/")), []);
    assert.ok(await vault.holdPoint(pointId, "landed-2"));
  });

  it("keep a point until they are released, in every order of calls", async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), async (scheduler) => {
        const memory = new MemoryStore();
        const machineId = newMachine();
        const content = contentOf(inCommon);
        await using quiet = await openTestVault(memory);
        const pointId = await sealWhole(quiet, machineId, content);
        const store = scheduledStore(memory, scheduler, Number.MAX_SAFE_INTEGER);
        await using vault = await openTestVault(store);
        await using reader = await openVaultReader({ store, vaultId, key: testKey });
        const [isHeld, outcome] = await scheduler.waitFor(
          Promise.all([reader.holdPoint(pointId, "landed-1"), vault.removePoint(machineId, pointId)]),
        );
        assert.ok(!(isHeld && outcome === "removed"), "a held point is not removed");
        assert.equal((await quiet.point(pointId)) === undefined, outcome === "removed");
        if (outcome === "removed") return;
        await quiet.releasePoint(pointId, "landed-1");
        assert.equal(await quiet.removePoint(machineId, pointId), "removed");
        assert.deepEqual(await Array.fromAsync(memory.list("holds/")), []);
        assert.deepEqual(await Array.fromAsync(memory.list("removals/")), []);
      }),
      { numRuns: 50, endOnFailure: true },
    );
  });
});
