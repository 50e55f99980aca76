// What every writable Disk promises, as tests. Each implementation calls testWritableDisk with its own maker.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { WritableDisk } from "./disk.ts";
import { isAllZero } from "./digest.ts";

export interface DiskMaker {
  /** A new disk of zeros. */
  readonly make: (sizeBytes: number) => Promise<WritableDisk>;
}

export function testWritableDisk(name: string, maker: DiskMaker): void {
  describe(`${name} as a WritableDisk`, () => {
    it("reads what was written, and says zero only of zeros", async () => {
      const sizeBytes = 300_001;
      const write = fc.record({ offset: fc.nat(sizeBytes - 1), length: fc.nat(70_000), fill: fc.nat(255) });
      await fc.assert(
        fc.asyncProperty(fc.array(write, { maxLength: 8 }), fc.nat(sizeBytes - 1), fc.nat(sizeBytes), async (writes, from, span) => {
          await using disk = await maker.make(sizeBytes);
          const model = Buffer.alloc(sizeBytes);
          for (const { offset, length, fill } of writes) {
            const bytes = Buffer.alloc(Math.min(length, sizeBytes - offset), fill);
            model.set(bytes, offset);
            await disk.write(offset, bytes);
          }
          await disk.flush();
          const whole = Buffer.alloc(sizeBytes);
          await disk.read(0, whole);
          assert.ok(whole.equals(model));
          const length = Math.min(span, sizeBytes - from);
          let at = from;
          for (const extent of await disk.extents(from, length)) {
            assert.equal(extent.offset, at, "extents follow each other");
            assert.ok(extent.length > 0);
            at += extent.length;
            if (extent.kind === "zero") assert.ok(isAllZero(model.subarray(extent.offset, at)));
          }
          assert.equal(at, from + length, "extents cover the range");
        }),
        { numRuns: 25 },
      );
    });

    it("refuses ranges outside, and does nothing after an abort", async () => {
      await using disk = await maker.make(8192);
      await assert.rejects(disk.read(8191, Buffer.alloc(2)), /lies inside/);
      await assert.rejects(disk.write(-1, Buffer.alloc(1)), /lies inside/);
      await assert.rejects(disk.extents(0, 8193), /lies inside/);
      await assert.rejects(disk.write(0, Buffer.alloc(8, 1), AbortSignal.abort(new Error("called off"))), /called off/);
      const bytes = Buffer.alloc(8, 9);
      await disk.read(0, bytes);
      assert.ok(isAllZero(bytes));
    });
  });
}
