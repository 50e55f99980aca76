// Promises of the frame codec: round trips in any chunking, every cut and every bad header refused.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  encodeFrame,
  encodeFrameHeader,
  frameBodyBytesMax,
  FrameError,
  frameHeaderBytes,
  frameTypes,
  parseFrameHeader,
  readFrames,
  type Frame,
} from "./agent-frames.ts";

const frames = fc.array(
  fc.record({
    type: fc.constantFrom(...Object.values(frameTypes)),
    unit: fc.nat({ max: 0xffff_ffff }),
    count: fc.nat({ max: 0xffff_ffff }),
    body: fc.uint8Array({ maxLength: 300 }),
  }),
  { maxLength: 8 },
);

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

async function* chunked(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let offset = 0;
  let turn = 0;
  while (offset < bytes.length) {
    const size = Math.max(1, sizes[turn++ % Math.max(1, sizes.length)] ?? 1);
    yield bytes.subarray(offset, offset + size);
    offset += size;
  }
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Frame[]> {
  const result: Frame[] = [];
  for await (const frame of readFrames(stream)) result.push({ ...frame, body: frame.body.slice() });
  return result;
}

describe("agent frames", () => {
  test("a stream of frames reads back the same in any chunking", async () => {
    await fc.assert(
      fc.asyncProperty(frames, fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 5 }), async (list, sizes) => {
        const read = await collect(chunked(concat(list.map(encodeFrame)), sizes));
        assert.deepEqual(
          read,
          list.map((frame) => ({ ...frame, body: new Uint8Array(frame.body) })),
        );
      }),
    );
  });

  test("every cut inside a frame is refused", async () => {
    const bytes = encodeFrame({ type: frameTypes.ids, unit: 7, count: 1, body: new Uint8Array(40).fill(1) });
    for (let length = 1; length < bytes.length; length++) {
      await assert.rejects(collect(chunked(bytes.subarray(0, length), [5])), FrameError, `cut at ${length}`);
    }
  });

  test("a header with an unknown type, set padding or a body over the limit is refused", () => {
    const header = new Uint8Array(frameHeaderBytes);
    encodeFrameHeader({ type: frameTypes.begin, unit: 1, count: 2, bodyLength: 3 }, header);
    assert.deepEqual(parseFrameHeader(header), { type: frameTypes.begin, unit: 1, count: 2, bodyLength: 3 });
    for (const [index, value] of [
      [0, 0],
      [0, 200],
      [1, 1],
      [2, 1],
      [3, 255],
    ] as const) {
      const bad = header.slice();
      bad[index] = value;
      assert.throws(() => parseFrameHeader(bad), FrameError);
    }
    new DataView(header.buffer).setUint32(12, frameBodyBytesMax + 1);
    assert.throws(() => parseFrameHeader(header), FrameError);
  });

  test("random bytes never do more than throw FrameError", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
        try {
          await collect(chunked(bytes, [17]));
        } catch (error) {
          assert.ok(error instanceof FrameError);
        }
      }),
    );
  });
});
