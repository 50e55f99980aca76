// Unpacking gives exactly the content of one frame, or nothing, and never writes beside its memory.

import assert from "node:assert/strict";
import { test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { unpackInto } from "./unpack.ts";

test("unpackInto takes one frame of exactly the wanted size, whatever else it is given", () => {
  const text = fc.array(fc.constantFrom("some text ", "more of it ", "0"), { maxLength: 5000 }).map((words) => Buffer.from(words.join("")));
  const change = fc.record({ at: fc.nat(), bit: fc.nat(7), cut: fc.nat(3), more: fc.integer({ min: -2, max: 2 }) });
  fc.assert(
    fc.property(text, fc.option(change), (plain, changed) => {
      const packed = zstdCompressSync(plain);
      const sizeBytes = Math.max(0, plain.length + (changed?.more ?? 0));
      const memory = Buffer.alloc(sizeBytes + 16, 0xaa);
      const into = memory.subarray(8, 8 + sizeBytes);
      const given = changed === null ? packed : packed.subarray(0, packed.length - changed.cut);
      if (changed !== null && given.length > 0)
        given[changed.at % given.length] = (given[changed.at % given.length] ?? 0) ^ (1 << changed.bit);
      const isUnpacked = unpackInto(given, into);
      if (changed === null) assert.ok(isUnpacked && into.equals(plain));
      if (changed !== null && (changed.cut > 0 || changed.more !== 0) && plain.length > 0)
        assert.ok(!isUnpacked || sizeBytes !== plain.length);
      for (let index = 0; index < 8; index++) assert.deepEqual([memory[index], memory.at(-1 - index)], [0xaa, 0xaa]);
    }),
    { numRuns: 300 },
  );
});

test("unpackInto refuses no bytes at all, and two frames in a row", () => {
  const frame = zstdCompressSync(Buffer.alloc(1000, "x"));
  assert.ok(!unpackInto(Buffer.alloc(0), Buffer.alloc(0)));
  assert.ok(!unpackInto(Buffer.concat([frame, frame]), Buffer.alloc(2000)));
  assert.ok(unpackInto(frame, Buffer.alloc(1000)));
});
