// Fills a reader's memory with blocks out of local packs: read, open, unpack, patch, check. What cannot be done so is left to the reader.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { digestGranules, digestRowBytes } from "../disk/block-id.ts";
import { equalBytes, idOf } from "../disk/digest.ts";
import { blockBytes, digestBytes, granuleBytes } from "../disk/geometry.ts";
import type { StoreKey } from "../store/store.ts";
import { openEntryInto } from "./open-entries.ts";
import { applyPatch, contentIdOf, patchBaseId } from "./patch.ts";
import { block, blockAt, blocksPerJob, head, idBytesOf, outcomes, part, partAt, rowBytesOf, stagingBytesPerJob } from "./read-ring.ts";
import { createObjectSealer, type ObjectSealer, type SealHead, type VaultSecret } from "./sealing.ts";
import { decompressEntry } from "./zstd.ts";

/** What a thread must know of a pack before a job names it. */
export interface PackFile {
  readonly number: number;
  readonly path: string;
  readonly key: StoreKey;
  readonly sealHead: SealHead;
  readonly secret: VaultSecret;
}

interface OpenPack {
  readonly file: number;
  readonly sealer: ObjectSealer;
}

const packsOpenMax = 64;
/** After so many jobs, files that were removed meanwhile are let go of. */
const jobsBetweenLooks = 1024;
/** Neighbours are read together up to this … */
const windowBytes = 1 << 20;
/** … when they stand this close. */
const gapBytesMax = 16 << 10;

export class ReadWork {
  readonly #staging: Uint8Array;
  readonly #files = new Map<number, PackFile>();
  readonly #memories = new Map<number, Uint8Array>();
  /** Least recently used first. */
  readonly #open = new Map<number, OpenPack>();
  readonly #window = Buffer.allocUnsafeSlow(windowBytes);
  readonly #content = Buffer.allocUnsafeSlow(blockBytes);
  readonly #digests = Buffer.allocUnsafeSlow(digestRowBytes);
  #windowPack = -1;
  #windowFrom = 0;
  #windowEnd = 0;
  #jobCount = 0;

  constructor(staging: Uint8Array) {
    this.#staging = staging;
  }

  addPack(file: PackFile): void {
    this.#close(file.number);
    this.#files.set(file.number, file);
  }

  addMemory(number: number, memory: SharedArrayBuffer): void {
    this.#memories.set(number, new Uint8Array(memory));
  }

  removeMemory(number: number): void {
    this.#memories.delete(number);
  }

