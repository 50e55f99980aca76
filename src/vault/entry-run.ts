// An immutable file of index rows in buckets by digest, with a filter in memory that spares most reads for what is not there.
// Bytes: docs/design/vault-format.md, Index of entries.

import { readSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { assert } from "../base/assert.ts";
import { rowBytes, rowWords } from "./index-row.ts";

/** Rows of one bucket, as many as a fill of the whole gives on average: between this and its half. */
const bucketRowsMax = 48;
const filterBitsPerRow = 10;
const filterBlockWords = 16;
const probeCount = 7;
const magic = 0x57_54_52_49;
const version = 1;
const footerWords = 8;
const footerBytes = footerWords * 4;

/** What a run's file says behind its rows. */
export interface RunShape {
  readonly rowCount: number;
  readonly bucketBits: number;
  /** First row of each bucket, and the end of the last. */
  readonly starts: Uint32Array;
  /** Checksum of each bucket. */
  readonly sums: Uint32Array;
  readonly filter: Uint32Array;
}

export function emptyShape(rowCount: number): RunShape {
  assert(rowCount > 0, "a run has rows");
  const bucketBits = Math.max(1, Math.ceil(Math.log2(rowCount / bucketRowsMax)));
  const bucketCount = 2 ** bucketBits;
  const sizes = { bucketCount, filterWords: filterWordsOf(rowCount) };
  return { rowCount, bucketBits, ...partsOf(new ArrayBuffer(shapeBytes(sizes)), sizes) };
}

interface ShapeSizes {
  readonly bucketCount: number;
  readonly filterWords: number;
}

function filterWordsOf(rowCount: number): number {
  return Math.ceil((rowCount * filterBitsPerRow) / (filterBlockWords * 32)) * filterBlockWords;
}

function shapeBytes({ bucketCount, filterWords }: ShapeSizes): number {
  return (2 * bucketCount + 1 + filterWords) * 4;
}

function partsOf(memory: ArrayBuffer, { bucketCount, filterWords }: ShapeSizes): Pick<RunShape, "starts" | "sums" | "filter"> {
  return {
    starts: new Uint32Array(memory, 0, bucketCount + 1),
    sums: new Uint32Array(memory, (bucketCount + 1) * 4, bucketCount),
    filter: new Uint32Array(memory, (2 * bucketCount + 1) * 4, filterWords),
  };
}

/** All that stands behind the rows. */
export function encodeShape({ rowCount, bucketBits, starts, filter }: RunShape): Uint8Array[] {
  const parts = new Uint8Array(starts.buffer);
  const footer = new Uint32Array([magic, version, rowCount, bucketBits, crc32(parts), filter.length, 0, 0]);
  footer[footerWords - 1] = crc32(new Uint8Array(footer.buffer, 0, footerBytes - 4));
  return [parts, new Uint8Array(footer.buffer)];
}

/** Bucket of a digest, given its first word. */
export function bucketOf(word: number, bucketBits: number): number {
  return word >>> (32 - bucketBits);
}

/** Puts the digest at `at` of `words` into the filter. */
export function addToFilter(filter: Uint32Array, words: Uint32Array, at: number): void {
  const block = filterBlockAt(filter, words, at);
  for (let probe = 0; probe < probeCount; probe++) {
    const bit = probeBit(words, at, probe);
    filter[block + (bit >> 5)] = (filter[block + (bit >> 5)] ?? 0) | (1 << (bit & 31));
  }
}

function isInFilter(filter: Uint32Array, words: Uint32Array): boolean {
  const block = filterBlockAt(filter, words, 0);
  for (let probe = 0; probe < probeCount; probe++) {
    const bit = probeBit(words, 0, probe);
    if (((filter[block + (bit >> 5)] ?? 0) & (1 << (bit & 31))) === 0) return false;
  }
  return true;
}

/** A digest's bits are as good as any hash of it; each use takes others. */
function filterBlockAt(filter: Uint32Array, words: Uint32Array, at: number): number {
  return Math.floor(((words[at + 2] ?? 0) / 2 ** 32) * (filter.length / filterBlockWords)) * filterBlockWords;
}

function probeBit(words: Uint32Array, at: number, probe: number): number {
  return ((words[at + 3 + Math.floor(probe / 3)] ?? 0) >>> ((probe % 3) * 9)) & 511;
}

export class EntryRun {
  readonly serial: number;
  readonly shape: RunShape;
  readonly #file: FileHandle;
  #readers = 0;
  #isClosing = false;

  private constructor(serial: number, file: FileHandle, shape: RunShape) {
    this.serial = serial;
    this.#file = file;
    this.shape = shape;
  }

  /** Undefined when the file is absent or not whole. Rows are checked when they are read. */
  static async open(path: string, serial: number): Promise<EntryRun | undefined> {
    const file = await openExisting(path);
    if (file === undefined) return undefined;
    const shape = await readShape(file);
    if (shape !== undefined) return new EntryRun(serial, file, shape);
    await file.close();
    return undefined;
  }

  get rowCount(): number {
    return this.shape.rowCount;
  }

  /** Whether the digest may be here; false is certain. */
  mayHold(words: Uint32Array): boolean {
    return isInFilter(this.shape.filter, words);
  }

  bucketOf(words: Uint32Array): number {
    return bucketOf(words[0] ?? 0, this.shape.bucketBits);
  }

  /** Numbers that the rows of a bucket have. */
  bucketWords(bucket: number): number {
    return (this.rowOf(bucket + 1) - this.rowOf(bucket)) * rowWords;
  }

  /** Reads the rows of a bucket; false when they are not what was written. */
  readBucket(bucket: number, into: Uint32Array): boolean {
    const offset = this.rowOf(bucket) * rowBytes;
    const readBytes = into.length === 0 ? 0 : readSync(this.#file.fd, into, 0, into.byteLength, offset);
    return readBytes === into.byteLength && this.#isWhole(bucket, into);
  }

  /** First row of a bucket. */
  rowOf(bucket: number): number {
    return this.shape.starts[bucket] ?? 0;
  }

  /** As readBucket for all from `first` to before `end`, without stopping the program meanwhile. */
  async readBuckets(first: number, end: number, into: Uint32Array<ArrayBuffer>): Promise<boolean> {
    const firstRow = this.rowOf(first);
    if (!(await this.#read(into, firstRow * rowBytes))) return false;
    for (let bucket = first; bucket < end; bucket++) {
      const from = (this.rowOf(bucket) - firstRow) * rowWords;
      if (!this.#isWhole(bucket, into.subarray(from, (this.rowOf(bucket + 1) - firstRow) * rowWords))) return false;
    }
    return true;
  }

  /** Once who reads is done. */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#readers === 0) await this.#file.close();
  }

  async #read(rows: Uint32Array<ArrayBuffer>, offset: number): Promise<boolean> {
    this.#readers += 1;
    try {
      for (let done = 0; done < rows.byteLength;) {
        const { bytesRead } = await this.#file.read(
          new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength),
          done,
          rows.byteLength - done,
          offset + done,
        );
        if (bytesRead === 0) return false;
        done += bytesRead;
      }
      return true;
    } finally {
      this.#readers -= 1;
      if (this.#isClosing && this.#readers === 0) await this.#file.close();
    }
  }

  #isWhole(bucket: number, rows: Uint32Array): boolean {
    return crc32(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength)) === this.shape.sums[bucket];
  }
}

