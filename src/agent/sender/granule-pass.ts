// Reads changed granules in batches of whole blocks and sends them; the same batches are read into memory while frozen.

import { hash } from "node:crypto";
import { granulesPerFrameMax, payloadMethods } from "../../contract/agent-frames.ts";
import { blockBytes, digestBytes, granuleBytes, granulesPerBlock } from "../../disk/geometry.ts";
import { blockIdOf } from "../../disk/block-id.ts";
import { isAllZero } from "../../disk/digest.ts";
import type { GranuleRun } from "../changes/tracker.ts";
import { maskExcluded } from "../disks/ranges.ts";
import { blocksPerUnit, runLanes, type Lane, type LaneChoice } from "./lanes.ts";
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

/** What a lane's buffer holds. */
const bufferGranulesMax = blocksPerUnit * granulesPerBlock;

/** Cuts runs into batches that fit one frame and one lane buffer; all granules of a block are in one batch. */
function* batchRuns(runs: Iterable<GranuleRun>, use: DigestUse): Generator<Batch> {
  let batch: { block: number; granules: number[] }[] = [];
  let granuleCount = 0;
  let readCount = 0;
  for (const run of runs) {
    for (let granule = run.first; granule < run.first + run.count; granule++) {
      const block = Math.floor(granule / granulesPerBlock);
      let last = batch.at(-1);
      if (last?.block !== block) {
        readCount += last === undefined ? 0 : spanOf(last, use).count;
        if (granuleCount + granulesPerBlock > granulesPerFrameMax || readCount + granulesPerBlock > bufferGranulesMax) {
          yield batch;
          [batch, granuleCount, readCount] = [[], 0, 0];
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

/** What is read of a block: all of it for its digest, else from the first changed granule to the last. */
function spanOf({ granules }: ChangedBlock, use: DigestUse): { readonly first: number; readonly count: number } {
  if (use === "keep") return { first: 0, count: granulesPerBlock };
  const first = granules[0] ?? 0;
  return { first, count: (granules.at(-1) ?? first) - first + 1 };
}

interface Span {
  /** Place in the lane buffer. */
  readonly at: number;
  readonly offset: number;
  readonly length: number;
}

interface ReadPlan {
  /** One read for neighbours. */
  readonly spans: readonly Span[];
  /** For each block of the batch, where its first granule would lie in the lane buffer. */
  readonly starts: readonly number[];
}

function planReads(batch: Batch, use: DigestUse): ReadPlan {
  const spans: { at: number; offset: number; length: number }[] = [];
  const starts: number[] = [];
  let used = 0;
  for (const changed of batch) {
    const { first, count } = spanOf(changed, use);
    const span = { at: used, offset: changed.block * blockBytes + first * granuleBytes, length: count * granuleBytes };
    const before = spans.at(-1);
    if (before !== undefined && before.offset + before.length === span.offset) before.length += span.length;
    else spans.push(span);
    starts.push(used - first * granuleBytes);
    used += span.length;
  }
  return { spans, starts };
}

/** Reads a batch into `buffer`; `raw` of the answer is the start of it. */
async function readBatch(
  context: Pick<PassContext, "onRead" | "signal" | "times">,
  disk: PassDisk,
  reading: { readonly batch: Batch; readonly buffer: Uint8Array; readonly use: DigestUse },
): Promise<ReadBatch> {
  const { batch, buffer, use } = reading;
  const { spans, starts } = planReads(batch, use);
  const into = ({ at, length }: Span): Uint8Array => buffer.subarray(at, at + length);
  const wanted = spans.map((span) => ({ offset: span.offset, into: into(span) }));
  await context.times.spend("read", async () => await disk.open.readMany(wanted, context.signal));
  for (const span of spans) {
    maskExcluded(into(span), span.offset, disk.open.facts.excluded);
    context.onRead(disk.index, span.length);
  }
  const granules: number[] = [];
  // Digests first: below, granules move to the start.
  batch.forEach(({ block }, index) => {
    const start = starts[index] ?? 0;
    if (use === "keep") disk.digests?.set(block, blockIdOf(buffer.subarray(start, start + blockBytes)));
    else disk.digests?.forget(block);
  });
  for (const [index, block] of batch.entries())
    for (const granule of block.granules) {
      const at = (starts[index] ?? 0) + granule * granuleBytes;
      buffer.copyWithin(granules.length * granuleBytes, at, at + granuleBytes);
      granules.push(block.block * granulesPerBlock + granule);
    }
  return { diskIndex: disk.index, granules, raw: buffer.subarray(0, granules.length * granuleBytes) };
}

/** Sends what was read into a lane, or, without one, what is held in memory. */
export async function sendBatch(context: PassContext, batch: ReadBatch, lane?: Lane): Promise<void> {
  const { times, link, pacer, signal } = context;
  const { payload, digest } = await times.spend("work", async () => await pack(context, batch.raw, lane));
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

async function pack({ work }: PassContext, raw: Uint8Array, lane: Lane | undefined): Promise<Packed> {
  if (isAllZero(raw)) return packZeros(raw.length);
  if (lane === undefined) return packHere(raw);
  const packedBytes = await work.run(lane, { kind: "granules", byteCount: raw.length });
  const digest = lane.digests.subarray(0, digestBytes);
  if (packedBytes === 0) return { payload: { method: payloadMethods.raw, bytes: raw }, digest };
  return { payload: { method: payloadMethods.zstd, bytes: lane.raw.subarray(0, packedBytes) }, digest };
}

function packZeros(byteCount: number): Packed {
  const packed = packedZeros.get(byteCount) ?? packHere(new Uint8Array(byteCount));
  packedZeros.set(byteCount, packed);
  return packed;
}

function packHere(raw: Uint8Array): Packed {
  return { payload: compressPayload(raw), digest: hash("sha256", raw, "buffer") };
}

/** Reads the runs of one disk through `buffer` into memory of their own, to be sent later. */
export async function readRuns(
  context: Pick<PassContext, "onRead" | "signal" | "times">,
  disk: PassDisk,
  { runs, buffer, use }: { readonly runs: Iterable<GranuleRun>; readonly buffer: Uint8Array; readonly use: DigestUse },
): Promise<ReadBatch[]> {
  const batches: ReadBatch[] = [];
  for (const batch of batchRuns(runs, use)) {
    const read = await readBatch(context, disk, { batch, buffer, use });
    batches.push({ ...read, raw: Buffer.from(read.raw) });
  }
  return batches;
}

/** Reads and sends the runs of one disk. The caller ends the round. */
export async function sendRuns(
  context: PassContext,
  disk: PassDisk,
  changes: { readonly runs: Iterable<GranuleRun>; readonly use: DigestUse },
): Promise<void> {
  await runLanes(fewLanes(context), batchRuns(changes.runs, changes.use), async (batch, lane) => {
    context.signal.throwIfAborted();
    await sendBatch(context, await readBatch(context, disk, { batch, buffer: lane.raw, use: changes.use }), lane);
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
    if (batch.length < blocksPerUnit) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