  /** Lets go of all files. */
  rest(): void {
    for (const number of [...this.#open.keys()]) this.#close(number);
  }

  /** Answers the outcome of a job. Every byte of a done one was checked. */
  run(job: Int32Array, number: number): number {
    this.#jobCount += 1;
    if (this.#jobCount % jobsBetweenLooks === 0) this.#dropRemoved();
    this.#windowPack = -1;
    const blockCount = Math.min(job[head.blockCount] ?? 0, blocksPerJob);
    let firstPart = 0;
    for (let index = 0; index < blockCount; index++) {
      if (!this.#fillBlock({ job, number, index, firstPart })) return outcomes.failed;
      firstPart += job[blockAt(index) + block.partCount] ?? 0;
    }
    return outcomes.done;
  }

  #fillBlock({ job, number, index, firstPart }: BlockPlace): boolean {
    const at = blockAt(index);
    const memoryNumber = job[at + block.memory] ?? 0;
    const skip = job[at + block.skip] ?? 0;
    const length = job[at + block.length] ?? 0;
    const partCount = job[at + block.partCount] ?? 0;
    const memory = memoryNumber === 0 ? this.#staging : this.#memories.get(memoryNumber);
    if (memory === undefined || skip + length > blockBytes || partCount === 0) return false;
    const from = memoryNumber === 0 ? number * stagingBytesPerJob + index * blockBytes : (job[at + block.target] ?? 0);
    if (from + length > memory.length) return false;
    const isWhole = length === blockBytes;
    const content = isWhole ? memory.subarray(from, from + blockBytes) : this.#content;
    if (!this.#openChain(job, firstPart, partCount, content)) return false;
    const id = idBytesOf(job, index);
    const isRight =
      index === 0 && job[head.row] === 1 && !isWhole
        ? this.#fitsRow(content, { id, row: rowBytesOf(job), skip, length })
        : equalBytes(contentIdOf("block", content), id);
    if (isRight && !isWhole) memory.set(content.subarray(skip, skip + length), from);
    return isRight;
  }

  /** The content of the last entry, which is full, with the patches of those before it. */
  #openChain(job: Int32Array, firstPart: number, partCount: number, content: Uint8Array): boolean {
    for (let index = firstPart + partCount - 1; index >= firstPart; index--) {
      const at = partAt(index);
      const isFull = job[at + part.isPatch] === 0;
      if (isFull !== (index === firstPart + partCount - 1)) return false;
      const sealed = this.#readPart(job, index, firstPart + partCount);
      const pack = sealed === undefined ? undefined : this.#openPack(job[at + part.pack] ?? -1);
      if (sealed === undefined || pack === undefined) return false;
      const [offset, isPacked] = [job[at + part.offset] ?? 0, job[at + part.isPacked] === 1];
      const isApplied = isFull
        ? openEntryInto(pack.sealer, { sealed, offset, isPacked }, content) === undefined
        : applyStored(pack.sealer, { sealed, offset, isPacked }, content);
      if (!isApplied) return false;
    }
    return true;
  }

  /** The wanted granules alone are digested, against digests that the id proves. */
  #fitsRow(
    content: Uint8Array,
    { id, row, skip, length }: { readonly id: Uint8Array; readonly row: Uint8Array; readonly skip: number; readonly length: number },
  ): boolean {
    if (!equalBytes(idOf(row), id)) return false;
    const first = Math.floor(skip / granuleBytes);
    const end = Math.ceil((skip + length) / granuleBytes);
    digestGranules(content.subarray(first * granuleBytes, end * granuleBytes), this.#digests);
    return equalBytes(this.#digests.subarray(0, (end - first) * digestBytes), row.subarray(first * digestBytes, end * digestBytes));
  }

  /** The sealed bytes of an entry, valid until the next call; read together with those that follow it closely. */
  #readPart(job: Int32Array, index: number, blockEnd: number): Uint8Array | undefined {
    const at = partAt(index);
    const pack = job[at + part.pack] ?? -1;
    const offset = job[at + part.offset] ?? 0;
    const length = job[at + part.length] ?? 0;
    if (pack !== this.#windowPack || offset < this.#windowFrom || offset + length > this.#windowEnd) {
      const end = blockEnd - index === 1 ? this.#windowEndAfter(job, index) : offset + length;
      if (!this.#readWindow(pack, offset, end)) return undefined;
    }
    return this.#window.subarray(offset - this.#windowFrom, offset - this.#windowFrom + length);
  }

  #windowEndAfter(job: Int32Array, index: number): number {
    const first = partAt(index);
    const pack = job[first + part.pack];
    const from = job[first + part.offset] ?? 0;
    let end = from + (job[first + part.length] ?? 0);
    for (let next = index + 1; next < (job[head.partCount] ?? 0); next++) {
      const at = partAt(next);
      const offset = job[at + part.offset] ?? 0;
      const length = job[at + part.length] ?? 0;
      if (job[at + part.pack] !== pack || offset < end || offset - end > gapBytesMax || offset + length - from > windowBytes) break;
      end = offset + length;
    }
    return end;
  }

  #readWindow(number: number, from: number, end: number): boolean {
    this.#windowPack = -1;
    const pack = this.#openPack(number);
    if (pack === undefined || end - from > windowBytes) return false;
    try {
      for (let done = 0; done < end - from;) {
        const count = readSync(pack.file, this.#window, done, end - from - done, from + done);
        if (count === 0) return false;
        done += count;
      }
    } catch {
      return false; // The reader reads by the store, and tells what is wrong with it.
    }
    [this.#windowPack, this.#windowFrom, this.#windowEnd] = [number, from, end];
    return true;
  }

  #openPack(number: number): OpenPack | undefined {
    const present = this.#open.get(number);
    if (present !== undefined) return present;
    const file = this.#files.get(number);
    const sealer = file === undefined ? undefined : createObjectSealer(file.secret, file.key, file.sealHead);
    if (file === undefined || sealer === undefined) return undefined;
    for (const oldest of this.#open.keys()) {
      if (this.#open.size < packsOpenMax) break;
      this.#close(oldest);
    }
    try {
      const opened = { file: openSync(file.path, "r"), sealer };
      this.#open.set(number, opened);
      return opened;
    } catch {
      return undefined; // It went meanwhile: the reader looks where its entries are now.
    }
  }

  #close(number: number): void {
    const opened = this.#open.get(number);
    if (opened === undefined) return;
    this.#open.delete(number);
    closeSync(opened.file);
  }

  /** A file that is open keeps its place on the disk after it was removed. */
  #dropRemoved(): void {
    for (const [number, { file }] of this.#open) if (fstatSync(file).nlink === 0) this.#close(number);
  }
}

interface BlockPlace {
  readonly job: Int32Array;
  readonly number: number;
  readonly index: number;
  readonly firstPart: number;
}

function applyStored(
  sealer: ObjectSealer,
  { sealed, offset, isPacked }: { readonly sealed: Uint8Array; readonly offset: number; readonly isPacked: boolean },
  content: Uint8Array,
): boolean {
  const plain = sealer.open("entry", sealed, offset);
  const patch = plain === undefined || !isPacked ? plain : decompressEntry(plain, blockBytes);
  if (patch === undefined || patchBaseId("block", patch) === undefined) return false;
  applyPatch("block", content, patch);
  return true;
}
