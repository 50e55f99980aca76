// One row of the entry index: 80 bytes, the same in memory and in a run's file. Layout: docs/design/vault-format.md, Index of entries.

import { asBuffer } from "../disk/digest.ts";
import { digestBytes } from "../disk/geometry.ts";
import type { EntryKind } from "./patch.ts";

/** Place and form of one entry. */
export interface EntryPlace {
  readonly packNumber: number;
  readonly offset: number;
  /** Sealed length. */
  readonly length: number;
  readonly kind: EntryKind;
  readonly form: "full" | "patch";
  readonly method: "raw" | "zstd";
  readonly depth: number;
}

/** An entry as the index knows it. */
export interface IndexEntry extends EntryPlace {
  /** Which one of its pack it is, from 0 on. */
  readonly ordinal: number;
  /** Digest of what a patch stands on; undefined for full entries. */
  readonly baseId: Uint8Array | undefined;
}

export const rowBytes = 80;
export const rowWords = rowBytes / 4;
const digestWords = digestBytes / 4;
const packWord = digestWords;
const traitsWord = digestWords + 1;
const offsetWord = digestWords + 2;
const lengthWord = digestWords + 3;
const baseWord = digestWords + 4;
/** Low bits of the traits: the ordinal. */
const ordinalBits = 18;
const ordinalEnd = 2 ** ordinalBits;

const scratch = new Uint32Array(digestWords);
const scratchBytes = new Uint8Array(scratch.buffer);

/** The digest as numbers, in memory that the next call overwrites. */
export function viewWords(id: Uint8Array): Uint32Array {
  scratchBytes.set(id);
  return scratch;
}

export function writeRow(rows: Uint32Array, at: number, id: Uint8Array, entry: IndexEntry): void {
  rows.set(viewWords(id), at);
  rows[at + packWord] = entry.packNumber;
  const traits =
    (entry.kind === "page" ? 1 : 0) | (entry.form === "patch" ? 2 : 0) | (entry.method === "zstd" ? 4 : 0) | (entry.depth << 3);
  rows[at + traitsWord] = (traits << ordinalBits) | entry.ordinal;
  rows[at + offsetWord] = entry.offset;
  rows[at + lengthWord] = entry.length;
  if (entry.baseId === undefined) rows.fill(0, at + baseWord, at + rowWords);
  else rows.set(viewWords(entry.baseId), at + baseWord);
}

/** Whether the row is of this kind and digest. */
export function isRowOf(rows: Uint32Array, at: number, kind: EntryKind, words: Uint32Array): boolean {
  for (let word = 0; word < digestWords; word++) if (rows[at + word] !== words[word]) return false;
  return (((rows[at + traitsWord] ?? 0) >>> ordinalBits) & 1) === (kind === "page" ? 1 : 0);
}

export function packNumberAt(rows: Uint32Array, at: number): number {
  return rows[at + packWord] ?? 0;
}

/** The entry of a row; its base is a copy. */
export function readRow(rows: Uint32Array, at: number): IndexEntry {
  const word = rows[at + traitsWord] ?? 0;
  const traits = word >>> ordinalBits;
  const isPatch = (traits & 2) !== 0;
  return {
    packNumber: rows[at + packWord] ?? 0,
    offset: rows[at + offsetWord] ?? 0,
    length: rows[at + lengthWord] ?? 0,
    kind: (traits & 1) === 0 ? "block" : "page",
    form: isPatch ? "patch" : "full",
    method: (traits & 4) === 0 ? "raw" : "zstd",
    depth: traits >>> 3,
    ordinal: word & (ordinalEnd - 1),
    baseId: isPatch ? baseOf(rows, at) : undefined,
  };
}

function baseOf(rows: Uint32Array, at: number): Uint8Array | undefined {
  const words = rows.slice(at + baseWord, at + rowWords);
  return words.every((word) => word === 0) ? undefined : asBuffer(new Uint8Array(words.buffer));
}
