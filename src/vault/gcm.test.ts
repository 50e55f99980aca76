// Sealed parts are what the public calls of AES-256-GCM make of them, and open only as what they are and whole.

import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { gcm, keyBytes, nonceBytes, tagBytes } from "./gcm.ts";

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const seal = fc.record({ key: bytes(keyBytes), nonce: bytes(nonceBytes), associated: bytes(1) });

test("gcm seals as the public calls do, into own and shared memory, and opens nothing else", () => {
  fc.assert(
    fc.property(seal, fc.uint8Array({ maxLength: 70_000, size: "max" }), fc.boolean(), fc.nat(), (by, plain, isShared, flip) => {
      const memory = isShared ? new SharedArrayBuffer(plain.length + tagBytes + 2) : new ArrayBuffer(plain.length + tagBytes + 2);
      const sealed = new Uint8Array(memory, 1, plain.length + tagBytes);
      gcm().seal(by, plain, sealed);
      const cipher = createCipheriv("aes-256-gcm", by.key, by.nonce).setAAD(by.associated);
      assert.deepEqual(Buffer.from(sealed), Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]));
      assert.deepEqual([new Uint8Array(memory)[0], new Uint8Array(memory).at(-1)], [0, 0]);
      const opened = new Uint8Array(plain.length);
      assert.ok(gcm().open(by, sealed, opened));
      assert.deepEqual(opened, plain);
      const at = flip % sealed.length;
      sealed[at] = (sealed[at] ?? 0) ^ (1 << (flip % 8));
      assert.ok(!gcm().open(by, sealed, opened));
    }),
    { numRuns: 60 },
  );
});
