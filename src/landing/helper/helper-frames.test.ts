// The helper machine's frames: whatever comes in pieces is put together, and what is no answer is refused.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Fault } from "../../contract/errors.ts";
import { AnswerReader, encodeKeys, encodeRequest, parseEntries, type HelperAnswer } from "./helper-frames.ts";

const frame = (head: string, body: Uint8Array): Buffer => {
  const lengths = Buffer.alloc(8);
  lengths.writeUInt32BE(Buffer.byteLength(head), 0);
  lengths.writeUInt32BE(body.length, 4);
  return Buffer.concat([lengths, Buffer.from(head), body]);
};

const isDamage = (error: unknown) => error instanceof Fault && error.code === "DataDamaged";

describe("AnswerReader", () => {
  it("puts an answer together from pieces of any size, and then the next", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 1, max: 50 }), (body, pieceBytes) => {
        const reader = new AnswerReader();
        for (const head of ["ok\0one\0two", "absent"]) {
          const bytes = frame(head, body);
          const answers: HelperAnswer[] = [];
          for (let at = 0; at < bytes.length; at += pieceBytes) {
            const answer = reader.push(bytes.subarray(at, at + pieceBytes));
            if (answer !== undefined) answers.push(answer);
          }
          assert.equal(answers.length, 1);
          assert.equal([answers[0]?.state, ...(answers[0]?.words ?? [])].join("\0"), head);
          assert.ok(answers[0]?.body.equals(body));
        }
      }),
    );
  });

  it("refuses lengths beyond its bounds, bytes behind an answer, and states that it does not know", () => {
    assert.throws(() => new AnswerReader().push(Buffer.alloc(8, 0xff)), isDamage);
    assert.throws(() => new AnswerReader().push(Buffer.concat([frame("ok", Buffer.alloc(3)), Buffer.alloc(1)])), isDamage);
    assert.throws(() => new AnswerReader().push(frame("maybe", Buffer.alloc(0))), isDamage);
  });
});

describe("parseEntries", () => {
  const entry = (name: string): Buffer => {
    const bytes = Buffer.alloc(58);
    bytes.writeUInt32BE(0o100644, 8);
    bytes.writeUInt16BE(Buffer.byteLength(name), 56);
    return Buffer.concat([bytes, Buffer.from(name)]);
  };

  it("reads a folder, and refuses every cut and every name that is none", () => {
    const whole = Buffer.concat([entry("one"), entry("zwei ö")]);
    assert.deepEqual(
      parseEntries(whole).map(({ name, node }) => [name.toString(), node.mode]),
      [
        ["one", 0o100644],
        ["zwei ö", 0o100644],
      ],
    );
    for (let length = 1; length < whole.length; length++)
      if (length !== entry("one").length) assert.throws(() => parseEntries(whole.subarray(0, length)), isDamage);
    for (const name of ["", "a/b", "a\0"]) assert.throws(() => parseEntries(entry(name)), isDamage);
  });

  it("fails only as a fault, whatever the bytes are", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        try {
          parseEntries(Buffer.from(bytes));
        } catch (error) {
          assert.ok(isDamage(error));
        }
      }),
    );
  });
});

describe("encodeRequest", () => {
  it("lets no word become two, and keeps its bounds", () => {
    assert.throws(() => encodeRequest(["read", "1", "/a\0/etc/shadow"]), Fault);
    assert.throws(() => encodeRequest(["write"], Buffer.alloc((4 << 20) + 1)), Fault);
    assert.equal(encodeRequest(["a", "b"]).toString("latin1"), "\0\0\0\u0003\0\0\0\0a\0b");
    assert.equal(encodeKeys([Buffer.from("ab"), Buffer.from("")]).toString("hex"), "00000002616200000000");
  });
});
