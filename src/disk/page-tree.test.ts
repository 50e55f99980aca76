// Page tree: roots by definition, incremental updates equal to building anew, shared pages.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { toHex, zeroId } from "./digest.ts";
import { digestBytes, idsPerPage } from "./geometry.ts";
import { findLeafPage, pageLevelsOf, rootOfBlockIds, updateTree, type PageChanges, type TreePage } from "./page-tree.ts";

/** Changes given as page index → ids by slot. */
function changesFrom(pages: ReadonlyMap<number, readonly (Uint8Array | undefined)[]>): PageChanges {
  return {
    pageIndexes: [...pages.keys()].sort((a, b) => a - b),
    apply: (pageIndex, page) => {
      for (const [slot, id] of (pages.get(pageIndex) ?? []).entries()) if (id !== undefined) page.set(id, slot * digestBytes);
    },
  };
}

const idFrom = (seed: number): Buffer => createHash("sha256").update(String(seed)).digest();
const sha = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();

test("rootOfBlockIds is SHA-256 of the padded page for up to 128 blocks", () => {
  const page = Buffer.alloc(4096);
  idFrom(1).copy(page, 0);
  idFrom(2).copy(page, digestBytes);
  assert.equal(rootOfBlockIds(page.subarray(0, 2 * digestBytes)), sha(page).toString("hex"));
  assert.equal(rootOfBlockIds(page), sha(page).toString("hex"));
});

test("rootOfBlockIds of zero blocks is the zero id at any size", () => {
  for (const count of [0, 1, 128, 129, 16_384, 16_385]) assert.equal(rootOfBlockIds(Buffer.alloc(count * digestBytes)), toHex(zeroId));
});

test("rootOfBlockIds adds a level past 128 and past 16 384 blocks", () => {
  const ids = Buffer.alloc(129 * digestBytes);
  idFrom(7).copy(ids, 128 * digestBytes);
  const leaf = Buffer.alloc(4096);
  idFrom(7).copy(leaf);
  const top = Buffer.alloc(4096);
  sha(leaf).copy(top, digestBytes);
  assert.equal(rootOfBlockIds(ids), sha(top).toString("hex"));
  assert.deepEqual([1, 128, 129, 16_384, 16_385].map(pageLevelsOf), [1, 1, 2, 2, 3]);
});

test("rootOfBlockIds refuses bytes that are not whole ids", () => {
  assert.throws(() => rootOfBlockIds(new Uint8Array(33)), TypeError);
});

test("updateTree gives the root of the row built anew, over several generations and growth", async () => {
  const generation = fc.record({
    grow: fc.nat(40_000),
    writes: fc.array(fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), seed: fc.nat(1000) }), {
      maxLength: 40,
    }),
  });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 300 }), fc.array(generation, { minLength: 1, maxLength: 4 }), async (start, generations) => {
      const pages = new Map<string, Uint8Array>();
      let ids = Buffer.alloc(start * digestBytes);
      let root: Uint8Array = zeroId;
      for (const { grow, writes } of generations) {
        const blockCountBefore = ids.length / digestBytes;
        ids = Buffer.concat([ids, Buffer.alloc(grow * digestBytes)]);
        const blockCount = ids.length / digestBytes;
        const changes = new Map<number, (Uint8Array | undefined)[]>();
        for (const { at, seed } of writes) {
          const block = Math.floor(at * blockCount);
          const id = seed % 4 === 0 ? zeroId : idFrom(seed);
          ids.set(id, block * digestBytes);
          const page = Math.floor(block / idsPerPage);
          const slots = changes.get(page) ?? [];
          slots[block % idsPerPage] = id;
          changes.set(page, slots);
        }
        root = await updateTree({
          root,
          blockCountBefore,
          blockCount,
          changes: changesFrom(changes),
          loadPage: async (id) => {
            const page = pages.get(toHex(id));
            assert.ok(page, "only pages that were emitted are loaded");
            return page;
          },
          emitPage: ({ id, page }) => {
            assert.equal(toHex(id), sha(page).toString("hex"));
            pages.set(toHex(id), Buffer.from(page));
          },
        });
        assert.equal(toHex(root), rootOfBlockIds(ids));
      }
    }),
    { numRuns: 40 },
  );
});

test("updateTree emits only the path to a change", async () => {
  const pages = new Map<string, Uint8Array>();
  const emitted: string[] = [];
  const base = {
    blockCountBefore: 20_000,
    blockCount: 20_000,
    loadPage: async (id: Uint8Array): Promise<Uint8Array> => pages.get(toHex(id)) ?? assert.fail("unknown page"),
    emitPage: ({ id, page }: TreePage): void => {
      pages.set(toHex(id), Buffer.from(page));
      emitted.push(toHex(id));
    },
  };
  const everyPage = new Map(
    Array.from({ length: 157 }, (_, page) => [page, Array.from({ length: 32 }, (_, slot) => idFrom(page * 128 + slot))]),
  );
  const root = await updateTree({ ...base, root: zeroId, changes: changesFrom(everyPage) });
  assert.equal(emitted.length, 157 + 2 + 1);
  emitted.length = 0;
  await updateTree({ ...base, root, changes: changesFrom(new Map([[3, [idFrom(-1)]]])) });
  assert.equal(emitted.length, 3);
  const leaf = await findLeafPage({ root, blockCount: 20_000, loadPage: base.loadPage }, 3);
  assert.ok(idFrom(3 * 128 + 5).equals(leaf?.subarray(5 * digestBytes, 6 * digestBytes) ?? assert.fail("absent")));
  assert.equal(await findLeafPage({ root: zeroId, blockCount: 20_000, loadPage: base.loadPage }, 3), undefined);
});
