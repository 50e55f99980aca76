// Threads that check and seal blocks, so that one connection can use more than one processor. Without threads the work is done here.

import { Worker } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import { fillPack, type FillJob } from "./fill-pack.ts";

interface Thread {
  readonly worker: Worker;
  /** Jobs that it was given and has not answered, oldest first; bounded by what callers have under way. */
  readonly waiting: PromiseWithResolvers<number>[];
}

export class FillPool implements AsyncDisposable {
  readonly #threadCount: number;
  readonly #threads: Thread[] = [];

  constructor(threadCount: number) {
    this.#threadCount = threadCount;
  }

  /** As fillPack. Memory that cannot be shared with a thread is worked on here. */
  async fill(job: FillJob): Promise<number> {
    if (this.#threadCount === 0 || !isShared(job.body) || !isShared(job.pack)) return fillPack(job);
    const thread = this.#idlest();
    const answer = Promise.withResolvers<number>();
    thread.waiting.push(answer);
    thread.worker.postMessage(job);
    return await answer.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#threads.splice(0).map(async ({ worker }) => await worker.terminate()));
  }

  #idlest(): Thread {
    const idlest = this.#threads.toSorted((one, other) => one.waiting.length - other.waiting.length)[0];
    if (idlest !== undefined && (idlest.waiting.length === 0 || this.#threads.length === this.#threadCount)) return idlest;
    const started = startThread((thread) => void this.#threads.splice(this.#threads.indexOf(thread), 1));
    this.#threads.push(started);
    return started;
  }
}

function startThread(onEnd: (thread: Thread) => void): Thread {
  const worker = new Worker(new URL("./fill-pool-child.ts", import.meta.url));
  const thread: Thread = { worker, waiting: [] };
  worker.unref();
  worker.on("message", (index: number) => {
    const answer = thread.waiting.shift();
    assert(answer !== undefined, "a thread answers what it was asked");
    answer.resolve(index);
  });
  const end = (why: unknown): void => {
    onEnd(thread);
    for (const answer of thread.waiting.splice(0)) answer.reject(why);
  };
  let failure: unknown = new Error("a thread that checks blocks has ended");
  worker.on("error", (error) => (failure = error));
  worker.on("exit", () => end(failure));
  return thread;
}

function isShared(bytes: Uint8Array): boolean {
  return bytes.buffer instanceof SharedArrayBuffer;
}
