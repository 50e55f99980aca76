// Reads a whole recovery point and says which ranges of which disks are damaged. A clean report proves every byte.

import { Fault } from "../contract/errors.ts";
import type { DiskId, PointId } from "../contract/ids.ts";
import type { Disk } from "../disk/disk.ts";
import { blockBytes, idsPerPage } from "../disk/geometry.ts";
import type { VaultReader } from "./vault.ts";

export interface DamagedRange {
  readonly diskId: DiskId;
  readonly offset: number;
  readonly length: number;
  readonly finding: string;
}

export interface PointVerification {
  readonly pointId: PointId;
  readonly readBytes: number;
  /** In order; empty when the point is whole. The first damagedMax of them. */
  readonly damaged: readonly DamagedRange[];
  readonly damagedCount: number;
}

export interface VerifyOptions {
  readonly onProgress?: (doneBytes: number) => void;
  readonly signal?: AbortSignal;
}

const damagedMax = 1000;
const pageSpan = idsPerPage * blockBytes;
const readBytesMax = 64 * blockBytes;

/** Throws only what is no damage: an unknown point, a store that does not answer, an abort. */
export async function verifyPoint(reader: VaultReader, pointId: PointId, options: VerifyOptions = {}): Promise<PointVerification> {
  const point = await reader.point(pointId);
  if (point === undefined)
    throw new Fault("NotFound", "could not verify a recovery point: the vault has no such point", { evidence: { pointId } });
  const damaged: DamagedRange[] = [];
  let damagedCount = 0;
  let readBytes = 0;
  for (const { diskId } of point.disks) {
    await using disk = await reader.openDisk(pointId, diskId);
    for (let offset = 0; offset < disk.sizeBytes; offset += pageSpan) {
      options.signal?.throwIfAborted();
      const length = Math.min(pageSpan, disk.sizeBytes - offset);
      for (const range of await damageOf(disk, offset, length)) {
        damagedCount += 1;
        if (damaged.length < damagedMax) damaged.push({ diskId, ...range });
      }
      readBytes += length;
      options.onProgress?.(readBytes);
    }
  }
  return { pointId, readBytes, damaged, damagedCount };
}

type Damage = Omit<DamagedRange, "diskId">;

/** Damage inside the blocks of one page; all of them when the page itself is damaged. */
async function damageOf(disk: Disk, offset: number, length: number): Promise<Damage[]> {
  const found: Damage[] = [];
  const buffer = Buffer.allocUnsafe(readBytesMax);
  const pageDamage = await damageWhile(offset, length, async () => {
    for (const extent of await disk.extents(offset, length)) {
      if (extent.kind === "zero") continue;
      const end = extent.offset + extent.length;
      for (let at = extent.offset; at < end; at += readBytesMax)
        found.push(...(await damageOfBlocks(disk, at, buffer.subarray(0, Math.min(readBytesMax, end - at)))));
    }
  });
  return pageDamage === undefined ? found : [pageDamage];
}

/** Reads a run of blocks; when that fails, each by itself. */
async function damageOfBlocks(disk: Disk, offset: number, buffer: Uint8Array): Promise<Damage[]> {
  if ((await damageWhile(offset, buffer.length, async () => await disk.read(offset, buffer))) === undefined) return [];
  const found: Damage[] = [];
  for (let at = 0; at < buffer.length; at += blockBytes) {
    const block = buffer.subarray(at, at + blockBytes);
    const damage = await damageWhile(offset + at, block.length, async () => await disk.read(offset + at, block));
    if (damage !== undefined) found.push(damage);
  }
  return found;
}

async function damageWhile(offset: number, length: number, task: () => Promise<void>): Promise<Damage | undefined> {
  try {
    await task();
    return undefined;
  } catch (error) {
    if (error instanceof Fault && error.code === "DataDamaged") return { offset, length, finding: error.message };
    throw error;
  }
}
