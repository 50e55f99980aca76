// Threads that check, change and seal blocks, so that one connection can use more than one processor. Without threads all is done here.

import { Worker } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import { siblingProgram } from "../base/sibling-program.ts";
import { blockBytes } from "../disk/geometry.ts";
import { fillPack, type FillJob } from "./fill-pack.ts";
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

export type BlockThreadJob = { readonly kind: "fill"; readonly fill: FillJob } | { readonly kind: "patch"; readonly batch: PatchBatch };

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
  #batchCount = 0;

  constructor(threadCount: number) {
    this.#threadCount = threadCount;
  }

  /** As fillPack. Memory that cannot be shared with a thread is worked on here. */
  async fillPack(fill: FillJob): Promise<number> {
    if (this.#threadCount === 0 || !isShared(fill.body) || !isShared(fill.pack)) return fillPack(fill);
    return (await this.#ask({ kind: "fill", fill })) as number; // What block-pool-child.ts answers to this kind.
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

function isShared(bytes: Uint8Array): boolean {
  return bytes.buffer instanceof SharedArrayBuffer;
}
