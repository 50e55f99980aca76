// Writes a reverse delta file out of a vault: first the blocks that two points differ in are counted and signed for, then their bytes are written.

import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { flushFolder } from "../../base/atomic-file.ts";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseDigestHex } from "../../contract/ids.ts";
import { isZeroId } from "../../disk/digest.ts";
import type { Disk } from "../../disk/disk.ts";
import { blockBytes } from "../../disk/geometry.ts";
import type { PointDisk, RecoveryPoint, VaultReader } from "../../vault/vault.ts";
import { compressEntry } from "../../vault/zstd.ts";
import {
  deltaManifestShape,
  deltaType,
  deltaVersion,
  encodeDeltaHead,
  encodeEntryHead,
  EntriesDigest,
  entriesMax,
  type DeltaManifest,
} from "./delta-format.ts";

export interface DeltaWish {
  readonly basis: RecoveryPoint;
  readonly point: RecoveryPoint;
  readonly vaultId: string;
  readonly itemId: string;
  readonly machineName: string;
  readonly path: string;
}

export interface DeltaTools {
  readonly reader: VaultReader;
  readonly sign: (type: string, document: object) => Promise<string>;
  readonly onProgress: (percent: number) => void;
  readonly signal: AbortSignal;
}

/** The file is whole and durable on return; a failure leaves none. */
export async function writeDelta(
  wish: DeltaWish,
  tools: DeltaTools,
): Promise<{ readonly manifest: DeltaManifest; readonly sizeBytes: number }> {
  const pairs = pairsOf(wish);
  const manifest = await makeManifest(wish, pairs, tools);
  const signed = Buffer.from(await tools.sign(deltaType, manifest), "utf8");
  const partial = `${wish.path}.part`;
  try {
    await using file = await open(partial, "w", 0o600);
    await file.write(encodeDeltaHead(signed));
    await file.write(signed);
    await writeEntries(file, { wish, pairs, manifest }, tools);
    await file.datasync();
    const { size: sizeBytes } = await file.stat();
    await rename(partial, wish.path);
    await flushFolder(dirname(wish.path));
    return { manifest, sizeBytes };
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

interface DiskPair {
  readonly before: PointDisk;
  readonly after: PointDisk;
}

function pairsOf({ basis, point }: DeltaWish): readonly DiskPair[] {
  return basis.disks.map((before) => {
    const after = point.disks.find(({ diskId }) => diskId === before.diskId);
    if (after?.sizeBytes === before.sizeBytes && JSON.stringify(after.excluded) === JSON.stringify(before.excluded))
      return { before, after };
    throw new Fault("StateConflict", "could not write a reverse delta: a disk is gone, or has another size or other excluded ranges", {
      evidence: { diskId: before.diskId },
    });
  });
}

async function makeManifest(wish: DeltaWish, pairs: readonly DiskPair[], { reader, signal }: DeltaTools): Promise<DeltaManifest> {
  const { basis, point, vaultId, itemId, machineName } = wish;
  const digest = new EntriesDigest();
  const disks: object[] = [];
  let entryCount = 0;
  for (const [disk, { before, after }] of pairs.entries()) {
    let ofDisk = 0;
    for await (const differing of reader.differingBlocks({ from: basis.pointId, to: point.pointId }, before.diskId)) {
      signal.throwIfAborted();
      digest.add({ disk, ...differing });
      ofDisk += 1;
      if (entryCount + ofDisk > entriesMax)
        throw new Fault("OperationNotSupported", "could not write a reverse delta: more blocks differ than one file may hold", {
          evidence: { entriesMax },
          action: "export the final point's disks instead, and write them whole",
        });
    }
    entryCount += ofDisk;
    const { diskId, sizeBytes, isBoot, excluded, root } = before;
    const roots = { rootBefore: parseDigestHex(root), rootAfter: parseDigestHex(after.root) };
    disks.push({ diskId, sizeBytes, isBoot, excluded: [...excluded], ...roots, entryCount: ofDisk });
  }
  const { machineId, pointId, timeMs } = point;
  const names = { vaultId, itemId, machineName, machineId, basisPointId: basis.pointId, pointId, pointTime: toTimestamp(timeMs) };
  return deltaManifestShape.parse({ version: deltaVersion, ...names, blockBytes, disks, entryCount, entriesDigest: digest.digest() });
}

async function writeEntries(
  file: FileHandle,
  { wish, pairs, manifest }: { readonly wish: DeltaWish; readonly pairs: readonly DiskPair[]; readonly manifest: DeltaManifest },
  { reader, onProgress, signal }: DeltaTools,
): Promise<void> {
  let written = 0;
  for (const [disk, { before }] of pairs.entries()) {
    await using content = await reader.openDisk(wish.point.pointId, before.diskId);
    for await (const differing of reader.differingBlocks({ from: wish.basis.pointId, to: wish.point.pointId }, before.diskId)) {
      const bytes = isZeroId(differing.after) ? undefined : await readBlock(content, differing.block, signal);
      const packed = bytes === undefined ? undefined : compressEntry(bytes);
      const body = packed ?? bytes ?? new Uint8Array(0);
      const packing = bytes === undefined ? "zero" : packed === undefined ? "raw" : "zstd";
      await file.write(encodeEntryHead({ disk, ...differing, packing, bodyBytes: body.length }));
      if (body.length > 0) await file.write(Uint8Array.from(body));
      written += 1;
      onProgress((100 * written) / Math.max(1, manifest.entryCount));
    }
  }
}

/** A short last block is padded. */
async function readBlock(disk: Disk, block: number, signal: AbortSignal): Promise<Uint8Array> {
  const bytes = Buffer.alloc(blockBytes);
  const offset = block * blockBytes;
  await disk.read(offset, bytes.subarray(0, Math.min(blockBytes, disk.sizeBytes - offset)), signal);
  return bytes;
}
