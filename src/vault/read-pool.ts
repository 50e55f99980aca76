// Threads that read blocks out of packs on this machine, each with files, seals and unpacking of its own; what they do not manage is left to others.

import { Worker } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import { siblingProgram } from "../base/sibling-program.ts";
import { blockBytes } from "../disk/geometry.ts";
import type { Store } from "../store/store.ts";
import type { FoundEntry } from "./entries.ts";
import type { Pack } from "./pack.ts";
import {
  block,
  blockAt,
  blocksPerJob,
  createRingMemory,
  head,
  idBytesOf,
  jobsMax,
  outcomes,
  part,
  partAt,
  partsPerBlock,
  ReadRing,
  rowBytesOf,
  type RingMemory,
  stagingBytesPerJob,
} from "./read-ring.ts";
import type { PackFile } from "./read-work.ts";
import type { VaultSecret } from "./sealing.ts";

export type ReadMail =
  | { readonly kind: "pack"; readonly file: PackFile }
  | { readonly kind: "memory"; readonly number: number; readonly memory: SharedArrayBuffer }
  | { readonly kind: "forget"; readonly number: number };

/** A block, or a part of one. */
export interface BlockWish {
  readonly id: Uint8Array;
  /** The entry of this id and those that it stands on, down to a full one. */
  readonly chain: readonly FoundEntry[];
  /** Gets the bytes from `skipBytes` of the block on. */
  readonly into: Uint8Array;
  readonly skipBytes: number;
}

/** One more thread is woken when there is as much to do for each. */
const blocksPerThread = 4;
/** Memories of readers that threads know at once; others get their blocks by a copy. */
const memoriesMax = 128;

interface Job {
  readonly wishes: readonly BlockWish[];
  readonly row: Uint8Array | undefined;
  readonly resolve: (isDone: boolean) => void;
}

export class ReadPool implements AsyncDisposable {
  readonly #threadCount: number;
  readonly #store: Store;
  readonly #secret: VaultSecret;
  #running: Running | undefined;
  #isBroken = false;

  constructor(options: { readonly threadCount: number; readonly store: Store; readonly secret: VaultSecret }) {
    this.#threadCount = options.threadCount;
    this.#store = options.store;
    this.#secret = options.secret;
  }

  /** Whether it is of use at all. */
  get isThere(): boolean {
    return this.#threadCount > 0 && !this.#isBroken && this.#store.localFile !== undefined;
  }

  /**
   * True when each wish's memory has its bytes, every one of them checked. False when some of it is not to be had here: not in a local
   * file, gone, or not what it should be. Then the memories hold anything. `row`: the digests of the granules of the only wish, which is
   * for a part of a block, as packs tell them; then only what is wanted is checked.
   */
  read(wishes: readonly BlockWish[], row?: Uint8Array): Promise<boolean> {
    if (wishes.length === 0) return Promise.resolve(true);
    if (!this.isThere) return Promise.resolve(false);
    this.#running ??= new Running(this.#threadCount, this.#secret, () => {
      this.#running = undefined;
      this.#isBroken = true;
    });
    const running = this.#running;
    for (const { chain } of wishes)
      for (const { pack } of chain) {
        // Packs under way have no file yet.
        const path = pack.state === "stored" || pack.state === "draining" ? this.#store.localFile?.(pack.key) : undefined;
        if (path === undefined || chain.length > partsPerBlock) return Promise.resolve(false);
        running.tellPack(pack, path);
      }
    return running.run(wishes, row);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isBroken = true;
    await this.#running?.end();
  }
}

