// zstd for entries: round trips, bounds, and damage that is refused.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { compressEntry, decompressEntry } from "./zstd.ts";

test("compressEntry makes frames that any zstd reads and decompressEntry gives back", () => {
  fc.assert(
    fc.property(fc.integer({ min: 200, max: 65_536 }), fc.uint8Array({ minLength: 1, maxLength: 40 }), (sizeBytes, pattern) => {
      const plain = Buffer.alloc(sizeBytes, Buffer.from(pattern));
      const packed = compressEntry(plain);
      assert.ok(packed !== undefined && packed.length < sizeBytes);
      assert.ok(zstdDecompressSync(packed).equals(plain));
      assert.ok(decompressEntry(packed, sizeBytes)?.equals(plain));
      assert.equal(decompressEntry(packed, sizeBytes - 1), undefined, "over its bound");
    }),
  );
});

test("compressEntry leaves noise raw", () => {
  assert.equal(compressEntry(randomBytes(65_536)), undefined);
});

test("decompressEntry refuses what is no frame, and works after it", () => {
  const plain = Buffer.from("text ".repeat(2000));
  const packed = Uint8Array.from(compressEntry(plain) ?? assert.fail("compresses"));
  assert.equal(decompressEntry(randomBytes(500), 65_536), undefined);
  assert.notDeepEqual(decompressEntry(packed.subarray(0, packed.length - 3), 65_536), plain);
  assert.ok(decompressEntry(packed, 65_536)?.equals(plain));
});
