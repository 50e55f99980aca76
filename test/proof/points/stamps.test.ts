// The judge of stamps: sees every way in which disks can show two moments at once.

import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeStamp, judgeStamps, placeOf, stampBytes, type StampLayout } from "./stamps.ts";

const layout: StampLayout = { files: 3, slots: 4 };

/** Files as they are after stamp `newest`. */
function filesAt(newest: number): Uint8Array[] {
  const files = Array.from({ length: layout.files }, () => new Uint8Array(layout.slots * stampBytes));
  const put = (sequence: number, place: { readonly file: number; readonly slot: number }): void =>
    encodeStamp(files[place.file]?.subarray(place.slot * stampBytes, (place.slot + 1) * stampBytes) ?? new Uint8Array(), {
      sequence,
      place,
      timeMs: 1,
    });
  for (let file = 0; file < layout.files; file++) for (let slot = 0; slot < layout.slots; slot++) put(0, { file, slot });
  for (let sequence = 1; sequence <= newest; sequence++) put(sequence, placeOf(layout, sequence));
  return files;
}

test("judgeStamps finds one moment in any prefix of the writes, with the next one torn", () => {
  for (let newest = 0; newest < 40; newest++) {
    const files = filesAt(newest);
    assert.deepEqual(judgeStamps(layout, files), { stampCount: 12, newest, wrong: [] });
    const { file, slot } = placeOf(layout, newest + 1);
    files[file]?.fill(7, slot * stampBytes + 512, slot * stampBytes + 1024);
    assert.deepEqual(judgeStamps(layout, files).wrong, []);
  }
});

test("judgeStamps finds files of two moments, and what is no stamp", () => {
  const states = Array.from({ length: 46 }, (_, newest) => filesAt(newest));
  for (let newest = 1; newest < 40; newest++)
    for (let later = newest + 2; later < newest + 6; later++)
      for (let file = 0; file < layout.files; file++) {
        const mixed = (states[newest] ?? []).map((bytes, index) => (index === file ? (states[later]?.[index] ?? bytes) : bytes));
        const isMoment = states.some((state) => state.every((bytes, index) => Buffer.compare(bytes, mixed[index] ?? bytes) === 0));
        const hasOne = judgeStamps(layout, mixed).wrong.length === 0;
        assert.equal(hasOne, isMoment, `file ${file} of ${later}, the others of ${newest}`);
      }
  const files = filesAt(30);
  const { file, slot } = placeOf(layout, 25);
  files[file]?.fill(0, slot * stampBytes, (slot + 1) * stampBytes);
  assert.equal(judgeStamps(layout, files).wrong.length, 1);
});
