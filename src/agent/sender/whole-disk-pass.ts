// Announces every block of a disk and sends those that the appliance wants: the first round of modes full and checksum.

import { granulesPerFrameMax, needAnswers } from "../../contract/agent-frames.ts";
import { Fault } from "../../contract/errors.ts";
import { equalBytes } from "../../disk/digest.ts";
import { blockBytes, blockCountOf, digestBytes, granuleBytes, granulesPerBlock } from "../../disk/geometry.ts";
import type { GranuleRun } from "../changes/tracker.ts";
import { maskExcluded } from "../disks/ranges.ts";
import type { OpenDisk } from "../source.ts";
import type { BlockWork } from "./block-work.ts";
import type { DigestTable } from "./digest-table.ts";
import { sendBatch, type ReadBatch } from "./granule-pass.ts";
import type { LaneTimes } from "./lane-times.ts";
import { blocksPerUnit, runLanes, type Lane, type LanePool } from "./lanes.ts";
import type { ApplianceLink } from "./link.ts";
import type { Pacer } from "./pacer.ts";
import type { PassRecord } from "./pass-record.ts";

export interface PassContext extends LanePool {
  readonly link: ApplianceLink;
  readonly pacer: Pacer;
  readonly work: BlockWork;
  readonly times: LaneTimes;
  readonly onRead: (diskIndex: number, byteCount: number) => void;
  /** Passed over, because an earlier pass had read it and nothing was written there since. */
  readonly onSkip: (diskIndex: number, byteCount: number) => void;
  readonly signal: AbortSignal;
}

export interface PassDisk {
  readonly index: number;
  readonly open: OpenDisk;
  readonly digests: DigestTable | undefined;
  /** What an earlier pass had read; undefined when nothing is to be kept. */
  readonly record?: PassRecord | undefined;
}

/** Blocks remembered as different; more than that and the count is only a lower bound. */
const differingBlocksMax = 1 << 20;

/** Answers the blocks that the appliance said differ from the base point or are missing. Resolves when the round has ended. */
export async function sendWholeDisk(context: PassContext, disk: PassDisk, changed: Iterable<GranuleRun> = []): Promise<Set<number>> {
  const differing = new Set<number>();
  const { times, link, work } = context;
  const { sizeBytes } = disk.open.facts;
  const isRead = framesToRead(disk.record, changed);
  const { lanes, lanesMin } = context;
  const choice = { lanes, wanted: () => link.window.lanesWanted(lanesMin) };
  await runLanes(choice, firstBlocks(sizeBytes), async (firstBlock, lane) => {
    context.signal.throwIfAborted();
    const frame = { firstBlock, count: Math.min(blocksPerUnit, blockCountOf(sizeBytes) - firstBlock) };
    const isFresh = isRead(firstBlock / blocksPerUnit);
    const digests = isFresh ? await readFrame(context, disk, { frame, lane }) : await recallFrame(context, disk, { frame, lane });
    rememberDigests(disk, firstBlock, digests);
    const ids = { diskIndex: disk.index, firstBlock, digests };
    const { unit, need, rows } = await times.spend("wait", async () => await link.announce(ids));
    const wanted: number[] = [];
    const compared: number[] = [];
    need.forEach((answer, index) => {
      if (answer === needAnswers.send) wanted.push(index);
      if (answer === needAnswers.compare) compared.push(index);
      if (answer !== needAnswers.have && differing.size < differingBlocksMax) differing.add(firstBlock + index);
    });
    const announced = Uint8Array.from(digests);
    if (wanted.length + compared.length > 0 && !isFresh) await readAnnounced(context, disk, { frame, lane, announced });
    // Before blocks are packed in the memory that these lie in.
    const others = compared.length === 0 ? [] : await findOthers(context, disk, { frame, lane, compared, rows });
    const job = { kind: "pack", diskIndex: disk.index, firstBlock, wanted } as const;
    const bodyLength = wanted.length === 0 ? 0 : await times.spend("work", async () => await work.run(lane, job));
    const body = lane.body.subarray(0, bodyLength);
    if (bodyLength > 0) await times.spend("wait", async () => await link.sendBlocks(unit, wanted.length, [body]));
    for (const batch of others) await sendBatch(context, batch);
    if (isFresh) await disk.record?.write(firstBlock / blocksPerUnit, announced);
    await times.spend("pause", async () => await context.pacer.pause(announced.length + bodyLength, context.signal));
  });
  await context.link.roundEnd();
  return differing;
}