class Running {
  readonly #secret: VaultSecret;
  readonly #ring: ReadRing;
  readonly #memory: RingMemory;
  readonly #threadsMax: number;
  readonly #workers: Worker[] = [];
  readonly #jobs = new Map<number, Job>();
  readonly #free = Array.from({ length: jobsMax }, (_, number) => jobsMax - 1 - number);
  readonly #waiting: Job[] = [];
  /** What was told of packs and memories, for threads that start later. */
  readonly #files = new Map<number, PackFile>();
  readonly #told = new Map<number, WeakRef<SharedArrayBuffer>>();
  readonly #memories = new WeakMap<ArrayBufferLike, number>();
  /** A memory that its owner let go of is let go of in the threads too. No job is under way in it: jobs hold it. */
  readonly #letGo = new FinalizationRegistry<number>((number) => {
    this.#told.delete(number);
    this.#tell({ kind: "forget", number });
  });
  #nextMemory = 1;
  #isWaking = false;
  #blocksUnderWay = 0;
  readonly #onBroken: () => void;

  constructor(threadCount: number, secret: VaultSecret, onBroken: () => void) {
    const memory = createRingMemory();
    this.#secret = secret;
    this.#ring = new ReadRing(memory);
    this.#onBroken = onBroken;
    this.#memory = memory;
    this.#threadsMax = threadCount;
    this.#startThread();
  }

  tellPack(pack: Pack, path: string): void {
    if (this.#files.get(pack.number)?.path === path) return;
    const { generation } = pack.sealHead;
    const key = this.#secret.keys.get(generation);
    const secret = { ...this.#secret, keys: new Map(key === undefined ? [] : [[generation, key]]) };
    const file = { number: pack.number, path, key: pack.key, sealHead: pack.sealHead, secret };
    this.#files.set(pack.number, file);
    this.#tell({ kind: "pack", file });
  }

  run(wishes: readonly BlockWish[], row?: Uint8Array): Promise<boolean> {
    // A lone reader gets all threads.
    const lone = this.#jobs.size < this.#threadsMax ? Math.ceil(wishes.length / this.#threadsMax) : blocksPerJob;
    const count = Math.min(blocksPerJob, lone);
    if (wishes.length <= count) return this.#start(wishes, row);
    const parts: Promise<boolean>[] = [];
    for (let at = 0; at < wishes.length; at += count) parts.push(this.#start(wishes.slice(at, at + count)));
    return Promise.all(parts).then((done) => done.every((isDone) => isDone));
  }

  async end(): Promise<void> {
    this.#ring.close();
    await Promise.all(this.#workers.map(async (worker) => await worker.terminate()));
  }

  #startThread(): void {
    const worker = new Worker(siblingProgram(import.meta, "read-pool-child"), {
      workerData: this.#memory,
      // Views of memory are short-lived; looking for them seldom is cheaper.
      resourceLimits: { maxYoungGenerationSizeMb: 32 },
    });
    if (this.#workers.length > 0 || this.#jobs.size === 0) worker.unref();
    worker.on("message", () => {
      this.#ring.clearTold();
      this.#settle();
    });
    worker.on("error", () => undefined); // Its exit follows.
    worker.on("exit", () => this.#break());
    for (const file of this.#files.values()) worker.postMessage({ kind: "pack", file } satisfies ReadMail);
    for (const [number, told] of this.#told) {
      const memory = told.deref();
      if (memory !== undefined) worker.postMessage({ kind: "memory", number, memory } satisfies ReadMail);
    }
    this.#workers.push(worker);
    this.#ring.noteMail();
  }

  #start(wishes: readonly BlockWish[], row?: Uint8Array): Promise<boolean> {
    return new Promise((resolve) => {
      const job = { wishes, row, resolve };
      const number = this.#free.pop();
      if (number === undefined) this.#waiting.push(job);
      else this.#push(number, job);
    });
  }

  #push(number: number, job: Job): void {
    if (this.#jobs.size === 0) this.#workers[0]?.ref(); // Whoever waits for a job keeps the program running.
    this.#jobs.set(number, job);
    const words = this.#ring.job(number);
    let partCount = 0;
    for (const [index, { id, chain, into, skipBytes }] of job.wishes.entries()) {
      const at = blockAt(index);
      const memory = into.length === blockBytes ? this.#memoryOf(into) : 0;
      words[at + block.memory] = memory;
      words[at + block.target] = into.byteOffset;
      words[at + block.skip] = skipBytes;
      words[at + block.length] = into.length;
      words[at + block.partCount] = chain.length;
      idBytesOf(words, index).set(id);
      for (const entry of chain) {
        const partFrom = partAt(partCount++);
        words[partFrom + part.pack] = entry.pack.number;
        words[partFrom + part.offset] = entry.offset;
        words[partFrom + part.length] = entry.length;
        words[partFrom + part.isPacked] = entry.method === "zstd" ? 1 : 0;
        words[partFrom + part.isPatch] = entry.form === "patch" ? 1 : 0;
      }
    }
    words[head.blockCount] = job.wishes.length;
    words[head.partCount] = partCount;
    words[head.outcome] = outcomes.open;
    words[head.row] = job.row === undefined ? 0 : 1;
    if (job.row !== undefined) rowBytesOf(words).set(job.row);
    this.#ring.push(number);
    this.#blocksUnderWay += job.wishes.length;
    // What else comes in this turn is told with one call.
    if (!this.#isWaking) setImmediate(() => this.#wake());
    this.#isWaking = true;
  }

  #wake(): void {
    this.#isWaking = false;
    this.#settle();
    const wanted = Math.ceil(this.#blocksUnderWay / blocksPerThread);
    if (wanted > this.#workers.length && this.#workers.length < this.#threadsMax) this.#startThread();
    this.#ring.wake(wanted, this.#workers.length);
  }

  /** 0 for memory that threads cannot reach. */
  #memoryOf({ buffer }: Uint8Array): number {
    const known = this.#memories.get(buffer);
    if (known !== undefined) return known;
    if (!(buffer instanceof SharedArrayBuffer) || this.#told.size >= memoriesMax) return 0;
    const number = this.#nextMemory++;
    this.#told.set(number, new WeakRef(buffer));
    this.#memories.set(buffer, number);
    this.#letGo.register(buffer, number);
    this.#tell({ kind: "memory", number, memory: buffer });
    return number;
  }

  #tell(mail: ReadMail): void {
    for (const worker of this.#workers) worker.postMessage(mail);
    this.#ring.noteMail();
  }

  #settle(): void {
    for (let number = this.#ring.takeDone(); number !== undefined; number = this.#ring.takeDone()) {
      const job = this.#jobs.get(number);
      assert(job !== undefined, "only what was begun is done");
      const words = this.#ring.job(number);
      const isDone = words[head.outcome] === outcomes.done;
      if (isDone) this.#copyOut(number, words, job.wishes);
      this.#jobs.delete(number);
      this.#blocksUnderWay -= job.wishes.length;
      const next = this.#waiting.shift();
      if (next === undefined) this.#free.push(number);
      else this.#push(number, next);
      job.resolve(isDone);
    }
    if (this.#jobs.size === 0) this.#workers[0]?.unref();
  }

  #copyOut(number: number, words: Int32Array, wishes: readonly BlockWish[]): void {
    for (const [index, { into }] of wishes.entries()) {
      if (words[blockAt(index) + block.memory] !== 0) continue;
      const from = number * stagingBytesPerJob + index * blockBytes;
      into.set(this.#ring.staging.subarray(from, from + into.length));
    }
  }

  /** A thread has ended, which none does by itself: nothing more is given to the others, and all goes the other way. */
  #break(): void {
    this.#onBroken();
    this.#ring.close();
    // Threads may still be at the memory of their readers: these wait for the end of all.
    void Promise.all(this.#workers.map(async (worker) => await worker.terminate())).then(() => {
      for (const { resolve } of [...this.#jobs.values(), ...this.#waiting.splice(0)]) resolve(false);
      this.#jobs.clear();
    });
  }
}
