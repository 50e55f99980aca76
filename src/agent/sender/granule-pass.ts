// Reads changed granules in batches of whole blocks and sends them; the same batches are read into memory while frozen.

import { hash } from "node:crypto";
import { blocksPerFrameMax, granulesPerFrameMax } from "../../contract/agent-frames.ts";
import { blockBytes, granuleBytes, granulesPerBlock } from "../../disk/geometry.ts";
import { blockIdOf } from "../../disk/block-id.ts";
import { isAllZero } from "../../disk/digest.ts";
import type { GranuleRun } from "../changes/tracker.ts";
import { maskExcluded } from "../disks/ranges.ts";
import { runLanes, type LaneChoice } from "./lanes.ts";
import { compressPayload, type Payload } from "./payload.ts";
import type { PassContext, PassDisk } from "./whole-disk-pass.ts";

/** Changed granules of one block, as indexes 0…15 in rising order. */
export interface ChangedBlock {
  readonly block: number;
  readonly granules: readonly number[];
}
export type Batch = readonly ChangedBlock[];

/** A batch as it was read: what one granules frame says. */
export interface ReadBatch {
  readonly diskIndex: number;
  readonly granules: readonly number[];
  readonly raw: Uint8Array;
}

/** keep: read changed blocks whole and take their digests. forget: read only what changed, the block's digest becomes unknown. */
export type DigestUse = "keep" | "forget";

/** Cuts runs into batches that fit one frame and one lane buffer; all granules of a block are in one batch. */
export function* batchRuns(runs: Iterable<GranuleRun>): Generator<Batch> {
  let batch: { block: number; granules: number[] }[] = [];
  let granuleCount = 0;
  for (const run of runs) {
    for (let granule = run.first; granule < run.first + run.count; granule++) {
      const block = Math.floor(granule / granulesPerBlock);
      let last = batch.at(-1);
      if (last?.block !== block) {
        if (batch.length === blocksPerFrameMax || granuleCount + granulesPerBlock > granulesPerFrameMax) {
          yield batch;
          batch = [];
          granuleCount = 0;
        }
        last = { block, granules: [] };
        batch.push(last);
      }
      last.granules.push(granule % granulesPerBlock);
      granuleCount += 1;
    }
  }
  if (batch.length > 0) yield batch;
}

interface Span {
  /** Place in the lane buffer. */
  readonly at: number;
  readonly offset: number;
  readonly length: number;
}

/** One read for neighbours: block number i of the batch lies at i × 64 KiB of the buffer. */
function planReads(batch: Batch, use: DigestUse): Span[] {
  const spans: { at: number; offset: number; length: number }[] = [];
  batch.forEach(({ block, granules }, slot) => {
    const first = use === "keep" ? 0 : (granules[0] ?? 0);
    const last = use === "keep" ? granulesPerBlock - 1 : (granules.at(-1) ?? 0);
    const span = {
      at: slot * blockBytes + first * granuleBytes,
      offset: block * blockBytes + first * granuleBytes,
      length: (last - first + 1) * granuleBytes,
    };
    const before = spans.at(-1);
    if (before !== undefined && before.offset + before.length === span.offset && before.at + before.length === span.at)
      before.length += span.length;
    else spans.push(span);
  });
  return spans;
}

