// Where swaps lie: through device-mapper tables and FIEMAP answers, and that an answer that is not certain gives no place at all.

import assert from "node:assert/strict";
import { test } from "node:test";
import { mapLinear, parseExtents } from "./swaps.ts";

test("a range is followed through the segments of a linear table, and through nothing else", () => {
  const table = "0 2048 linear 254:16 4096\n2048 1024 linear 254:32 8192\n";
  const parts = mapLinear(table, { offset: 4096, length: 2048 * 512 + 8192 });
  assert.deepEqual(parts, [
    { device: "254:16", range: { offset: 4096 * 512 + 4096, length: 2048 * 512 - 4096 } },
    { device: "254:32", range: { offset: 8192 * 512, length: 12_288 } },
  ]);
  for (const other of ["0 2048 crypt aes 0 254:16 0", "0 2048 linear 254:16 4096\n2048 9 striped 2 128 254:1 0 254:2 0", "nonsense"])
    assert.deepEqual(mapLinear(other, { offset: 0, length: 4096 }), []);
});

/** An answer to FIEMAP with these extents: logical, physical, length, flags. */
function answerOf(...extents: readonly (readonly [number, number, number, number])[]): DataView {
  const view = new DataView(new ArrayBuffer(32 + extents.length * 56));
  view.setUint32(20, extents.length, true);
  extents.forEach(([logical, physical, length, flags], index) => {
    [logical, physical, length].forEach((value, place) => view.setBigUint64(32 + index * 56 + place * 8, BigInt(value), true));
    view.setUint32(32 + index * 56 + 40, flags, true);
  });
  return view;
}

test("extents are believed only when they say nothing but where they are", () => {
  const good = answerOf([0, 1 << 20, 4096, 0x1000], [4096, 1 << 22, 8192, 0x801]);
  assert.deepEqual(parseExtents(good), {
    isLast: true,
    extents: [
      { logical: 0, physical: 1 << 20, length: 4096 },
      { logical: 4096, physical: 1 << 22, length: 8192 },
    ],
  });
  for (const flag of [0x2, 0x4, 0x8, 0x80, 0x100, 0x200, 0x400, 0x2000])
    assert.equal(parseExtents(answerOf([0, 0, 4096, flag | 1])), undefined, `flag ${flag}`);
  const cut = answerOf([0, 0, 4096, 1]);
  cut.setUint32(20, 2, true);
  assert.equal(parseExtents(cut), undefined);
});
