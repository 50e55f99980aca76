// Ids beside a plain map, with more pages than stay in memory.

import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import fc from "fast-check";
import { idOf } from "../disk/digest.ts";
import { idsPerPage } from "../disk/geometry.ts";
import { pageBytes } from "../disk/page-tree.ts";
import { ChangedIds } from "./changed-ids.ts";

const blockCount = 300 * idsPerPage;

it("ChangedIds gives back what was set last, and what nobody set stays as it was", async () => {
  const scratchFolder = await mkdtemp(join(tmpdir(), "watari-ids-"));
  try {
    fc.assert(
      fc.property(fc.array(fc.record({ block: fc.nat(blockCount - 1), choice: fc.nat(5) }), { maxLength: 900 }), (sets) => {
        using ids = new ChangedIds({ pageCount: 300, scratchFolder, scratchName: "ids", pagesInMemoryMax: 70 });
        const model = new Map<number, Uint8Array>();
        for (const { block, choice } of sets) {
          model.set(block, idOf(Buffer.from(String(choice))));
          ids.set(block, idOf(Buffer.from(String(choice))));
        }
        for (const { block } of sets) {
          assert.deepEqual(Buffer.from(ids.get(block) ?? []), model.get(block));
          assert.equal(ids.get((block + 1) % blockCount) === undefined, !model.has((block + 1) % blockCount));
        }
        const pages = new Set([...model.keys()].map((block) => Math.floor(block / idsPerPage)));
        assert.deepEqual(
          ids.pageIndexes,
          [...pages].sort((one, other) => one - other),
        );
        for (const pageIndex of ids.pageIndexes) {
          const page = Buffer.alloc(pageBytes, 7);
          const expected = Buffer.alloc(pageBytes, 7);
          ids.apply(pageIndex, page);
          for (const [block, id] of model) if (Math.floor(block / idsPerPage) === pageIndex) expected.set(id, (block % idsPerPage) * 32);
          assert.ok(page.equals(expected));
        }
      }),
      { numRuns: 30 },
    );
    assert.deepEqual(await readdir(scratchFolder), []);
  } finally {
    await rm(scratchFolder, { recursive: true });
  }
});