/** Reads a batch through `buffer`; `raw` of the answer is a copy. */
export async function readBatch(
  context: Pick<PassContext, "onRead" | "signal" | "times">,
  disk: PassDisk,
  reading: { readonly batch: Batch; readonly buffer: Uint8Array; readonly use: DigestUse },
): Promise<ReadBatch> {
  const { batch, buffer, use } = reading;
  // At most a span for each of the batch's blocks: the disk has several requests at once, as many as there are threads for them.
  const readSpan = async ({ at, offset, length }: Span): Promise<void> => {
    const bytes = buffer.subarray(at, at + length);
    await disk.open.read(offset, bytes, context.signal);
    maskExcluded(bytes, offset, disk.open.facts.excluded);
    context.onRead(disk.index, length);
  };
  const reads = await context.times.spend("read", async () => await Promise.allSettled(planReads(batch, use).map(readSpan)));
  // Only once all have ended: none may fill the buffer when it is another batch's.
  for (const read of reads) if (read.status === "rejected") throw read.reason;
  const granules: number[] = [];
  const raw = Buffer.allocUnsafe(batch.reduce((sum, block) => sum + block.granules.length, 0) * granuleBytes);
  batch.forEach((block, slot) => {
    for (const granule of block.granules) {
      const at = slot * blockBytes + granule * granuleBytes;
      raw.set(buffer.subarray(at, at + granuleBytes), granules.length * granuleBytes);
      granules.push(block.block * granulesPerBlock + granule);
    }
    if (use === "keep") disk.digests?.set(block.block, blockIdOf(buffer.subarray(slot * blockBytes, (slot + 1) * blockBytes)));
    else disk.digests?.forget(block.block);
  });
  return { diskIndex: disk.index, granules, raw };
}

export async function sendBatch(context: PassContext, batch: ReadBatch): Promise<void> {
  const { times, link, pacer, signal } = context;
  const { payload, digest } = await times.spend("work", () => packRaw(batch.raw));
  const head = new Uint8Array(8 + batch.granules.length * 4);
  const view = new DataView(head.buffer);
  view.setUint32(0, batch.diskIndex);
  view.setUint8(4, payload.method);
  batch.granules.forEach((granule, index) => view.setUint32(8 + index * 4, granule));
  await times.spend("wait", async () => await link.sendGranules(batch.granules.length, [head, digest, payload.bytes]));
  await times.spend("pause", async () => await pacer.pause(head.length + payload.bytes.length, signal));
}

interface Packed {
  readonly payload: Payload;
  readonly digest: Uint8Array;
}

/** What a trim leaves is zeros, gigabytes of them; their digests and payloads are worked out once a length. */
const packedZeros = new Map<number, Packed>();

function packRaw(raw: Uint8Array): Packed {
  const isZero = isAllZero(raw);
  const known = isZero ? packedZeros.get(raw.length) : undefined;
  if (known !== undefined) return known;
  const packed = { payload: compressPayload(raw), digest: hash("sha256", raw, "buffer") };
  if (isZero) packedZeros.set(raw.length, packed);
  return packed;
}

/** Reads and sends the runs of one disk. The caller ends the round. */
export async function sendRuns(
  context: PassContext,
  disk: PassDisk,
  changes: { readonly runs: Iterable<GranuleRun>; readonly use: DigestUse },
): Promise<void> {
  await runLanes(fewLanes(context), batchRuns(changes.runs), async (batch, { raw: buffer }) => {
    context.signal.throwIfAborted();
    await sendBatch(context, await readBatch(context, disk, { batch, buffer, use: changes.use }));
  });
}

/** Frames leave without waiting for answers, so a long line needs no more lanes. */
function fewLanes({ lanes, lanesMin }: PassContext): LaneChoice {
  return { lanes, wanted: () => lanesMin };
}

/** Takes the digests of blocks that the table does not know. */
export async function refreshDigests(context: PassContext, disk: PassDisk): Promise<void> {
  const table = disk.digests;
  if (table === undefined) return;
  await runLanes(fewLanes(context), batchUnknown(table.unknownBlocks()), async (batch, { raw: buffer }) => {
    context.signal.throwIfAborted();
    await readBatch(context, disk, { batch, buffer, use: "keep" });
    await context.pacer.pause(0, context.signal);
  });
}

function* batchUnknown(blocks: Iterable<number>): Generator<Batch> {
  let batch: ChangedBlock[] = [];
  for (const block of blocks) {
    batch.push({ block, granules: [] });
    if (batch.length < blocksPerFrameMax) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
