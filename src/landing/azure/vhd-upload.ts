// Writes a disk into a managed disk of Azure: what is not zero, several runs at once, each checked on its way, resumed, proved at the end.

import { createHash } from "node:crypto";
import type { Agent } from "node:https";
import type { PageBlobClient } from "@azure/storage-blob";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { withRetry } from "../../base/retry.ts";
import { forEachParallel } from "../../base/semaphore.ts";
import { Fault } from "../../contract/errors.ts";
import { blockIdOf } from "../../disk/block-id.ts";
import { isAllZero, toHex, zeroId } from "../../disk/digest.ts";
import type { Disk } from "../../disk/disk.ts";
import { blockBytes, blockCountOf, digestBytes, granuleBytes, idsPerPage } from "../../disk/geometry.ts";
import { parentIdsOf, rootOfBlockIds } from "../../disk/page-tree.ts";
import { createVhdFooter, vhdFooterBytes, vhdSizeOf } from "../vhd-footer.ts";
import { isTransient, openPages, statusOf } from "./azure-clients.ts";
import type { PreparedDisk } from "./prepare-disks.ts";
import { granulesPerPiece, UploadJournal, type SentPiece } from "./upload-journal.ts";

export interface UploadWish {
  readonly disk: PreparedDisk;
  /** Of the recovery point's disk, when it is known. */
  readonly root?: string;
  readonly journalPath: string;
  /** A fresh signed address; asked for again when the one before is refused. */
  readonly address: () => Promise<string>;
  readonly agent: Agent;
  readonly clock: Clock;
  readonly random: Random;
  readonly onProgress?: (doneBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface UploadReport {
  /** Of this run: a resumed one sends less. */
  readonly sentBytes: number;
  readonly writeCount: number;
  /** Root of what was read of the recovery point, and of what stands in Azure now. They differ where hydration changed the clone. */
  readonly pointRoot: string;
  readonly sentRoot: string;
}

/** One page of the tree: 128 blocks. */
const pieceBytes = idsPerPage * blockBytes;
const piecesAtOnce = 6;
/** Azure's largest Put Page. */
const writeBytesMax = 4 << 20;
/** A shorter run of zeros between two runs is sent: one call costs more than 64 KiB. */
const gapGranulesMax = 16;
const attemptsMax = 6;
const firstWaitMs = 500;
const waitMaxMs = 20_000;
/** Page ranges are asked for in parts, so that no answer is long. */
const windowBytes = 128 * pieceBytes;

/** May be called again after any failure or kill with the same prepared disk: what was acknowledged is not sent again. */
export async function uploadVhd(wish: UploadWish): Promise<UploadReport> {
  const { disk, signal } = wish;
  const diskBytes = disk.content.sizeBytes;
  await using journal = await UploadJournal.open(wish.journalPath);
  const pages = new SignedPages(wish);
  const counted = { sentBytes: 0, writeCount: 0, doneBytes: 0 };
  const pieces = Array.from({ length: Math.ceil(diskBytes / pieceBytes) }, (_, index) => index);
  await forEachParallel(pieces, piecesAtOnce, async (index) => {
    signal?.throwIfAborted();
    if (!journal.sent.has(index)) await sendPiece(index, { wish, journal, pages, counted });
    counted.doneBytes += Math.min(pieceBytes, diskBytes - index * pieceBytes);
    wish.onProgress?.(counted.doneBytes);
  });
  const sizeBytes = vhdSizeOf(diskBytes);
  const footer = createVhdFooter({ sizeBytes, timeMs: wish.clock.nowMs(), uniqueId: wish.random.bytes(16) });
  await pages.write(sizeBytes, footer);
  const pointRoot = rootOf(journal, diskBytes, "pointPage");
  if (wish.root !== undefined && pointRoot !== wish.root)
    throw new Fault("DataDamaged", "could not upload the disk: what was read is not the recovery point", {
      evidence: { root: pointRoot, expectedRoot: wish.root },
    });
  await proveRanges(pages, journal, { sizeBytes, ...(signal === undefined ? {} : { signal }) });
  return { sentBytes: counted.sentBytes, writeCount: counted.writeCount, pointRoot, sentRoot: rootOf(journal, diskBytes, "sentPage") };
}

interface Sending {
  readonly wish: UploadWish;
  readonly journal: UploadJournal;
  readonly pages: SignedPages;
  readonly counted: { sentBytes: number; writeCount: number };
}

async function sendPiece(index: number, { wish, journal, pages, counted }: Sending): Promise<void> {
  const { content, point, isChanged } = wish.disk;
  const offset = index * pieceBytes;
  const length = Math.min(pieceBytes, content.sizeBytes - offset);
  const isTouched = isChanged(offset, length);
  if (!isTouched && !(await hasData(point, offset, length, wish.signal))) return;
  const bytes = await readPiece(content, offset, length, wish.signal);
  const sentPage = pageIdOf(bytes, length);
  const pointPage = isTouched ? pageIdOf(await readPiece(point, offset, length, wish.signal), length) : sentPage;
  const granules = granulesOf(bytes);
  for (const run of runsOf(granules)) {
    const part = bytes.subarray(run.first * granuleBytes, run.end * granuleBytes);
    await pages.write(offset + run.first * granuleBytes, part);
    setBits(granules, run);
    counted.sentBytes += part.length;
    counted.writeCount += 1;
  }
  await journal.add({ index, granules, pointPage, sentPage });
}

async function hasData(disk: Disk, offset: number, length: number, signal: AbortSignal | undefined): Promise<boolean> {
  return (await disk.extents(offset, length, signal)).some(({ kind }) => kind === "data");
}

/** Padded with zeros to whole blocks. */
async function readPiece(disk: Disk, offset: number, length: number, signal: AbortSignal | undefined): Promise<Buffer> {
  const bytes = Buffer.alloc(blockCountOf(length) * blockBytes);
  await disk.read(offset, bytes.subarray(0, length), signal);
  return bytes;
}

function pageIdOf(bytes: Buffer, length: number): Uint8Array {
  const ids = Buffer.alloc(idsPerPage * digestBytes);
  for (let block = 0; block < blockCountOf(length); block++)
    ids.set(blockIdOf(bytes.subarray(block * blockBytes, (block + 1) * blockBytes)), block * digestBytes);
  return parentIdsOf(ids);
}

interface Run {
  readonly first: number;
  readonly end: number;
}

/** A bit for each granule that is not zero. */
function granulesOf(bytes: Buffer): Uint8Array {
  const map = new Uint8Array(granulesPerPiece / 8);
  for (let granule = 0; granule * granuleBytes < bytes.length; granule++)
    if (!isAllZero(bytes.subarray(granule * granuleBytes, (granule + 1) * granuleBytes)))
      setBits(map, { first: granule, end: granule + 1 });
  return map;
}

/** Runs of set granules, short gaps taken in, none longer than one call takes. */
function runsOf(granules: Uint8Array): readonly Run[] {
  const runs: { first: number; end: number }[] = [];
  for (let granule = 0; granule < granulesPerPiece; granule++) {
    if (!hasBit(granules, granule)) continue;
    const last = runs.at(-1);
    const isNear = last !== undefined && granule - last.end < gapGranulesMax && (granule + 1 - last.first) * granuleBytes <= writeBytesMax;
    if (isNear) last.end = granule + 1;
    else runs.push({ first: granule, end: granule + 1 });
  }
  return runs;
}

function hasBit(map: Uint8Array, bit: number): boolean {
  return ((map[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
}

function setBits(map: Uint8Array, { first, end }: Run): void {
  for (let bit = first; bit < end; bit++) map[bit >> 3] = (map[bit >> 3] ?? 0) | (1 << (bit & 7));
}

/** A piece without a record is all zeros. */
function rootOf({ sent }: UploadJournal, diskBytes: number, which: "pointPage" | "sentPage"): string {
  const pages = Array.from({ length: Math.ceil(diskBytes / pieceBytes) }, (_, index) => sent.get(index)?.[which] ?? zeroId);
  return pages.length === 1 ? toHex(pages[0] ?? zeroId) : rootOfBlockIds(Buffer.concat(pages));
}

/** Every granule that was sent is listed; what is listed besides reads as zeros. Throws DataDamaged otherwise. */
async function proveRanges(
  pages: SignedPages,
  { sent }: UploadJournal,
  { sizeBytes, signal }: { readonly sizeBytes: number; readonly signal?: AbortSignal },
): Promise<void> {
  for (let at = 0; at < sizeBytes; at += windowBytes) {
    signal?.throwIfAborted();
    const windowEnd = Math.min(at + windowBytes, sizeBytes);
    const listed = await pages.ranges(at, windowEnd - at);
    const isListed = new Uint8Array(Math.ceil((windowEnd - at) / granuleBytes / 8));
    for (const { offset, count } of listed) {
      const [first, end] = [Math.max(offset, at), Math.min(offset + count, windowEnd)];
      setBits(isListed, { first: Math.floor((first - at) / granuleBytes), end: Math.ceil((end - at) / granuleBytes) });
    }
    const unsent: Run[] = [];
    for (let granule = 0; granule * granuleBytes < windowEnd - at; granule++) {
      const isSent = wasSent(sent, at / granuleBytes + granule);
      if (isSent && !hasBit(isListed, granule)) throw lost(at + granule * granuleBytes);
      if (!isSent && hasBit(isListed, granule)) pushGranule(unsent, granule);
    }
    for (const { first, end } of unsent) {
      const bytes = await pages.read(at + first * granuleBytes, (end - first) * granuleBytes);
      if (!isAllZero(bytes)) throw lost(at + first * granuleBytes);
    }
  }
}

function wasSent(sent: ReadonlyMap<number, SentPiece>, granule: number): boolean {
  const piece = sent.get(Math.floor(granule / granulesPerPiece));
  return piece !== undefined && hasBit(piece.granules, granule % granulesPerPiece);
}

function pushGranule(runs: Run[], granule: number): void {
  const last = runs.at(-1);
  const isNext = last?.end === granule && (granule + 1 - last.first) * granuleBytes <= writeBytesMax;
  if (isNext) runs[runs.length - 1] = { first: last.first, end: granule + 1 };
  else runs.push({ first: granule, end: granule + 1 });
}

function lost(offset: number): Fault {
  return new Fault("DataDamaged", "could not upload the disk: what stands in Azure is not what was sent", { evidence: { offset } });
}

/** The managed disk behind its signed address. Each call is repeated while that can help; a refused address is asked for anew. */
class SignedPages {
  readonly #wish: UploadWish;
  #client: Promise<PageBlobClient> | undefined;

  constructor(wish: UploadWish) {
    this.#wish = wish;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    const transactionalContentMD5 = createHash("md5").update(bytes).digest();
    await this.#call(
      async (client, options) => await client.uploadPages(bytes, offset, bytes.length, { transactionalContentMD5, ...options }),
    );
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    return await this.#call(
      async (client, options) => await client.downloadToBuffer(offset, length, { maxRetryRequestsPerBlock: 0, ...options }),
    );
  }

  async ranges(offset: number, length: number): Promise<readonly { readonly offset: number; readonly count: number }[]> {
    const answer = await this.#call(async (client, options) => await client.getPageRanges(offset, length, options));
    return (answer.pageRange ?? []).map(({ offset: start, count }) => ({ offset: start, count: count ?? 0 }));
  }

  async #call<T>(task: (client: PageBlobClient, options: { abortSignal?: AbortSignal }) => Promise<T>): Promise<T> {
    const { clock, signal } = this.#wish;
    let isRenewed = false;
    const run = async (): Promise<T> => {
      const opened = (this.#client ??= this.#open());
      try {
        return await task(await opened, signal === undefined ? {} : { abortSignal: signal });
      } catch (error) {
        const isRefused = statusOf(error) === 403 && !isRenewed;
        if (!isRefused) throw error;
        isRenewed = true;
        if (this.#client === opened) this.#client = undefined;
        throw new Fault("Forbidden", "could not write to the disk: its address is not good any more", { retry: "now", cause: error });
      }
    };
    const limits = { clock, attemptsMax, firstWaitMs, waitMaxMs, isTransient };
    return await withRetry({ ...limits, ...(signal === undefined ? {} : { signal }) }, run);
  }

  async #open(): Promise<PageBlobClient> {
    return openPages(await this.#wish.address(), this.#wish.agent);
  }
}

export function uploadSizeOf(diskBytes: number): number {
  return vhdSizeOf(diskBytes) + vhdFooterBytes;
}
