// Many small direct reads of one file at the price of a few system calls: the kernel's own queue of reads (io_submit(2)), without a thread for each.

import type { Clock } from "../../base/clock.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { KernelRefused, type SystemCalls } from "./system-calls.ts";

export interface BatchRead {
  readonly offset: number;
  readonly into: Uint8Array;
}

export interface BatchReads {
  /**
   * Fills what it can, and answers which were filled whole; the others are to be read by other means, which tells why. All reads have
   * ended on return. Offsets, lengths and memory are those of a direct read.
   */
  read(fd: number, reads: readonly BatchRead[]): Promise<readonly boolean[]>;
}

/** A queue holds so many reads at once, and there are so many queues. */
const depth = 256;
const queuesMax = 4;
/** struct iocb and struct io_event, linux/aio_abi.h. */
const iocbBytes = 64;
const eventBytes = 32;
const readCommand = 0;
/** Looks come fast as long as a disk without moving parts may answer. */
const lookMs = 1;
const slowLookMs = 5;
const slowAfterLooks = 20;

/** Where the kernel gives no queue (all taken by a database, none built in), nothing is filled. */
export function openBatchReads(calls: SystemCalls, clock: Clock): BatchReads {
  const turns = new Semaphore(queuesMax);
  const free: ReadQueue[] = [];
  return {
    read: async (fd, reads) =>
      await turns.run(async () => {
        const queue = free.pop() ?? openQueue(calls, clock);
        if (queue === undefined) return reads.map(() => false);
        const filled = await queue.read(fd, reads);
        free.push(queue); // Not after a fault: reads may be under way in it.
        return filled;
      }),
  };
}

function openQueue(calls: SystemCalls, clock: Clock): ReadQueue | undefined {
  const context = new BigUint64Array(1);
  try {
    calls.call("io_setup", depth, addressOf(calls, context));
  } catch (error) {
    if (error instanceof KernelRefused) return undefined;
    throw error;
  }
  return new ReadQueue({ calls, clock, context: context[0] ?? 0n });
}

function addressOf(calls: SystemCalls, words: BigInt64Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>): bigint {
  return calls.addressOf(new Uint8Array(words.buffer));
}

class ReadQueue {
  readonly #parts: { readonly calls: SystemCalls; readonly clock: Clock; readonly context: bigint };
  readonly #requests = new DataView(new ArrayBuffer(depth * iocbBytes));
  readonly #pointers = new BigUint64Array(depth);
  readonly #events = new BigInt64Array((depth * eventBytes) / 8);

  constructor(parts: { readonly calls: SystemCalls; readonly clock: Clock; readonly context: bigint }) {
    this.#parts = parts;
  }

  async read(fd: number, reads: readonly BatchRead[]): Promise<boolean[]> {
    const filled = reads.map(() => false);
    const freeSlots = Array.from({ length: depth }, (_, slot) => slot);
    const slotOf = new Map<number, number>();
    let next = 0;
    let isTaking = true;
    for (let looks = 0; slotOf.size > 0 || (isTaking && next < reads.length); looks++) {
      const count: number = isTaking ? Math.min(freeSlots.length, reads.length - next) : 0;
      const slots: number[] = freeSlots.splice(0, count);
      for (const [place, read] of reads.slice(next, next + count).entries()) {
        const slot = slots[place] ?? 0;
        this.#prepare({ slot, fd, index: next + place }, read);
        slotOf.set(next + place, slot);
      }
      next += count;
      const taken = this.#submit(slots);
      // What the kernel takes no more of is left to others.
      isTaking = taken === slots.length;
      for (const slot of slots.slice(taken)) slotOf.delete(this.#indexAt(slot));
      for (const { index, byteCount } of this.#reap(slotOf.size)) {
        filled[index] = byteCount === reads[index]?.into.length;
        freeSlots.push(slotOf.get(index) ?? 0);
        slotOf.delete(index);
      }
      if (slotOf.size > 0) await this.#parts.clock.sleep(looks < slowAfterLooks ? lookMs : slowLookMs);
    }
    return filled;
  }

  #prepare({ slot, fd, index }: { readonly slot: number; readonly fd: number; readonly index: number }, { offset, into }: BatchRead): void {
    const at = slot * iocbBytes;
    this.#requests.setBigUint64(at, BigInt(index), true);
    this.#requests.setUint16(at + 16, readCommand, true);
    this.#requests.setUint32(at + 20, fd, true);
    this.#requests.setBigUint64(at + 24, this.#parts.calls.addressOf(into), true);
    this.#requests.setBigUint64(at + 32, BigInt(into.length), true);
    this.#requests.setBigInt64(at + 40, BigInt(offset), true);
  }

  #indexAt(slot: number): number {
    return Number(this.#requests.getBigUint64(slot * iocbBytes, true));
  }

  /** How many of them, from the first, the kernel took. */
  #submit(slots: readonly number[]): number {
    const { calls, context } = this.#parts;
    const requests = calls.addressOf(new Uint8Array(this.#requests.buffer));
    for (const [place, slot] of slots.entries()) this.#pointers[place] = requests + BigInt(slot * iocbBytes);
    let taken = 0;
    try {
      while (taken < slots.length) {
        const count = Number(calls.call("io_submit", context, slots.length - taken, addressOf(calls, this.#pointers) + BigInt(taken * 8)));
        if (count === 0) break;
        taken += count;
      }
    } catch (error) {
      if (!(error instanceof KernelRefused)) throw error;
    }
    return taken;
  }

  /** What has ended by now. */
  #reap(countMax: number): { readonly index: number; readonly byteCount: number }[] {
    if (countMax === 0) return [];
    const { calls, context } = this.#parts;
    const noWait = new BigInt64Array(2);
    const count = Number(calls.call("io_getevents", context, 0, countMax, addressOf(calls, this.#events), addressOf(calls, noWait)));
    const words = eventBytes / 8;
    return Array.from({ length: count }, (_, event) => ({
      index: Number(this.#events[event * words] ?? 0n),
      byteCount: Number(this.#events[event * words + 2] ?? 0n),
    }));
  }
}