async function openExisting(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

async function readShape(file: FileHandle): Promise<RunShape | undefined> {
  const { size } = await file.stat();
  if (size < footerBytes) return undefined;
  const footer = new Uint32Array(footerWords);
  await file.read(new Uint8Array(footer.buffer), 0, footerBytes, size - footerBytes);
  const [isOurs, isKnown, rowCount = 0, bucketBits = 0, partsSum, filterWords = 0, , footerSum] = footer;
  if (isOurs !== magic || isKnown !== version || footerSum !== crc32(new Uint8Array(footer.buffer, 0, footerBytes - 4))) return undefined;
  const sizes = { bucketCount: 2 ** bucketBits, filterWords };
  const bytes = shapeBytes(sizes);
  if (size !== rowCount * rowBytes + bytes + footerBytes) return undefined;
  const memory = new ArrayBuffer(bytes);
  for (let done = 0; done < bytes;) {
    const length = Math.min(bytes - done, shapeReadBytes);
    const { bytesRead } = await file.read(new Uint8Array(memory, done, length), 0, length, rowCount * rowBytes + done);
    if (bytesRead === 0) return undefined;
    done += bytesRead;
  }
  if ((await crcInSteps(new Uint8Array(memory))) !== partsSum) return undefined;
  return { rowCount, bucketBits, ...partsOf(memory, sizes) };
}

const shapeReadBytes = 4 << 20;

/** As crc32, but others may run between its parts. */
async function crcInSteps(bytes: Uint8Array): Promise<number> {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += shapeReadBytes) {
    sum = crc32(bytes.subarray(at, at + shapeReadBytes), sum);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return sum;
}
