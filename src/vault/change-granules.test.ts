// Changes of granules: whatever is changed, in any form and order, the point has the root and the content of the changed disk.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import type { MachineId, PointId } from "../contract/ids.ts";
import { computeRoot } from "../disk/compute-root.ts";
import { blockBytes, granuleBytes } from "../disk/geometry.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import { MemoryStore } from "../store/memory-store.ts";
import { assertContent, diskId, newMachine, newPoint, openTestVault, sealFacts, sealWhole } from "./test-vault.ts";
import type { PointWriter, Vault } from "./vault.ts";

const blockCount = 40;
const granuleCount = blockCount * 16;
const disks = [{ diskId, sizeBytes: blockCount * blockBytes, isBoot: true, excluded: [] }];

interface Frame {
  readonly granules: readonly number[];
  readonly kind: "noise" | "text" | "zeros" | "same";
  readonly packing: "raw" | "zstd";
}

const frames = fc.array(
  fc.record({
    // Alone, in runs that cover whole blocks, and the largest frame there is.
    granules: fc.oneof(
      fc.uniqueArray(fc.nat(granuleCount - 1), { minLength: 1, maxLength: 60 }).map((list) => list.sort((one, other) => one - other)),
      fc
        .tuple(fc.nat(granuleCount - 256), fc.integer({ min: 1, max: 256 }))
        .map(([first, count]) => numbers(count).map((each) => first + each)),
    ),
    kind: fc.constantFrom<Frame["kind"]>("noise", "text", "zeros", "same"),
    packing: fc.constantFrom<Frame["packing"]>("raw", "zstd"),
  }),
  { minLength: 1, maxLength: 12 },
);

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/** Sends a frame and makes the same changes in `content`. */
async function sendFrame(writer: PointWriter, content: Buffer, { granules, kind, packing }: Frame): Promise<void> {
  for (const granule of granules) {
    const at = granule * granuleBytes;
    if (kind === "noise") randomBytes(granuleBytes).copy(content, at);
    if (kind === "text") content.fill(`${randomBytes(8).toString("hex")} ${granule}\n`, at, at + granuleBytes);
    if (kind === "zeros") content.fill(0, at, at + granuleBytes);
  }
  const plain = Buffer.concat(granules.map((granule) => content.subarray(granule * granuleBytes, (granule + 1) * granuleBytes)));
  const digest = createHash("sha256").update(plain).digest();
  const shared = new Uint8Array(new SharedArrayBuffer(2 << 20));
  const bytes = packing === "raw" ? plain : zstdCompressSync(plain);
  shared.set(bytes);
  await writer.changeGranules(diskId, { granules, bytes: shared.subarray(0, bytes.length), packing, digest });
}

async function sealFrames(
  vault: Vault,
  content: Buffer,
  [machineId, parentPointId, sent]: [MachineId, PointId, readonly Frame[]],
): Promise<PointId> {
  const pointId = newPoint();
  await using writer = await vault.beginPoint({ pointId, machineId, parentPointId, disks });
  for (const frame of sent) await sendFrame(writer, content, frame);
  const { point } = await writer.seal(sealFacts);
  assert.equal(point.disks[0]?.root, await computeRoot(new MemoryDisk(content)));
  return pointId;
}

for (const blockThreads of [0, 2])
  describe(`Changes of granules, ${blockThreads} threads`, () => {
    it("give the root and the content of the changed disk, over many points", async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(frames, { minLength: 1, maxLength: 3 }), fc.boolean(), async (points, isReopened) => {
          const store = new MemoryStore();
          const machineId = newMachine();
          const content = randomBytes(blockCount * blockBytes);
          content.fill(0, 5 * blockBytes, 9 * blockBytes);
          let vault = await openTestVault(store, { packBytes: 400_000, blockThreads });
          let pointId = await sealWhole(vault, machineId, content);
          for (const sent of points) {
            if (isReopened) {
              await vault[Symbol.asyncDispose]();
              vault = await openTestVault(store, { packBytes: 400_000, blockThreads });
            }
            pointId = await sealFrames(vault, content, [machineId, pointId, sent]);
          }
          await vault[Symbol.asyncDispose]();
          await using fresh = await openTestVault(store);
          await assertContent(fresh, pointId, content);
          assert.equal((await fresh.verify()).damagedCount, 0);
        }),
        { numRuns: 12 },
      );
    });

    it("of one granule again and again stay right past the longest chain of patches", async () => {
      const store = new MemoryStore();
      await using vault = await openTestVault(store, { blockThreads });
      const machineId = newMachine();
      const content = randomBytes(blockCount * blockBytes);
      let pointId = await sealWhole(vault, machineId, content);
      for (let round = 0; round < 20; round++)
        pointId = await sealFrames(vault, content, [machineId, pointId, [{ granules: [37], kind: "noise", packing: "raw" }]]);
      await using fresh = await openTestVault(store);
      await assertContent(fresh, pointId, content);
    });
  });

it("Changes upon digests that are damaged look at the content, and end the damage", async () => {
  const store = new MemoryStore();
  const machineId = newMachine();
  const content = randomBytes(blockCount * blockBytes);
  let first = newPoint();
  {
    await using vault = await openTestVault(store);
    first = await sealWhole(vault, machineId, content);
  }
  for (const { key } of await Array.fromAsync(store.list("packs/"))) {
    const bytes = Uint8Array.from((await store.get(key)) ?? assert.fail("absent"));
    const view = new DataView(bytes.buffer, bytes.length - 64);
    const lastOfDigests = view.getUint32(0) - 1;
    bytes[lastOfDigests] = (bytes[lastOfDigests] ?? 0) ^ 1;
    await store.remove(key);
    await store.put(key, bytes);
  }
  await using vault = await openTestVault(store);
  assert.ok((await vault.verify()).damagedCount > 0);
  const all: Frame[] = numbers(blockCount).map((block) => ({ granules: [block * 16 + 3], kind: "noise", packing: "zstd" }));
  const second = await sealFrames(vault, content, [machineId, first, all]);
  const third = await sealFrames(vault, content, [machineId, second, all]);
  await assertContent(vault, third, content);
  assert.equal((await vault.verify({ pointId: third })).damagedCount, 0);
});
