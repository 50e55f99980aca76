// Threads that check, change and seal blocks, so that one connection can use more than one processor. Without threads all is done here.

import { Worker } from "node:worker_threads";
import { Semaphore } from "../base/semaphore.ts";
import { siblingProgram } from "../base/sibling-program.ts";
import { changeGranules, changeOutBytes, type ChangeAnswer, type ChangeJob } from "./change-granules.ts";
import { fillPack, sealEntries, type Filled, type FillJob, type SealJob } from "./fill-pack.ts";
import type { OpenFailure, OpenJob } from "./open-entries.ts";

export type BlockThreadJob =
  | { readonly kind: "fill"; readonly fill: FillJob }
  | { readonly kind: "seal"; readonly seal: SealJob }
  | { readonly kind: "change"; readonly change: ChangeJob }
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

export class BlockPool implements AsyncDisposable {
  readonly #threadCount: number;
  readonly #threads: Thread[] = [];
  /** Memory that changes were answered in. */
  readonly #outs: Uint8Array[] = [];
  readonly #changing: Semaphore;
  readonly #openSlots: Uint8Array[] = [];
  readonly #opening: Semaphore;

  constructor(threadCount: number) {
    this.#threadCount = threadCount;
    this.#changing = new Semaphore(Math.max(1, threadCount * 2));
    this.#opening = new Semaphore(Math.max(1, threadCount * 2));
  }

  get threadCount(): number {
    return this.#threadCount;
  }

  /** As fillPack. Memory that cannot be shared with a thread is worked on here. */
  async fillPack(fill: FillJob): Promise<Filled> {
    if (this.#threadCount === 0 || !isShared(fill.body) || !isShared(fill.pack)) return fillPack(fill);
    return (await this.#ask({ kind: "fill", fill })) as Filled; // What block-pool-child.ts answers to this kind.
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

  /** As sealEntries. */
  async seal(seal: SealJob): Promise<void> {
    if (this.#threadCount === 0 || !isShared(seal.body) || !isShared(seal.pack)) sealEntries(seal);
    else await this.#ask({ kind: "seal", seal });
  }

  /** As changeGranules; `use` has the answer and `out` until it resolves. */
  async change<T>(job: Omit<ChangeJob, "out">, use: (answer: ChangeAnswer, out: Uint8Array) => Promise<T>): Promise<T> {
    return await this.#changing.run(async () => {
      const out = this.#outs.pop() ?? new Uint8Array(new SharedArrayBuffer(changeOutBytes));
      const change = { ...job, out };
      // What block-pool-child.ts answers to this kind.
      const answer = this.#threadCount === 0 ? changeGranules(change) : ((await this.#ask({ kind: "change", change })) as ChangeAnswer);
      const used = await use(answer, out);
      this.#outs.push(out);
      return used;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#threads.splice(0).map(async ({ worker }) => await worker.terminate()));
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
