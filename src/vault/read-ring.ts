// Memory that one reader shares with its threads: a queue of jobs, what each is to read, and what came of it. No message travels for a job.

import { digestRowBytes } from "../disk/block-id.ts";
import { blockBytes, digestBytes } from "../disk/geometry.ts";
import { depthMax } from "./patch.ts";

/** Jobs at once: a power of two. */
export const jobsMax = 64;
export const blocksPerJob = 8;
export const partsPerBlock = depthMax + 1;
/** Contents of a job whose reader's memory is not shared. */
export const stagingBytesPerJob = blocksPerJob * blockBytes;

/** Words of a job. `row`: whether the first block's row of digests is told. */
export const head = { blockCount: 0, outcome: 1, row: 2, partCount: 3, count: 4 } as const;
export const outcomes = { open: 0, done: 1, failed: 2 } as const;
/** Words of a block; its id follows. `skip` and `length`: what of the block is wanted. `memory` 0 is the job's own staging. */
export const block = { memory: 0, target: 1, skip: 2, length: 3, partCount: 4, count: 5 + digestBytes / 4 } as const;
const idWord = 5;
/** Words of an entry that a block is made of: the one with its id first, then what that stands on, down to a full one. */
export const part = { pack: 0, offset: 1, length: 2, isPacked: 3, isPatch: 4, count: 5 } as const;

/** About 30 µs. */
const pausesBeforeSleep = 600;

const partsFrom = head.count + blocksPerJob * block.count;
const rowFrom = partsFrom + blocksPerJob * partsPerBlock * part.count;
const jobWords = rowFrom + digestRowBytes / 4;

/** Words that are shared by all. */
const control = { first: 0, end: 1, doneEnd: 2, bell: 3, sleepers: 4, told: 5, mail: 6, isClosed: 7, count: 8 } as const;
const queueFrom = control.count;
const doneFrom = queueFrom + jobsMax;
const jobsFrom = doneFrom + jobsMax;
const ringWords = jobsFrom + jobsMax * jobWords;

export interface RingMemory {
  readonly words: SharedArrayBuffer;
  readonly staging: SharedArrayBuffer;
}

export function createRingMemory(): RingMemory {
  return { words: new SharedArrayBuffer(ringWords * 4), staging: new SharedArrayBuffer(jobsMax * stagingBytesPerJob) };
}

export class ReadRing {
  readonly staging: Uint8Array;
  readonly #words: Int32Array;
  #doneFirst = 0;

  constructor({ words, staging }: RingMemory) {
    this.#words = new Int32Array(words);
    this.staging = new Uint8Array(staging);
  }

  /** The words of a job. */
  job(number: number): Int32Array {
    return this.#words.subarray(jobsFrom + number * jobWords, jobsFrom + (number + 1) * jobWords);
  }

  /** The reader's side: queues a job for whichever thread comes first after wake(). */
  push(job: number): void {
    const words = this.#words;
    const end = Atomics.load(words, control.end);
    words[queueFrom + (end & (jobsMax - 1))] = job;
    Atomics.store(words, control.end, (end + 1) | 0);
  }

  /** The reader's side: after it, that many threads are awake, or all. Waking one costs about as much as a job. */
  wake(threadCount: number, ofThreads: number): void {
    Atomics.add(this.#words, control.bell, 1);
    const sleepers = Atomics.load(this.#words, control.sleepers);
    const missing = Math.min(sleepers, threadCount - (ofThreads - sleepers));
    if (missing > 0) Atomics.notify(this.#words, control.bell, missing);
  }

  /** The reader's side: the next job that is done; undefined when there is none at the moment. */
  takeDone(): number | undefined {
    const at = doneFrom + (this.#doneFirst & (jobsMax - 1));
    const job = Atomics.exchange(this.#words, at, 0) - 1;
    if (job < 0) return undefined;
    this.#doneFirst = (this.#doneFirst + 1) | 0;
    return job;
  }

  /** The reader's side: threads may tell again that something is done. */
  clearTold(): void {
    Atomics.store(this.#words, control.told, 0);
  }

  /** The reader's side: there is mail for every thread. */
  noteMail(): void {
    Atomics.add(this.#words, control.mail, 1);
  }

  close(): void {
    Atomics.store(this.#words, control.isClosed, 1);
    Atomics.add(this.#words, control.bell, 1);
    Atomics.notify(this.#words, control.bell);
  }

  get isClosed(): boolean {
    return Atomics.load(this.#words, control.isClosed) !== 0;
  }

  get mailCount(): number {
    return Atomics.load(this.#words, control.mail);
  }

  /** A thread's side: the next job; undefined after `idleMs` without one, or when the ring is closed. */
  take(idleMs: number): number | undefined {
    for (;;) {
      const bell = Atomics.load(this.#words, control.bell);
      const job = this.tryTake();
      if (job !== undefined) return job;
      if (this.isClosed) return undefined;
      if (this.#waitAwake(bell)) continue;
      Atomics.add(this.#words, control.sleepers, 1);
      const woken = Atomics.wait(this.#words, control.bell, bell, idleMs);
      Atomics.sub(this.#words, control.sleepers, 1);
      if (woken === "timed-out") return undefined;
    }
  }

  /** A thread's side: the job's outcome is there for the reader, who must be told before the thread sleeps. */
  finish(job: number): void {
    const at = Atomics.add(this.#words, control.doneEnd, 1);
    Atomics.store(this.#words, doneFrom + (at & (jobsMax - 1)), job + 1);
  }

  /** A thread's side: whether the reader must be told by a message; it has not been since it last looked. */
  mustTell(): boolean {
    return Atomics.exchange(this.#words, control.told, 1) === 0;
  }

  /** Whether something came soon: to be woken costs the reader more than this costs here. */
  #waitAwake(bell: number): boolean {
    for (let turn = 0; turn < pausesBeforeSleep; turn++) {
      if (Atomics.load(this.#words, control.end) !== Atomics.load(this.#words, control.first)) return true;
      if (Atomics.load(this.#words, control.bell) !== bell) return true;
      Atomics.pause();
    }
    return false;
  }

  /** A thread's side: the next job, if there is one now. */
  tryTake(): number | undefined {
    const words = this.#words;
    for (;;) {
      const first = Atomics.load(words, control.first);
      if (first === Atomics.load(words, control.end)) return undefined;
      const job = Atomics.load(words, queueFrom + (first & (jobsMax - 1)));
      if (Atomics.compareExchange(words, control.first, first, (first + 1) | 0) === first) return job;
    }
  }
}

/** Where the words of a block begin in its job's. */
export function blockAt(index: number): number {
  return head.count + index * block.count;
}

export function partAt(index: number): number {
  return partsFrom + index * part.count;
}

/** A view of the id of a block. */
export function idBytesOf(job: Int32Array, index: number): Uint8Array {
  return new Uint8Array(job.buffer, job.byteOffset + (blockAt(index) + idWord) * 4, digestBytes);
}

/** A view of the row of the first block. */
export function rowBytesOf(job: Int32Array): Uint8Array {
  return new Uint8Array(job.buffer, job.byteOffset + rowFrom * 4, digestRowBytes);
}
