// Threads that check, change and seal blocks, so that one connection can use more than one processor. Without threads all is done here.

import { Worker } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import { Semaphore } from "../base/semaphore.ts";
import { siblingProgram } from "../base/sibling-program.ts";
import { blockBytes } from "../disk/geometry.ts";
import { fillPack, type FillJob } from "./fill-pack.ts";
import type { OpenFailure, OpenJob } from "./open-entries.ts";
import {
  batchMemoryBytes,
  changeBlock,
  shareJobs,
  viewResult,
  type PatchBatch,
  type PatchJob,
  type PatchResult,
  type SharedResult,
} from "./patch-work.ts";

export type BlockThreadJob =
  | { readonly kind: "fill"; readonly fill: FillJob }
  | { readonly kind: "patch"; readonly batch: PatchBatch }
  | { readonly kind: "open"; readonly open: OpenJob };

/** Sealed entries and, when their reader's own memory is not shared, what they become. */
const openSlotBytes = 2 << 20;

/** Entries of one pack to open; their places tell offsets in `sealed`, which holds at most openSealedMax bytes. */
export interface OpenWish extends Omit<OpenJob, "into"> {
  /** Memory for the contents: shared, or undefined for memory of the pool, which `take` sees before it is used again. */
  readonly into: Uint8Array | undefined;
  readonly take: (contents: Uint8Array) => void;
}
export const openSealedMax = openSlotBytes / 2 + 4096;
/** Contents in memory of the pool. */
export const openContentsMax = openSlotBytes / 2;

interface Thread {
  readonly worker: Worker;
  /** Jobs that it was given and has not answered, oldest first; bounded by what callers have under way. */
  readonly waiting: PromiseWithResolvers<unknown>[];
}

interface WaitingPatch {
  readonly job: PatchJob;
  readonly take: (result: PatchResult) => void;
  readonly fail: (why: unknown) => void;
}

export class BlockPool implements AsyncDisposable {
  readonly #threadCount: number;
  readonly #threads: Thread[] = [];
  readonly #patches: WaitingPatch[] = [];
  readonly #memories: SharedArrayBuffer[] = [];
  readonly #openSlots: Uint8Array[] = [];
  readonly #opening: Semaphore;
  #batchCount = 0;

  constructor(threadCount: number) {
    this.#threadCount = threadCount;
    this.#opening = new Semaphore(Math.max(1, threadCount * 2));
  }

  get threadCount(): number {
    return this.#threadCount;
  }

  /** As fillPack. Memory that cannot be shared with a thread is worked on here. */
  async fillPack(fill: FillJob): Promise<number> {
    if (this.#threadCount === 0 || !isShared(fill.body) || !isShared(fill.pack)) return fillPack(fill);
    return (await this.#ask({ kind: "fill", fill })) as number; // What block-pool-child.ts answers to this kind.
  }

  /** As openEntries, in a thread. There must be one. */
  async open({ take, into, sealed, ...wish }: OpenWish): Promise<OpenFailure | undefined> {
    return await this.#opening.run(async () => {
      const slot = this.#openSlots.pop() ?? new Uint8Array(new SharedArrayBuffer(openSealedMax + openContentsMax));
      slot.set(sealed);
      const contents = into ?? slot.subarray(openSealedMax);
      const open = { ...wish, sealed: slot.subarray(0, sealed.length), into: contents };
      const failure = (await this.#ask({ kind: "open", open })) as OpenFailure | undefined; // What block-pool-child.ts answers to this kind.
      if (failure === undefined) take(contents);
      this.#openSlots.push(slot);
      return failure;
    });
  }

  /** As changeBlock; `take` makes the answer from the result while its bytes are valid. */
  async patch<T>(job: PatchJob, take: (result: PatchResult) => T): Promise<T> {
    if (this.#threadCount === 0) return take(changeBlock(job, Buffer.alloc(blockBytes)));
    return await new Promise<T>((resolve, reject) => {
      this.#patches.push({ job, take: (result) => resolve(take(result)), fail: reject });
      // What other callers bring in this turn travels together.
      if (this.#patches.length === 1) setImmediate(() => this.#sendPatches());
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#threads.splice(0).map(async ({ worker }) => await worker.terminate()));
  }

  #sendPatches(): void {
    while (this.#patches.length > 0 && this.#batchCount < this.#threadCount * 2) void this.#sendBatch();
  }

  async #sendBatch(): Promise<void> {
    const memory = this.#memories.pop() ?? new SharedArrayBuffer(batchMemoryBytes);
    const batch = shareJobs(
      memory,
      this.#patches.map(({ job }) => job),
    );
    const waiting = this.#patches.splice(0, batch.jobs.length);
    this.#batchCount += 1;
    try {
      const results = (await this.#ask({ kind: "patch", batch })) as SharedResult[]; // What block-pool-child.ts answers to this kind.
      for (const [index, each] of waiting.entries()) {
        const result = results[index];
        assert(result !== undefined, "every job has a result");
        each.take(viewResult(memory, index, result));
      }
      this.#memories.push(memory);
    } catch (error) {
      for (const each of waiting) each.fail(error);
    } finally {
      this.#batchCount -= 1;
      this.#sendPatches();
    }
  }

  async #ask(job: BlockThreadJob): Promise<unknown> {
    const thread = this.#idlest();
    const answer = Promise.withResolvers<unknown>();
    thread.waiting.push(answer);
    thread.worker.postMessage(job);
    return await answer.promise;
  }

  #idlest(): Thread {
    const idlest = this.#threads.toSorted((one, other) => one.waiting.length - other.waiting.length)[0];
    if (idlest !== undefined && (idlest.waiting.length === 0 || this.#threads.length === this.#threadCount)) return idlest;
    const started = startThread((thread) => {
      const index = this.#threads.indexOf(thread);
      if (index >= 0) this.#threads.splice(index, 1);
    });
    this.#threads.push(started);
    return started;
  }
}

function startThread(onEnd: (thread: Thread) => void): Thread {
  const worker = new Worker(siblingProgram(import.meta, "block-pool-child"));
  const thread: Thread = { worker, waiting: [] };
  let failure: unknown = new Error("a thread that works on blocks has ended");
  worker.unref();
  worker.on("message", (result: unknown) => thread.waiting.shift()?.resolve(result));
  worker.on("error", (error) => (failure = error));
  worker.on("exit", () => {
    onEnd(thread);
    for (const answer of thread.waiting.splice(0)) answer.reject(failure);
  });
  return thread;
}

export function isShared(bytes: Uint8Array): boolean {
  return bytes.buffer instanceof SharedArrayBuffer;
}
