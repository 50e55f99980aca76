// Changes granules of stored blocks: open, unpack, check, change, take the new digest, pack. The same work in this thread and in others.

import { blockIdOf } from "../disk/block-id.ts";
import { asBuffer, equalBytes, isZeroId } from "../disk/digest.ts";
import { blockBytes, digestBytes, granuleBytes } from "../disk/geometry.ts";
import { sealerOf, type OpenJob } from "./open-entries.ts";
import { applyPatch, encodePatch, type ChangedGranule } from "./patch.ts";
import { compressEntry, viewFrame } from "./zstd.ts";

/** A block as it is stored: a full entry and the patches on it, the one that counts last first in the list. */
export interface StoredBlock {
  readonly id: Uint8Array;
  /** The full entry. */
  readonly sealed: Uint8Array;
  readonly seal: EntrySeal;
  readonly method: "raw" | "zstd";
  readonly patches: readonly Uint8Array[];
}

/** What opens an entry. */
interface EntrySeal extends Pick<OpenJob, "secret" | "packKey" | "sealHead"> {
  /** Of the entry in its pack. */
  readonly offset: number;
}

export interface PatchJob {
  readonly base: StoredBlock;
  /** In order of index. */
  readonly granules: readonly ChangedGranule[];
  /** Whether the result may be stored as a patch on the base. */
  readonly mayPatch: boolean;
}

export type PatchResult =
  | { readonly kind: "damaged" | "same" | "zero" }
  | {
      readonly kind: "changed";
      readonly id: Uint8Array;
      readonly form: "full" | "patch";
      readonly method: "raw" | "zstd";
      /** What is to be sealed. */
      readonly bytes: Uint8Array;
      /** 64 KiB. */
      readonly content: Uint8Array;
    };

/** Works in `content`, 64 KiB; the bytes of the answer are valid until the next call. */
export function changeBlock(job: PatchJob, content: Buffer): PatchResult {
  const { base } = job;
  const opened = sealerOf(base.seal).open("entry", base.sealed, base.seal.offset);
  if (opened === undefined) return { kind: "damaged" };
  const plain = base.method === "zstd" ? viewFrame(opened, blockBytes) : opened;
  if (plain?.length !== blockBytes) return { kind: "damaged" };
  content.set(plain);
  for (const patch of base.patches.toReversed()) applyPatch("block", content, patch);
  if (!equalBytes(blockIdOf(content), base.id)) return { kind: "damaged" };
  const changed = applyChanges(content, job.granules);
  if (changed.length === 0) return { kind: "same" };
  const id = blockIdOf(content);
  if (isZeroId(id)) return { kind: "zero" };
  const patch = job.mayPatch ? encodePatch("block", base.id, changed) : undefined;
  const packed = compressEntry(patch ?? content);
  const form = patch === undefined ? "full" : "patch";
  return { kind: "changed", id, form, method: packed === undefined ? "raw" : "zstd", bytes: packed ?? patch ?? content, content };
}

/** Writes granules into a block. Answers those that changed it, in order of index. */
export function applyChanges(content: Buffer, granules: readonly ChangedGranule[]): ChangedGranule[] {
  return granules.filter(({ index, bytes }) => {
    const at = index * granuleBytes;
    if (content.compare(bytes, 0, granuleBytes, at, at + granuleBytes) === 0) return false;
    content.set(bytes, at);
    return true;
  });
}

/** Several jobs travel to a thread in one shared memory, and so do their results. */
const jobsMax = 32;
const slotBytes = 2 * blockBytes + digestBytes;
const inputBytes = 4 << 20;
export const batchMemoryBytes = inputBytes + jobsMax * slotBytes;

interface Span {
  readonly at: number;
  readonly length: number;
}
interface SharedJob {
  readonly id: Span;
  readonly sealed: Span;
  readonly seal: EntrySeal;
  readonly method: "raw" | "zstd";
  readonly patches: readonly Span[];
  readonly granules: readonly { readonly index: number; readonly span: Span }[];
  readonly mayPatch: boolean;
}
export interface PatchBatch {
  readonly memory: SharedArrayBuffer;
  readonly jobs: readonly SharedJob[];
}
export type SharedResult =
  | { readonly kind: "damaged" | "same" | "zero" }
  | { readonly kind: "changed"; readonly form: "full" | "patch"; readonly method: "raw" | "zstd"; readonly length: number };

/** Puts as many jobs into `memory` as it holds; answers the batch, which is never empty. */
export function shareJobs(memory: SharedArrayBuffer, jobs: readonly PatchJob[]): PatchBatch {
  const room = new Uint8Array(memory, 0, inputBytes);
  let used = 0;
  const put = (bytes: Uint8Array): Span => {
    room.set(bytes, used);
    used += bytes.length;
    return { at: used - bytes.length, length: bytes.length };
  };
  const shared: SharedJob[] = [];
  for (const { base, granules, mayPatch } of jobs.slice(0, jobsMax)) {
    const bytesOf = (list: readonly Uint8Array[]): number => list.reduce((sum, each) => sum + each.length, 0);
    const wanted = digestBytes + base.sealed.length + bytesOf(base.patches) + granules.length * granuleBytes;
    if (used + wanted > inputBytes) break;
    shared.push({
      id: put(base.id),
      sealed: put(base.sealed),
      seal: base.seal,
      method: base.method,
      patches: base.patches.map(put),
      granules: granules.map(({ index, bytes }) => ({ index, span: put(bytes) })),
      mayPatch,
    });
  }
  return { memory, jobs: shared };
}

/** The thread's side. */
export function changeBlocks({ memory, jobs }: PatchBatch): SharedResult[] {
  const view = ({ at, length }: Span): Uint8Array => new Uint8Array(memory, at, length);
  return jobs.map((job, index): SharedResult => {
    const slot = slotOf(memory, index);
    const base = { id: view(job.id), sealed: view(job.sealed), seal: job.seal, method: job.method, patches: job.patches.map(view) };
    const granules = job.granules.map((each) => ({ index: each.index, bytes: view(each.span) }));
    const result = changeBlock({ base, granules, mayPatch: job.mayPatch }, asBuffer(slot.content));
    if (result.kind !== "changed") return result;
    slot.id.set(result.id);
    slot.bytes.set(result.bytes);
    return { kind: "changed", form: result.form, method: result.method, length: result.bytes.length };
  });
}

/** The result of job `index`, in the batch's memory. */
export function viewResult(memory: SharedArrayBuffer, index: number, result: SharedResult): PatchResult {
  if (result.kind !== "changed") return result;
  const { id, bytes, content } = slotOf(memory, index);
  return { ...result, id, bytes: bytes.subarray(0, result.length), content };
}

function slotOf(
  memory: SharedArrayBuffer,
  index: number,
): { readonly id: Uint8Array; readonly content: Uint8Array; readonly bytes: Uint8Array } {
  const at = inputBytes + index * slotBytes;
  return {
    content: new Uint8Array(memory, at, blockBytes),
    bytes: new Uint8Array(memory, at + blockBytes, blockBytes),
    id: new Uint8Array(memory, at + 2 * blockBytes, digestBytes),
  };
}
