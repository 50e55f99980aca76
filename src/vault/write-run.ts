// Writes runs of the index: of a table, or of several runs into one, in strips of digests, so that memory and pauses stay short.

import { join } from "node:path";
import { open, rename, unlink, type FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { flushFolder } from "../base/atomic-file.ts";
import type { EntryTable } from "./entry-table.ts";
import { addToFilter, bucketOf, emptyShape, encodeShape, type EntryRun, type RunShape } from "./entry-run.ts";
import { packNumberAt, rowBytes, rowWords } from "./index-row.ts";

/** Rows that are put in order at once: about 640 KiB, a few milliseconds. */
const stripRows = 8192;

/** Gives, strip after strip in the order of their digests, all rows whose bucket among 2^bits is `strip`, in memory that the next call uses. */
export interface RowSource {
  readonly rowsMax: number;
  strip(strip: number, bits: number): Promise<{ readonly rows: Uint32Array; readonly rowCount: number }>;
}

export function runPath(folder: string, serial: number): string {
  return join(folder, `run-${serial}`);
}

/** Durable on return, under its name. Answers the count of rows; with none no file is made. */
export async function writeRun(folder: string, serial: number, source: RowSource): Promise<number> {
  const path = runPath(folder, serial);
  const temporary = `${path}.tmp`;
  const stripBits = Math.max(1, Math.ceil(Math.log2(source.rowsMax / stripRows)));
  const shape = emptyShape(source.rowsMax);
  let rowCount = 0;
  let memory = new Uint32Array(stripRows * 2 * rowWords);
  try {
    // Through the page cache, where finds will look for it.
    await using file = await open(temporary, "wx", 0o600);
    for (let strip = 0; strip < 2 ** stripBits; strip++) {
      const given = await source.strip(strip, stripBits);
      const from = Math.floor((strip * 2 ** shape.bucketBits) / 2 ** stripBits);
      const end = Math.floor(((strip + 1) * 2 ** shape.bucketBits) / 2 ** stripBits);
      if (memory.length < given.rowCount * rowWords) memory = new Uint32Array(given.rowCount * 2 * rowWords);
      const ordered = orderRows(given, shape, { from, end, firstRow: rowCount, ordered: memory });
      rowCount += given.rowCount;
      await append(file, new Uint8Array(ordered.buffer, 0, given.rowCount * rowBytes));
      await new Promise((resolve) => setImmediate(resolve));
    }
    shape.starts[2 ** shape.bucketBits] = rowCount;
    for (const part of encodeShape({ ...shape, rowCount })) await append(file, part);
    await file.sync();
  } catch (error) {
    await unlink(temporary).catch(() => undefined); // The write's own error is the one to tell.
    throw error;
  }
  if (rowCount === 0) await unlink(temporary);
  else await rename(temporary, path);
  await flushFolder(folder);
  return rowCount;
}

async function append(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += (await file.write(bytes, done, bytes.length - done)).bytesWritten;
}

/** Counting sort into the strip's buckets; fills what the shape says of them. */
function orderRows(
  { rows, rowCount }: { readonly rows: Uint32Array; readonly rowCount: number },
  shape: RunShape,
  {
    from,
    end,
    firstRow,
    ordered,
  }: { readonly from: number; readonly end: number; readonly firstRow: number; readonly ordered: Uint32Array<ArrayBuffer> },
): Uint32Array<ArrayBuffer> {
  const { bucketBits, starts, sums, filter } = shape;
  const next = new Uint32Array(end - from + 1);
  for (let at = 0; at < rowCount * rowWords; at += rowWords) {
    const bucket = bucketOf(rows[at] ?? 0, bucketBits) - from + 1;
    next[bucket] = (next[bucket] ?? 0) + 1;
  }
  for (let bucket = 1; bucket < next.length; bucket++) next[bucket] = (next[bucket] ?? 0) + (next[bucket - 1] ?? 0);
  const ends = next.slice(1);
  for (let at = 0; at < rowCount * rowWords; at += rowWords) {
    const bucket = bucketOf(rows[at] ?? 0, bucketBits) - from;
    const place = next[bucket] ?? 0;
    next[bucket] = place + 1;
    const to = place * rowWords;
    for (let word = 0; word < rowWords; word++) ordered[to + word] = rows[at + word] ?? 0;
    addToFilter(filter, rows, at);
  }
  for (let bucket = from, start = 0; bucket < end; bucket++) {
    starts[bucket] = firstRow + start;
    const bucketEnd = ends[bucket - from] ?? 0;
    sums[bucket] = crc32(new Uint8Array(ordered.buffer, start * rowBytes, (bucketEnd - start) * rowBytes));
    start = bucketEnd;
  }
  return ordered;
}

/** Rows of a table whose pack `isAlive` takes. */
export function rowsOfTable(table: EntryTable, isAlive: (packNumber: number) => boolean): RowSource {
  let memory = new Uint32Array(0);
  let order: Uint32Array | undefined;
  let strips: Uint32Array | undefined;
  return {
    rowsMax: table.count,
    async strip(strip, bits) {
      if (order === undefined || strips === undefined) ({ order, strips } = orderOfTable(table, bits));
      const [from = 0, to = 0] = [strips[strip], strips[strip + 1]];
      if (memory.length < (to - from) * rowWords) memory = new Uint32Array((to - from) * 2 * rowWords);
      const rows = memory;
      let rowCount = 0;
      for (let index = from; index < to; index++) {
        const row = table.rowAt(order[index] ?? 0);
        if (!isAlive(packNumberAt(row.rows, row.at))) continue;
        for (let word = 0; word < rowWords; word++) rows[rowCount * rowWords + word] = row.rows[row.at + word] ?? 0;
        rowCount += 1;
      }
      return await Promise.resolve({ rows, rowCount });
    },
  };
}

/** Numbers of the table's rows by strip, and where each strip begins. */
function orderOfTable(table: EntryTable, bits: number): { readonly order: Uint32Array; readonly strips: Uint32Array } {
  const strips = new Uint32Array(2 ** bits + 1);
  const stripOf = new Uint32Array(table.count);
  for (let number = 0; number < table.count; number++) {
    const { rows, at } = table.rowAt(number);
    const strip = bucketOf(rows[at] ?? 0, bits);
    stripOf[number] = strip;
    strips[strip + 1] = (strips[strip + 1] ?? 0) + 1;
  }
  for (let strip = 1; strip < strips.length; strip++) strips[strip] = (strips[strip] ?? 0) + (strips[strip - 1] ?? 0);
  const next = strips.slice();
  const order = new Uint32Array(table.count);
  for (let number = 0; number < table.count; number++) {
    const strip = stripOf[number] ?? 0;
    const place = next[strip] ?? 0;
    next[strip] = place + 1;
    order[place] = number;
  }
  return { order, strips };
}

/** Rows of several runs. */
export function rowsOfRuns(
  runs: readonly EntryRun[],
  on: {
    /** Rows of other packs are left out. */
    readonly isAlive: (packNumber: number) => boolean;
    /** The fault of a run that is not what was written. */
    readonly damaged: (run: EntryRun) => Error;
    /** Why no more rows are wanted. */
    readonly stopped: () => Error | undefined;
  },
): RowSource {
  let memory = new Uint32Array(0);
  let read = new Uint32Array(0);
  return {
    rowsMax: runs.reduce((sum, { rowCount }) => sum + rowCount, 0),
    async strip(strip, bits) {
      const ranges = runs.map((run) => rangeOf(run, strip, bits));
      const wordCount = ranges.reduce((sum, range) => sum + range.wordCount, 0);
      if (memory.length < wordCount) [memory, read] = [new Uint32Array(wordCount * 2), new Uint32Array(wordCount * 2)];
      let used = 0;
      for (const { run, first, end, wordCount } of ranges) {
        const stopped = on.stopped();
        if (stopped !== undefined) throw stopped;
        const part = read.subarray(0, wordCount);
        if (!(await run.readBuckets(first, end, part))) throw on.damaged(run);
        for (let at = 0; at < wordCount; at += rowWords) {
          // A run with few buckets gives the neighbours' rows too.
          if (bucketOf(part[at] ?? 0, bits) !== strip || !on.isAlive(packNumberAt(part, at))) continue;
          for (let word = 0; word < rowWords; word++) memory[used + word] = part[at + word] ?? 0;
          used += rowWords;
        }
      }
      return { rows: memory, rowCount: used / rowWords };
    },
  };
}

/** Buckets of a run that hold a strip's rows. */
function rangeOf(run: EntryRun, strip: number, bits: number): { run: EntryRun; first: number; end: number; wordCount: number } {
  const { bucketBits } = run.shape;
  const first = Math.floor((strip * 2 ** bucketBits) / 2 ** bits);
  const end = Math.max(first + 1, Math.floor(((strip + 1) * 2 ** bucketBits) / 2 ** bits));
  return { run, first, end, wordCount: (run.rowOf(end) - run.rowOf(first)) * rowWords };
}