interface FrameWork {
  readonly frame: { readonly firstBlock: number; readonly count: number };
  readonly lane: Lane;
}

/** The granules in which compared blocks differ from what the base point holds, in memory of their own: one batch or more, whole blocks each. */
async function findOthers(
  { times, work }: PassContext,
  disk: PassDisk,
  { frame, lane, compared, rows }: FrameWork & { readonly compared: readonly number[]; readonly rows: Uint8Array },
): Promise<readonly ReadBatch[]> {
  await times.spend("work", async () => await work.run(lane, { kind: "compare", indexes: compared, rows }));
  const masks = new DataView(lane.digests.buffer, lane.digests.byteOffset, lane.digests.length);
  const batches: { readonly granules: number[]; readonly parts: Uint8Array[] }[] = [];
  for (const [place, index] of compared.entries()) {
    const mask = masks.getUint16(place * 2);
    let last = batches.at(-1);
    if (last === undefined || last.granules.length + granulesPerBlock > granulesPerFrameMax)
      batches.push((last = { granules: [], parts: [] }));
    for (let granule = 0; granule < granulesPerBlock; granule++) {
      if ((mask & (1 << granule)) === 0) continue;
      const at = index * blockBytes + granule * granuleBytes;
      last.granules.push((frame.firstBlock + index) * granulesPerBlock + granule);
      last.parts.push(lane.raw.subarray(at, at + granuleBytes));
    }
  }
  return batches.map(({ granules, parts }) => ({ diskIndex: disk.index, granules, raw: Buffer.concat(parts) }));
}

/** Every frame but those that the record holds and nothing has changed since. */
function framesToRead(record: PassRecord | undefined, changed: Iterable<GranuleRun>): (frame: number) => boolean {
  if (record === undefined || record.frameCount === 0) return () => true;
  const granulesPerFrame = granulesPerBlock * blocksPerUnit;
  const stale = new Set<number>();
  for (const { first, count } of changed)
    for (let frame = Math.floor(first / granulesPerFrame); frame * granulesPerFrame < first + count; frame++) stale.add(frame);
  return (frame) => stale.has(frame) || !record.has(frame);
}

async function readFrame(context: PassContext, disk: PassDisk, { frame, lane }: FrameWork): Promise<Uint8Array> {
  const { sizeBytes, excluded } = disk.open.facts;
  const offset = frame.firstBlock * blockBytes;
  const bytes = lane.raw.subarray(0, frame.count * blockBytes);
  const { times, work } = context;
  await times.spend("read", async () => await disk.open.read(offset, bytes, context.signal));
  maskExcluded(bytes, offset, excluded);
  context.onRead(disk.index, Math.min(bytes.length, sizeBytes - offset));
  return lane.digests.subarray(0, await times.spend("work", async () => await work.run(lane, { kind: "digest", count: frame.count })));
}

async function recallFrame(context: PassContext, disk: PassDisk, { frame, lane }: FrameWork): Promise<Uint8Array> {
  const digests = lane.digests.subarray(0, frame.count * digestBytes);
  await disk.record?.read(frame.firstBlock / blocksPerUnit, digests);
  context.onSkip(disk.index, Math.min(frame.count * blockBytes, disk.open.facts.sizeBytes - frame.firstBlock * blockBytes));
  return digests;
}

/** The appliance lacks what an earlier pass had announced: it is read now, and must still be what was announced just now. */
async function readAnnounced(
  context: PassContext,
  disk: PassDisk,
  { frame, lane, announced }: FrameWork & { readonly announced: Uint8Array },
): Promise<void> {
  const digests = await readFrame(context, disk, { frame, lane });
  if (equalBytes(digests, announced)) return;
  await disk.record?.forget(frame.firstBlock / blocksPerUnit);
  throw new Fault("StateConflict", "the disk changed where an earlier pass is gone on with; the point is made again", {
    evidence: { diskId: disk.open.facts.diskId, firstBlock: frame.firstBlock },
    retry: "now",
  });
}

function* firstBlocks(sizeBytes: number): Generator<number> {
  for (let block = 0; block < blockCountOf(sizeBytes); block += blocksPerUnit) yield block;
}

function rememberDigests({ digests: table }: PassDisk, firstBlock: number, digests: Uint8Array): void {
  if (table === undefined) return;
  for (let index = 0; index < digests.length / digestBytes; index++)
    table.set(firstBlock + index, digests.subarray(index * digestBytes, (index + 1) * digestBytes));
}
