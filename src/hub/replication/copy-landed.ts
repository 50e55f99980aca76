// Brings a recovery point up to what a landed disk holds: reads what may have changed, and stores what differs.

import { blockIdOf } from "../../disk/block-id.ts";
import { equalBytes, isZeroId, zeroId } from "../../disk/digest.ts";
import type { Disk } from "../../disk/disk.ts";
import { blockBytes, blockCountOf } from "../../disk/geometry.ts";
import type { DiskId } from "../../contract/ids.ts";
import type { LandedDisk } from "../../landing/target.ts";
import type { PointWriter, SentBlock } from "../../vault/vault.ts";

/** Read and looked up in one step: 4 MiB. */
const blocksAtOnce = 64;

export interface DiskCopy {
  readonly diskId: DiskId;
  /** With its excluded ranges as zeros. */
  readonly content: Disk;
  readonly written: LandedDisk["written"];
}

export interface CopyOutcome {
  readonly readBytes: number;
  readonly differingBlocks: number;
}

/** The point's content is compared block by block, so that what was written and is as before is not stored again. */
export async function copyLanded(
  writer: PointWriter,
  { diskId, content, written }: DiskCopy,
  { onRead, signal }: { readonly onRead: (bytes: number) => void; readonly signal: AbortSignal },
): Promise<CopyOutcome> {
  let readBytes = 0;
  let differingBlocks = 0;
  for (const run of runsOf(written, content.sizeBytes))
    for (let first = run.first; first < run.end; first += blocksAtOnce) {
      signal.throwIfAborted();
      const count = Math.min(blocksAtOnce, run.end - first);
      const { bytes, length } = await readBlocks(content, { first, count }, signal);
      readBytes += length;
      onRead(length);
      const blocks = Array.from({ length: count }, (_, index) => bytes.subarray(index * blockBytes, (index + 1) * blockBytes));
      const ids = blocks.map((block) => (length === 0 ? zeroId : blockIdOf(block)));
      const before = await writer.blockIds(diskId, first, count);
      const differing = ids.flatMap((id, index) => (equalBytes(id, before[index] ?? zeroId) ? [] : [index]));
      differingBlocks += differing.length;
      const sent: SentBlock[] = [];
      for (const index of differing) {
        const [id = zeroId, block = first + index] = [ids[index]];
        const [isWanted] = isZeroId(id) ? [false] : await writer.need(diskId, block, [id]);
        if (isWanted === true) sent.push({ block, id, bytes: blocks[index] ?? new Uint8Array(0), packing: "raw" });
        else writer.setBlock(diskId, block, id);
      }
      // The same content twice in one call would be stored twice.
      for (const each of distinct(sent)) await writer.putBlocks(diskId, each);
    }
  return { readBytes, differingBlocks };
}

/** Runs of whole blocks that may have changed, in order. */
function runsOf(written: LandedDisk["written"], sizeBytes: number): readonly { readonly first: number; readonly end: number }[] {
  const blockCount = blockCountOf(sizeBytes);
  if (written === "unknown") return [{ first: 0, end: blockCount }];
  const runs: { first: number; end: number }[] = [];
  for (const { offset, length } of written) {
    const first = Math.floor(offset / blockBytes);
    const end = Math.min(blockCount, Math.ceil((offset + length) / blockBytes));
    const last = runs.at(-1);
    if (last !== undefined && first <= last.end) last.end = Math.max(last.end, end);
    else runs.push({ first, end });
  }
  return runs;
}

/** A short last block is padded. Of what is known to be zeros nothing is read: length 0. */
async function readBlocks(
  disk: Disk,
  { first, count }: { readonly first: number; readonly count: number },
  signal: AbortSignal,
): Promise<{ readonly bytes: Buffer; readonly length: number }> {
  const bytes = Buffer.alloc(count * blockBytes);
  const offset = first * blockBytes;
  const length = Math.min(bytes.length, disk.sizeBytes - offset);
  const extents = await disk.extents(offset, length, signal);
  if (extents.every(({ kind }) => kind === "zero")) return { bytes, length: 0 };
  await disk.read(offset, bytes.subarray(0, length), signal);
  return { bytes, length };
}

/** Groups of blocks with different ids each. */
function distinct(sent: readonly SentBlock[]): readonly SentBlock[][] {
  const groups: { readonly keys: Set<string>; readonly blocks: SentBlock[] }[] = [];
  for (const each of sent) {
    const key = Buffer.from(each.id).toString("hex");
    const group = groups.find(({ keys }) => !keys.has(key));
    if (group === undefined) groups.push({ keys: new Set([key]), blocks: [each] });
    else {
      group.keys.add(key);
      group.blocks.push(each);
    }
  }
  return groups.map(({ blocks }) => blocks);
}
