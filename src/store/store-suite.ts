// What every Store promises, as tests. Each implementation calls testStore with its own maker.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { Fault } from "../contract/errors.ts";
import type { Store, StoredBlob } from "./store.ts";

async function keysOf(blobs: AsyncIterable<StoredBlob>): Promise<string[]> {
  return (await Array.fromAsync(blobs)).map(({ key }) => key);
}

const freshPrefix = (): string => `s/${randomUUID()}`;

/** `make` gives a store whose keys under "s/<uuid>" are free; several may stand over the same content. */
export function testStore(name: string, make: () => Promise<Store>): void {
  describe(`${name} as a Store`, () => {
    it("gives back what was put, whole and in ranges", async () => {
      await using store = await make();
      const prefix = freshPrefix();
      for (const sizeBytes of [0, 1, 4095, 4096, 70_001, (1 << 20) + 17, (9 << 20) + 4097]) {
        const key = `${prefix}/${sizeBytes}`;
        const bytes = randomBytes(sizeBytes);
        await store.put(key, bytes);
        assert.ok(bytes.equals((await store.get(key)) ?? assert.fail("absent")));
        assert.deepEqual(await store.head(key), { key, sizeBytes });
        for (const [offset, length] of [
          [0, Math.min(1, sizeBytes)],
          [Math.floor(sizeBytes / 2), Math.min(1000, Math.floor(sizeBytes / 2))],
          [0, sizeBytes],
          [sizeBytes, 0],
        ] as const) {
          const part = await store.get(key, { offset, length });
          assert.ok(bytes.subarray(offset, offset + length).equals(part ?? assert.fail("absent")), `${offset}+${length} of ${sizeBytes}`);
        }
      }
    });

    it("says undefined of unknown keys, and refuses ranges beyond the end", async () => {
      await using store = await make();
      const key = `${freshPrefix()}/a`;
      assert.equal(await store.get(key), undefined);
      assert.equal(await store.get(key, { offset: 0, length: 1 }), undefined);
      assert.equal(await store.head(key), undefined);
      await store.put(key, Buffer.from("12345"));
      for (const range of [
        { offset: 0, length: 6 },
        { offset: 5, length: 1 },
        { offset: 100, length: 1 },
      ])
        await assert.rejects(store.get(key, range), { code: "DataDamaged" });
    });

    it("takes the same bytes again and refuses other bytes", async () => {
      await using store = await make();
      const key = `${freshPrefix()}/a`;
      await store.put(key, Buffer.from("one"));
      await store.put(key, Buffer.from("one"));
      await assert.rejects(store.put(key, Buffer.from("two")), { code: "StateConflict" });
      await assert.rejects(store.put(key, Buffer.from("ones")), { code: "StateConflict" });
      assert.equal(String(Buffer.from((await store.get(key)) ?? [])), "one");
    });

    it("lets one of many racing writers win, and keeps that one whole", async () => {
      await using store = await make();
      const key = `${freshPrefix()}/a`;
      const contents = Array.from({ length: 8 }, () => randomBytes(50_000));
      const outcomes = await Promise.allSettled(contents.map(async (bytes) => await store.put(key, bytes)));
      const winners = contents.filter((_, index) => outcomes[index]?.status === "fulfilled");
      assert.equal(winners.length, 1);
      assert.ok(winners[0]?.equals((await store.get(key)) ?? assert.fail("absent")));
      for (const outcome of outcomes) if (outcome.status === "rejected") assert.ok(outcome.reason instanceof Fault);
    });

    it("lists by prefix in key order, over folders and plain prefixes", async () => {
      await using store = await make();
      const prefix = freshPrefix();
      const keys = ["a", "a/b", "a/b/c", "a-b", "a0", "b/1", "b/10", "b/2", "c"].map((end) => `${prefix}/${end}`);
      for (const key of keys) await store.put(key, Buffer.from(key));
      assert.deepEqual(await keysOf(store.list(`${prefix}/`)), [...keys].sort());
      assert.deepEqual(await keysOf(store.list(`${prefix}/b/`)), [`${prefix}/b/1`, `${prefix}/b/10`, `${prefix}/b/2`]);
      assert.deepEqual(await keysOf(store.list(`${prefix}/b/1`)), [`${prefix}/b/1`, `${prefix}/b/10`]);
      assert.deepEqual(await keysOf(store.list(`${prefix}/zz`)), []);
      assert.deepEqual(await Array.fromAsync(store.list(`${prefix}/c`)), [{ key: `${prefix}/c`, sizeBytes: prefix.length + 2 }]);
    });

    it("removes, twice too, and lets the key be written again", async () => {
      await using store = await make();
      const key = `${freshPrefix()}/a`;
      await store.put(key, Buffer.from("one"));
      assert.ok(await store.get(key, { offset: 0, length: 1 }));
      await store.remove(key);
      await store.remove(key);
      assert.equal(await store.get(key), undefined);
      assert.equal(await store.get(key, { offset: 0, length: 1 }), undefined);
      await store.put(key, Buffer.from("two"));
      assert.equal(String(Buffer.from((await store.get(key, { offset: 0, length: 3 })) ?? [])), "two");
    });

    it("changes nothing after an abort: a blob is absent or whole", async () => {
      await using store = await make();
      const prefix = freshPrefix();
      await assert.rejects(store.put(`${prefix}/before`, Buffer.from("x"), AbortSignal.abort(new Error("called off"))));
      assert.equal(await store.get(`${prefix}/before`), undefined);
      const bytes = randomBytes(9 << 20);
      const controller = new AbortController();
      const put = store.put(`${prefix}/during`, bytes, controller.signal);
      setImmediate(() => controller.abort(new Error("called off")));
      await put.catch(() => undefined);
      const stored = await store.get(`${prefix}/during`);
      assert.ok(stored === undefined || bytes.equals(stored));
      await store.put(`${prefix}/during`, bytes);
      assert.ok(bytes.equals((await store.get(`${prefix}/during`)) ?? assert.fail("absent")));
    });

    it("refuses keys of another form", async () => {
      await using store = await make();
      for (const key of ["", "/a", "a/", "a//b", "A", "a.b", "../a", "a\0", "a".repeat(513)])
        await assert.rejects(store.put(key, Buffer.alloc(1)), /is a store key/);
    });
  });
}
