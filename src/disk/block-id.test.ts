// Ids of blocks, by definition and by the quick way, and what they are for one known block.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { blockIdOf, digestGranules } from "./block-id.ts";
import { idOf, isZeroId, toHex } from "./digest.ts";
import { blockBytes, digestBytes, granuleBytes, granulesPerBlock } from "./geometry.ts";

describe("blockIdOf", () => {
  it("is the digest of the granules' digests, with zeros for granules of zeros", () => {
    const sparseBlock = fc.array(fc.constantFrom("zero", "text", "late"), { minLength: granulesPerBlock, maxLength: granulesPerBlock });
    fc.assert(
      fc.property(sparseBlock, fc.boolean(), (kinds, isShared) => {
        const block = new Uint8Array(isShared ? new SharedArrayBuffer(blockBytes) : new ArrayBuffer(blockBytes));
        for (const [index, kind] of kinds.entries()) {
          const granule = block.subarray(index * granuleBytes, (index + 1) * granuleBytes);
          if (kind === "text") granule.fill(index + 1);
          if (kind === "late") granule[granuleBytes - 1] = 1;
        }
        const digests = kinds.map((_, index) => idOf(block.subarray(index * granuleBytes, (index + 1) * granuleBytes)));
        const row = Buffer.alloc(granulesPerBlock * digestBytes, 0xaa);
        digestGranules(block, row);
        assert.deepEqual(row, Buffer.concat(digests));
        assert.equal(toHex(blockIdOf(block)), toHex(idOf(Buffer.concat(digests))));
        assert.equal(
          isZeroId(blockIdOf(block)),
          kinds.every((kind) => kind === "zero"),
        );
      }),
    );
  });

  it("stays what it was", () => {
    const block = Buffer.alloc(blockBytes, "watari\n");
    assert.equal(toHex(blockIdOf(block)), "f961648e5e58f47931468b46b35ca5943c1125ec83c7c39a93bf5b13f1581a64");
  });
});
