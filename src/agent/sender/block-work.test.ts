// Promises of the work on blocks: what a frame's body says is what was read, with and without threads, also where nothing compresses.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import { payloadMethods } from "../../contract/agent-frames.ts";
import { blockIdOf } from "../../disk/block-id.ts";
import { blockBytes, digestBytes } from "../../disk/geometry.ts";
import { buildAgentBundle } from "../bundle.ts";
import { BlockWork } from "./block-work.ts";
import { blocksPerUnit, createLanes } from "./lanes.ts";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";

const count = blocksPerUnit;

function unpackBody(body: Uint8Array): Map<number, Uint8Array> {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  assert.equal(view.getUint32(0), 7);
  const blocks = new Map<number, Uint8Array>();
  for (let at = 4; at < body.length;) {
    const length = view.getUint32(at + 4);
    const payload = Uint8Array.from(body.subarray(at + 9, at + 9 + length));
    blocks.set(view.getUint32(at), view.getUint8(at + 8) === payloadMethods.zstd ? new Uint8Array(zstdDecompressSync(payload)) : payload);
    at += 9 + length;
  }
  return blocks;
}

async function assertWorks(work: BlockWork): Promise<void> {
  const [lane] = createLanes(1);
  assert.ok(lane !== undefined);
  const fillings = [(): Buffer => randomBytes(blockBytes), (): Buffer => Buffer.alloc(blockBytes, "text, and more of it; ")];
  for (const pick of [(): number => 0, (): number => 1, (block: number): number => block % 2]) {
    const blocks = Array.from({ length: count }, (_, block) => fillings[pick(block)]?.() ?? Buffer.alloc(blockBytes));
    blocks.forEach((bytes, block) => lane.raw.set(bytes, block * blockBytes));
    assert.equal(await work.run(lane, { kind: "digest", count }), count * digestBytes);
    blocks.forEach((bytes, block) =>
      assert.equal(Buffer.compare(lane.digests.subarray(block * digestBytes, (block + 1) * digestBytes), blockIdOf(bytes)), 0),
    );
    const wanted = blocks
      .keys()
      .filter((block) => block % 7 !== 3)
      .toArray();
    const length = await work.run(lane, { kind: "pack", diskIndex: 7, firstBlock: 1000, wanted });
    const sent = unpackBody(lane.body.subarray(0, length));
    assert.deepEqual(
      [...sent.keys()],
      wanted.map((block) => 1000 + block),
    );
    for (const block of wanted)
      assert.equal(Buffer.compare(sent.get(1000 + block) ?? new Uint8Array(0), blocks[block] ?? new Uint8Array(0)), 0);
  }
}

test("BlockWork packs what was read, in this thread", async () => {
  await using work = new BlockWork();
  await assertWorks(work);
});

test("BlockWork packs what was read, in threads of the bundle that is shipped", async () => {
  const folder = await mkdtemp(join(tmpdir(), "watari-block-work-"));
  try {
    const file = join(folder, "agent.mjs");
    await writeFile(file, (await buildAgentBundle()).bytes);
    await using work = new BlockWork({ count: 2, file });
    await assertWorks(work);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("BlockWork fails what is under way when a thread cannot start", async () => {
  await using work = new BlockWork({ count: 1, file: join(tmpdir(), "watari-no-such-program.mjs") });
  const [lane] = createLanes(1);
  assert.ok(lane !== undefined);
  await assert.rejects(work.run(lane, { kind: "digest", count }));
});
