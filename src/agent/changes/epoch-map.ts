// EpochMap: one byte a cell that holds the epoch of the last write, read and cleared while writers go on.
//
// A writer reads the current epoch, then stores it into its cells; zero means clean. closeEpoch() moves the epoch on and
// waits until every writer that may have read the old one has finished, so a store of an old epoch cannot come after
// the scan. A cell is cleared by compare-and-exchange only, so a store that comes in between stays. Epochs are 1…255 in a
// ring; compact() relabels everything dirty with the newest closed epoch, and between two compactions at most
// epochsBetweenCompactsMax epochs are closed, so that ages in the ring are never ambiguous.

import { assert } from "../../base/assert.ts";
import { granuleBytes } from "../../disk/geometry.ts";
import { midShift, topShift, type CellLayout } from "./cell-layout.ts";
import type { ChangeSpan, GranuleRun, Mark } from "./tracker.ts";

const ringSize = 255;
const epochsBetweenCompactsMax = 200;

export interface EpochSource {
  /** 1…255. */
  readEpoch(): number;
  writeEpoch(epoch: number): void;
  /** Resolves when every writer that was running at the call has finished its stores. */
  settle(): void | Promise<void>;
}

export class EpochMap {
  readonly #cells: Uint8Array;
  readonly #bytes: Buffer;
  readonly #layout: CellLayout;
  readonly #source: EpochSource;
  #closedSinceCompact = 0;

  constructor(layout: CellLayout, cells: Uint8Array, source: EpochSource) {
    assert(cells.length >= layout.topStart + layout.topCount, "there is a cell for every part of the disk");
    this.#layout = layout;
    this.#cells = cells;
    this.#bytes = Buffer.from(cells.buffer, cells.byteOffset, cells.byteLength);
    this.#source = source;
  }

  /** Closes the current epoch and answers it: every store of it and of earlier ones is in the cells. */
  async closeEpoch(): Promise<Mark> {
    assert(this.#closedSinceCompact < epochsBetweenCompactsMax, "compact() is called often enough");
    this.#closedSinceCompact += 1;
    const closing = this.#source.readEpoch();
    this.#source.writeEpoch(nextEpoch(closing));
    await this.#source.settle();
    return closing as Mark;
  }

  async compact(): Promise<Mark> {
    this.#closedSinceCompact = 0;
    const until = await this.closeEpoch();
    this.#replace(until, until);
    return until;
  }

  acknowledge(until: Mark): void {
    this.#replace(until, 0);
  }

  /** Calls Atomics.compareExchange on each dirty cell that is not younger than `until`. */
  #replace(until: Mark, replacement: number): void {
    const oldest = this.#ageOf(until);
    for (const index of this.#dirtyCells()) {
      const value = Atomics.load(this.#cells, index);
      if (value !== 0 && value !== replacement && this.#ageOf(value) >= oldest)
        Atomics.compareExchange(this.#cells, index, value, replacement);
    }
  }

  *changed(span: ChangeSpan): Iterable<GranuleRun> {
    const wanted = this.#wantedValues(span);
    const cells = new WantedCells(this.#bytes.subarray(0, this.#layout.fineCount), wanted);
    const { layout, granuleCount } = { layout: this.#layout, granuleCount: Math.ceil(this.#layout.sizeBytes / granuleBytes) };
    const midGranules = 2 ** midShift / granuleBytes;
    const finePerMid = 2 ** (midShift - layout.fineShift);
    const granulesPerFine = 2 ** layout.fineShift / granuleBytes;
    let first = 0;
    let end = 0;
    for (let mid = 0; mid < layout.midCount; mid++) {
      const isWhole =
        wanted[this.#at(layout.midStart + mid)] === 1 || wanted[this.#at(layout.topStart + (mid >> (topShift - midShift)))] === 1;
      const fineEnd = Math.min((mid + 1) * finePerMid, layout.fineCount);
      const begin = mid * finePerMid;
      if (!isWhole && !cells.areSought && this.#isZero(begin, fineEnd)) continue;
      for (let cell = isWhole ? begin : cells.next(begin, fineEnd); cell < fineEnd; cell = cells.next(cell + 1, fineEnd)) {
        const start = isWhole ? mid * midGranules : cell * granulesPerFine;
        const stop = Math.min(isWhole ? start + midGranules : start + granulesPerFine, granuleCount);
        if (start !== end && end > first) {
          yield { first, count: end - first };
          first = start;
        } else if (end === first) first = start;
        end = stop;
        if (isWhole) break;
      }
    }
    if (end > first) yield { first, count: end - first };
  }

  /** 1 for each cell value that lies in the span. */
  #wantedValues(span: ChangeSpan): Uint8Array {
    const wanted = new Uint8Array(256);
    const youngest = this.#ageOf(span.until);
    const tooOld = span.since === undefined ? ringSize : this.#ageOf(span.since);
    for (let value = 1; value <= ringSize; value++) {
      const age = this.#ageOf(value);
      if (age >= youngest && age < tooOld) wanted[value] = 1;
    }
    return wanted;
  }

  #ageOf(epoch: number): number {
    return (this.#source.readEpoch() - epoch + ringSize) % ringSize;
  }

  #at(index: number): number {
    return this.#cells[index] ?? 0;
  }

  #isZero(start: number, end: number): boolean {
    return zeros.compare(this.#bytes, start, end, 0, end - start) === 0;
  }

  *#dirtyCells(): Iterable<number> {
    const cellCount = this.#layout.topStart + this.#layout.topCount;
    for (let start = 0; start < cellCount; start += zeros.length) {
      const end = Math.min(start + zeros.length, cellCount);
      if (this.#isZero(start, end)) continue;
      for (let index = start; index < end; index++) if (this.#at(index) !== 0) yield index;
    }
  }
}

const zeros = Buffer.alloc(4096);
/** So few values are looked for one by one, as fast as memory is read; it is what a round of a point asks for, while writers stand still. */
const soughtMax = 3;

/** Finds cells of wanted values in rising order. */
class WantedCells {
  readonly #bytes: Buffer;
  readonly #wanted: Uint8Array;
  /** Each wanted value with the first place at or after the last question that holds it; empty when there are too many to seek. */
  readonly #sought: { readonly value: number; at: number }[];

  constructor(bytes: Buffer, wanted: Uint8Array) {
    this.#bytes = bytes;
    this.#wanted = wanted;
    const values = Array.from(wanted.keys()).filter((value) => wanted[value] === 1);
    this.#sought = values.length > soughtMax ? [] : values.map((value) => ({ value, at: -1 }));
  }

  /** Whether what is of no interest is passed over without being looked at here. */
  get areSought(): boolean {
    return this.#sought.length > 0;
  }

  /** The first in [from, end), or `end`. `from` never falls from call to call. */
  next(from: number, end: number): number {
    const first = this.#bytes[from];
    if (from < end && first !== undefined && this.#wanted[first] === 1) return from;
    if (this.#sought.length === 0) return this.#scan(from, end);
    let next = end;
    for (const sought of this.#sought) {
      if (sought.at < from) {
        const found = this.#bytes.indexOf(sought.value, from);
        sought.at = found === -1 ? this.#bytes.length : found;
      }
      next = Math.min(next, sought.at);
    }
    return next;
  }

  #scan(from: number, end: number): number {
    for (let cell = from; cell < end; cell++) if (this.#wanted[this.#bytes[cell] ?? 0] === 1) return cell;
    return end;
  }
}

function nextEpoch(epoch: number): number {
  return epoch === ringSize ? 1 : epoch + 1;
}
