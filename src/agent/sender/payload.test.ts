// Promises of payload compression: round trip, raw where it does not pay, and no trust in an undocumented object.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { payloadMethods } from "../../contract/agent-frames.ts";
import { chooseCompress, compressPayload } from "./payload.ts";

const unpack = (payload: { method: number; bytes: Uint8Array }): Uint8Array =>
  payload.method === payloadMethods.zstd ? zstdDecompressSync(payload.bytes) : payload.bytes;

test("compressPayload gives back what it was given, one payload after the other", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 9000 }), { minLength: 1, maxLength: 6 }), (inputs) => {
      const payloads = inputs.map((input) => compressPayload(input));
      inputs.forEach((input, index) => assert.deepEqual(new Uint8Array(unpack(payloads[index] ?? { method: 0, bytes: input })), input));
    }),
  );
});

test("compressPayload sends noise raw and zeros packed", () => {
  assert.equal(compressPayload(randomBytes(65_536)).method, payloadMethods.raw);
  const packed = compressPayload(new Uint8Array(65_536));
  assert.equal(packed.method, payloadMethods.zstd);
  assert.ok(packed.bytes.length < 100);
});

test("chooseCompress falls back when the fast way gives wrong answers or is not there", () => {
  for (const create of [
    () => (raw: Uint8Array, into: Uint8Array) => (into.set(raw), raw.length),
    (): never => assert.fail("no such object"),
  ]) {
    const compress = chooseCompress(create);
    const into = new Uint8Array(100);
    const length = compress(new Uint8Array(100).fill(7), into);
    assert.deepEqual(new Uint8Array(zstdDecompressSync(into.subarray(0, length))), new Uint8Array(100).fill(7));
  }
});
