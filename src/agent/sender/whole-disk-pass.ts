// Announces every block of a disk and sends those that the appliance wants: the first round of modes full and checksum.

import { blocksPerFrameMax, needAnswers } from "../../contract/agent-frames.ts";
import { blockBytes, blockCountOf, digestBytes } from "../../disk/geometry.ts";
import { idOf } from "../../disk/digest.ts";
import { maskExcluded } from "../disks/ranges.ts";
import type { OpenDisk } from "../source.ts";
import type { DigestTable } from "./digest-table.ts";
import { runLanes } from "./lanes.ts";
import type { ApplianceLink } from "./link.ts";
import type { Pacer } from "./pacer.ts";
import { compressPayload } from "./payload.ts";

export interface PassContext {
  readonly link: ApplianceLink;
  readonly pacer: Pacer;
  readonly buffers: readonly Uint8Array[];
  readonly onRead: (diskIndex: number, byteCount: number) => void;
  readonly signal: AbortSignal;
}

export interface PassDisk {
  readonly index: number;
  readonly open: OpenDisk;
  readonly digests: DigestTable | undefined;
}

/** Blocks remembered as different; more than that and the count is only a lower bound. */
const differingBlocksMax = 1 << 20;

/** Answers the blocks that the appliance said differ from the base point or are missing. Resolves when the round has ended. */
export async function sendWholeDisk(context: PassContext, disk: PassDisk): Promise<Set<number>> {
  const differing = new Set<number>();
  const { sizeBytes, excluded } = disk.open.facts;
  await runLanes(context.buffers, firstBlocks(sizeBytes), async (firstBlock, buffer) => {
    context.signal.throwIfAborted();
    const count = Math.min(blocksPerFrameMax, blockCountOf(sizeBytes) - firstBlock);
    const bytes = buffer.subarray(0, count * blockBytes);
    await disk.open.read(firstBlock * blockBytes, bytes, context.signal);
    maskExcluded(bytes, firstBlock * blockBytes, excluded);
    context.onRead(disk.index, Math.min(bytes.length, sizeBytes - firstBlock * blockBytes));
    const digests = digestBlocks(bytes, firstBlock, disk.digests);
    const { unit, need } = await context.link.announce({ diskIndex: disk.index, firstBlock, digests });
    const wanted: number[] = [];
    need.forEach((answer, index) => {
      if (answer === needAnswers.send) wanted.push(index);
      if (answer !== needAnswers.have && differing.size < differingBlocksMax) differing.add(firstBlock + index);
    });
    const parts = wanted.length === 0 ? [] : packBlocks(disk.index, { bytes, firstBlock, wanted });
    if (parts.length > 0) await context.link.sendBlocks(unit, wanted.length, parts);
    await context.pacer.pause(digests.length + parts.reduce((sum, part) => sum + part.length, 0), context.signal);
  });
  await context.link.roundEnd();
  return differing;
}

function* firstBlocks(sizeBytes: number): Generator<number> {
  for (let block = 0; block < blockCountOf(sizeBytes); block += blocksPerFrameMax) yield block;
}

function digestBlocks(bytes: Uint8Array, firstBlock: number, table: DigestTable | undefined): Uint8Array {
  const count = bytes.length / blockBytes;
  const digests = new Uint8Array(count * digestBytes);
  for (let index = 0; index < count; index++) {
    const id = idOf(bytes.subarray(index * blockBytes, (index + 1) * blockBytes));
    digests.set(id, index * digestBytes);
    table?.set(firstBlock + index, id);
  }
  return digests;
}

/** Body of a blocks frame, in parts. */
function packBlocks(
  diskIndex: number,
  unit: { readonly bytes: Uint8Array; readonly firstBlock: number; readonly wanted: readonly number[] },
): Uint8Array[] {
  const head = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, diskIndex);
  const parts: Uint8Array[] = [head];
  for (const index of unit.wanted) {
    const payload = compressPayload(unit.bytes.subarray(index * blockBytes, (index + 1) * blockBytes));
    const entry = new Uint8Array(9);
    const view = new DataView(entry.buffer);
    view.setUint32(0, unit.firstBlock + index);
    view.setUint32(4, payload.bytes.length);
    view.setUint8(8, payload.method);
    parts.push(entry, payload.bytes);
  }
  return parts;
}
