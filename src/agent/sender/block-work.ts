// The work on the blocks in a lane: digests, then the body of a blocks frame. In this thread, or in threads where that was asked for.

import { hash } from "node:crypto";
import { Worker } from "node:worker_threads";
import { assert } from "../../base/assert.ts";
import { payloadMethods } from "../../contract/agent-frames.ts";
import { blockIdOf, digestGranules, digestRowBytes } from "../../disk/block-id.ts";
import { equalBytes } from "../../disk/digest.ts";
import { blockBytes, digestBytes, granulesPerBlock } from "../../disk/geometry.ts";
import type { LaneTimes } from "./lane-times.ts";
import { laneOf, type Lane } from "./lanes.ts";
import { PackingChoice } from "./packing-choice.ts";
import { viewPayload } from "./payload.ts";

export type BlockJob =
  | { readonly kind: "digest"; readonly count: number }
  | { readonly kind: "granules"; readonly byteCount: number }
  | { readonly kind: "compare"; readonly indexes: readonly number[]; readonly rows: Uint8Array }
  | { readonly kind: "pack"; readonly diskIndex: number; readonly firstBlock: number; readonly wanted: readonly number[] };

/**
 * digest: fills lane.digests. granules: puts the digest of so much of lane.raw first in lane.digests, and packs it in its place; answers the
 * packed length, 0 when it stays as it is. compare: writes two bytes a block to lane.digests, a bit for each granule that differs from the
 * row. pack: turns lane.raw into lane.body, answers its length.
 */
function doBlockJob(lane: Lane, job: BlockJob, level: number): number {
  switch (job.kind) {
    case "digest":
      for (let index = 0; index < job.count; index++)
        lane.digests.set(blockIdOf(lane.raw.subarray(index * blockBytes, (index + 1) * blockBytes)), index * digestBytes);
      return job.count * digestBytes;
    case "granules":
      return packGranules(lane, job.byteCount, level);
    case "compare":
      return compareBlocks(lane, job);
    case "pack":
      return packBlocks(lane, job, level);
  }
}

const ownRow = new Uint8Array(digestRowBytes);

function compareBlocks({ raw, digests }: Lane, { indexes, rows }: Extract<BlockJob, { kind: "compare" }>): number {
  const masks = new DataView(digests.buffer, digests.byteOffset, digests.length);
  for (const [place, index] of indexes.entries()) {
    digestGranules(raw.subarray(index * blockBytes, (index + 1) * blockBytes), ownRow);
    let mask = 0;
    for (let granule = 0; granule < granulesPerBlock; granule++) {
      const [at, end] = [granule * digestBytes, (granule + 1) * digestBytes];
      if (!equalBytes(ownRow.subarray(at, end), rows.subarray(place * digestRowBytes + at, place * digestRowBytes + end)))
        mask |= 1 << granule;
    }
    masks.setUint16(place * 2, mask);
  }
  return indexes.length * 2;
}

function packGranules({ raw, digests }: Lane, byteCount: number, level: number): number {
  const plain = raw.subarray(0, byteCount);
  digests.set(hash("sha256", plain, "buffer"));
  const { method, bytes } = viewPayload(plain, level);
  if (method === payloadMethods.raw) return 0;
  raw.set(bytes);
  return bytes.length;
}

function packBlocks({ raw, body }: Lane, job: Extract<BlockJob, { kind: "pack" }>, level: number): number {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  view.setUint32(0, job.diskIndex);
  let at = 4;
  for (const index of job.wanted) {
    const { method, bytes } = viewPayload(raw.subarray(index * blockBytes, (index + 1) * blockBytes), level);
    body.set(bytes, at + 9); // Before the head: a head may lie where the block began.
    view.setUint32(at, job.firstBlock + index);
    view.setUint32(at + 4, bytes.length);
    view.setUint8(at + 8, method);
    at += 9 + bytes.length;
  }
  return at;
}

/** What a thread is told. */
export interface ThreadJob {
  readonly memory: SharedArrayBuffer;
  readonly job: BlockJob;
  readonly level: number;
}

export interface BlockThreads {
  readonly count: number;
  /** The program that calls serveBlockJobs when it is not the main thread. */
  readonly file: string | URL;
}

interface Thread {
  readonly worker: Worker;
  /** Answers that are awaited, oldest first; at most one a lane. */
  readonly waiting: PromiseWithResolvers<number>[];
}

export class BlockWork implements AsyncDisposable {
  readonly #options: BlockThreads | undefined;
  /** Asked for each job: how hard it is to be packed. */
  readonly packing: { readonly level: number };
  #threads: readonly Thread[] = [];

  /** `times`: of the lanes whose blocks these are; without them all is packed as on a fast line. */
  constructor(options?: BlockThreads, times?: LaneTimes) {
    this.#options = options;
    this.packing = times === undefined ? { level: 1 } : new PackingChoice(times, options?.count ?? 1);
  }

  async run(lane: Lane, job: BlockJob): Promise<number> {
    const { level } = this.packing;
    if (this.#options === undefined) return doBlockJob(lane, job, level);
    if (this.#threads.length === 0) this.#threads = startThreads(this.#options, () => (this.#threads = []));
    const thread = this.#threads.reduce((best, each) => (each.waiting.length < best.waiting.length ? each : best));
    const { buffer: memory } = lane.raw;
    assert(memory instanceof SharedArrayBuffer, "a lane can be shared");
    const answer = Promise.withResolvers<number>();
    thread.waiting.push(answer);
    thread.worker.postMessage({ memory, job, level } satisfies ThreadJob);
    return await answer.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const threads = this.#threads;
    this.#threads = [];
    await Promise.all(threads.map(async ({ worker }) => await worker.terminate()));
  }
}

/** When one ends, nobody gets more work: the point fails, and the next one starts threads anew. */
function startThreads({ count, file }: BlockThreads, onEnd: () => void): readonly Thread[] {
  return Array.from({ length: count }, () => {
    const worker = new Worker(file);
    const thread: Thread = { worker, waiting: [] };
    let failure: unknown = new Error("a thread that packs blocks has ended");
    worker.unref();
    worker.on("message", (length: number) => thread.waiting.shift()?.resolve(length));
    worker.on("error", (error) => (failure = error));
    worker.on("exit", () => {
      onEnd();
      for (const answer of thread.waiting.splice(0)) answer.reject(failure);
    });
    return thread;
  });
}

/** The thread's side. */
export function serveBlockJobs(port: {
  on(event: "message", take: (message: ThreadJob) => void): unknown;
  postMessage(length: number): void;
}): void {
  port.on("message", ({ memory, job, level }) => port.postMessage(doBlockJob(laneOf(memory), job, level)));
}
