// Announces every block of a disk and sends those that the appliance wants: the first round of modes full and checksum.

import { blocksPerFrameMax, needAnswers } from "../../contract/agent-frames.ts";
import { blockBytes, blockCountOf, digestBytes } from "../../disk/geometry.ts";
import { maskExcluded } from "../disks/ranges.ts";
import type { OpenDisk } from "../source.ts";
import type { BlockWork } from "./block-work.ts";
import type { DigestTable } from "./digest-table.ts";
import type { LaneTimes } from "./lane-times.ts";
import { runLanes, type Lane } from "./lanes.ts";
import type { ApplianceLink } from "./link.ts";
import type { Pacer } from "./pacer.ts";

export interface PassContext {
  readonly link: ApplianceLink;
  readonly pacer: Pacer;
  readonly lanes: readonly Lane[];
  readonly work: BlockWork;
  readonly times: LaneTimes;
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
  const { times, link, work } = context;
  const { sizeBytes, excluded } = disk.open.facts;
  await runLanes(context.lanes, firstBlocks(sizeBytes), async (firstBlock, lane) => {
    context.signal.throwIfAborted();
    const count = Math.min(blocksPerFrameMax, blockCountOf(sizeBytes) - firstBlock);
    const bytes = lane.raw.subarray(0, count * blockBytes);
    await times.spend("read", async () => await disk.open.read(firstBlock * blockBytes, bytes, context.signal));
    maskExcluded(bytes, firstBlock * blockBytes, excluded);
    context.onRead(disk.index, Math.min(bytes.length, sizeBytes - firstBlock * blockBytes));
    const digests = lane.digests.subarray(0, await times.spend("work", async () => await work.run(lane, { kind: "digest", count })));
    rememberDigests(disk, firstBlock, digests);
    const ids = { diskIndex: disk.index, firstBlock, digests };
    const { unit, need } = await times.spend("wait", async () => await link.announce(ids));
    const wanted: number[] = [];
    need.forEach((answer, index) => {
      if (answer === needAnswers.send) wanted.push(index);
      if (answer !== needAnswers.have && differing.size < differingBlocksMax) differing.add(firstBlock + index);
    });
    const job = { kind: "pack", diskIndex: disk.index, firstBlock, wanted } as const;
    const bodyLength = wanted.length === 0 ? 0 : await times.spend("work", async () => await work.run(lane, job));
    const body = lane.body.subarray(0, bodyLength);
    if (bodyLength > 0) await times.spend("wait", async () => await link.sendBlocks(unit, wanted.length, [body]));
    await times.spend("pause", async () => await context.pacer.pause(digests.length + bodyLength, context.signal));
  });
  await context.link.roundEnd();
  return differing;
}

function* firstBlocks(sizeBytes: number): Generator<number> {
  for (let block = 0; block < blockCountOf(sizeBytes); block += blocksPerFrameMax) yield block;
}

function rememberDigests({ digests: table }: PassDisk, firstBlock: number, digests: Uint8Array): void {
  if (table === undefined) return;
  for (let index = 0; index < digests.length / digestBytes; index++)
    table.set(firstBlock + index, digests.subarray(index * digestBytes, (index + 1) * digestBytes));
}
