// Pages of the trace ring buffer: what is read of them, and that a page that does not add up is never taken for an empty one.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePageFormat, readRingPage } from "./ring-page.ts";

const header = `	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:8;	signed:1;
	field: int overwrite;	offset:8;	size:1;	signed:1;
	field: char data;	offset:16;	size:4080;	signed:1;
`;
const format = { commitOffset: 8, dataOffset: 16, pageBytes: 4096 };

/** A page with these 32-bit words as its data. */
function pageOf(words: readonly number[], commit = words.length * 4): DataView {
  const page = new DataView(new ArrayBuffer(format.pageBytes));
  page.setUint32(format.commitOffset, commit, true);
  words.forEach((word, index) => page.setUint32(format.dataOffset + index * 4, word, true));
  return page;
}

test("the kernel's description of a page gives its format", () => {
  assert.deepEqual(parsePageFormat(header), format);
  assert.equal(parsePageFormat(header.replace("commit", "other")), undefined);
});

test("events of each kind of head are found where they are, and time marks are passed over", () => {
  const short = [2 | (7 << 5), 11, 12];
  const long = [0 | (7 << 5), 12, 21, 22];
  const time = [30 | (9 << 5), 1];
  const stamp = [31, 1];
  const discarded = [29 | (1 << 5), 8, 0];
  const rest = [29, 0, 0];
  const page = pageOf([...short, ...time, ...long, ...stamp, ...discarded, ...short, ...rest]);
  const found = readRingPage(page, format);
  assert.equal(found.isLossy, false);
  assert.deepEqual(
    found.records.map((at) => page.getUint32(at, true)),
    [11, 21, 11],
  );
});

test("a page with missed events, or one that is cut anywhere inside an event, is lossy", () => {
  const words = [2 | (7 << 5), 11, 12, 0 | (7 << 5), 12, 21, 22];
  for (const flag of [0x8000_0000, 0x4000_0000]) assert.equal(readRingPage(pageOf(words, (28 | flag) >>> 0), format).isLossy, true);
  for (let bytes = 0; bytes <= 28; bytes += 4)
    assert.equal(readRingPage(pageOf(words, bytes), format).isLossy, ![0, 12, 28].includes(bytes), `${bytes} bytes`);
  assert.equal(readRingPage(pageOf([], 5000), format).isLossy, true);
  assert.equal(readRingPage(pageOf([0, 0]), format).isLossy, true, "an event of no length");
});
