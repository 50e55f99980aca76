// A vault for tests: one key, whole disks sent as an agent sends them, and the check that they come back.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { parseDiskId, parseMachineId, parsePointId, parseVaultId, type DiskId, type MachineId, type PointId } from "../contract/ids.ts";
import { computeRoot } from "../disk/compute-root.ts";
import { blockIdOf } from "../disk/block-id.ts";
import { isAllZero } from "../disk/digest.ts";
import { blockBytes, granulesPerBlock } from "../disk/geometry.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import type { Store } from "../store/store.ts";
import { openVault, type VaultOptions } from "./open-vault.ts";
import type { PointWriter, Vault, VaultReader } from "./vault.ts";

export const vaultId = parseVaultId(randomUUID());
export const testKey = randomBytes(32);
export const diskId = parseDiskId("disk-1");
export const newMachine = (): MachineId => parseMachineId(randomUUID());
export const newPoint = (): PointId => parsePointId(randomUUID());
export const sealFacts = { timeMs: 1000, consistency: "crash" } as const;

export async function openTestVault(store: Store, more: Partial<VaultOptions> = {}): Promise<Vault> {
  return await openVault({ store, vaultId, key: testKey, clock: systemClock, random: systemRandom, log: silentLog, ...more });
}

export function blockAt(content: Buffer, block: number): Buffer {
  const bytes = Buffer.alloc(blockBytes);
  content.copy(bytes, 0, block * blockBytes, Math.min(content.length, (block + 1) * blockBytes));
  return bytes;
}

/** Sends a whole disk as an agent does: ids, then what is needed. Answers how many blocks were needed. */
export async function sendAll(writer: PointWriter, content: Buffer, disk = diskId): Promise<number> {
  let neededCount = 0;
  for (let block = 0; block * blockBytes < content.length; block++) {
    const bytes = blockAt(content, block);
    const id = blockIdOf(bytes);
    const [isNeeded] = await writer.need(disk, block, [id]);
    if (isNeeded === true) {
      neededCount += 1;
      await writer.putBlock(disk, block, id, bytes);
    } else writer.setBlock(disk, block, id);
  }
  return neededCount;
}

export async function sealWhole(vault: Vault, machineId: MachineId, content: Buffer): Promise<PointId> {
  const pointId = newPoint();
  await using writer = await vault.beginPoint({
    pointId,
    machineId,
    disks: [{ diskId, sizeBytes: content.length, isBoot: true, excluded: [] }],
  });
  await sendAll(writer, content);
  const { point } = await writer.seal(sealFacts);
  assert.equal(point.disks[0]?.root, await computeRoot(new MemoryDisk(content)));
  return pointId;
}

export async function assertContent(reader: VaultReader, pointId: PointId, content: Buffer): Promise<void> {
  await using disk = await reader.openDisk(pointId, diskId);
  assert.equal(disk.sizeBytes, content.length);
  const bytes = Buffer.alloc(content.length, 1);
  await disk.read(0, bytes);
  assert.ok(bytes.equals(content), "content is what was sent");
  for (const extent of await disk.extents(0, content.length))
    if (extent.kind === "zero") assert.ok(isAllZero(content.subarray(extent.offset, extent.offset + extent.length)));
}

/** Changes granules of one block; of two for one place the later counts. */
export async function patchBlock(
  writer: PointWriter,
  disk: DiskId,
  block: number,
  granules: readonly { readonly index: number; readonly bytes: Uint8Array }[],
): Promise<void> {
  const byIndex = [...new Map(granules.map(({ index, bytes }) => [index, bytes]))].sort(([one], [other]) => one - other);
  await writer.changeGranules(disk, {
    granules: byIndex.map(([index]) => block * granulesPerBlock + index),
    bytes: Buffer.concat(byIndex.map(([, bytes]) => bytes)),
    packing: "raw",
  });
}
