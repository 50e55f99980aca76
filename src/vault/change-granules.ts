// Turns changed granules, as they came from their sender, into entries: unpack, digest, patch, pack. The same work in this thread and in others.

import { hash } from "node:crypto";
import { assert } from "../base/assert.ts";
import { digestGranules, digestRowBytes, rowIdOf } from "../disk/block-id.ts";
import { equalBytes, isZeroId } from "../disk/digest.ts";
import { blockBytes, digestBytes, granuleBytes, granulesPerBlock } from "../disk/geometry.ts";
import { encodePatch, kindSizes, type ChangedGranule } from "./patch.ts";
import { compressEntry, decompressLarge } from "./zstd.ts";

/** Granules and blocks of one job at most; then `out` is large enough. */
export const changedGranulesMax = 256;
/** Ids, rows, then bytes: a block that is stored full has hardly more bytes than its granules, or all of them came. */
export const changeOutBytes = changedGranulesMax * (digestBytes + digestRowBytes + digestBytes + 2 + granuleBytes) + blockBytes;

/** Numbers of one block in ChangeJob.blocks: its first granule's place in the body, how many, and the forms that it may be stored in. */
export const changeBlock = { first: 0, granuleCount: 1, forms: 2, count: 3 } as const;
/** full: granules that did not come are zeros. patch: they are those of its base. either: all came, and the smaller form is taken. */
export const changeForms = { full: 0, patch: 1, either: 2 } as const;
/** Numbers of one block in the answer. `mask` has a bit for each granule that changed. */
export const changeResult = { outcome: 0, at: 1, length: 2, isPacked: 3, mask: 4, count: 5 } as const;
export const changeOutcomes = { same: 0, zero: 1, full: 2, patch: 3 } as const;

/** Plain values over shared memory, so that it can travel to a thread without a copy. */
export interface ChangeJob {
  /** All granules, 4 KiB each, or one zstd frame of them. */
  readonly body: Uint8Array;
  readonly isPacked: boolean;
  readonly granuleCount: number;
  /** SHA-256 of the plain granules, where their sender told it. */
  readonly digest: Uint8Array | undefined;
  /** changeBlock.count numbers a block. */
  readonly blocks: Uint32Array;
  /** For each granule, which one of its block it is. */
  readonly indexes: Uint8Array;
  /** For each block the row of what it stands on, zeros for none. */
  readonly rows: Uint8Array;
  /** 32 bytes a block. */
  readonly baseIds: Uint8Array;
  /** changeOutBytes. */
  readonly out: Uint8Array;
}

/** Undefined: the granules do not unpack, or do not have their digest. */
export type ChangeAnswer = Uint32Array | undefined;

export function changeGranules(job: ChangeJob): ChangeAnswer {
  const plainBytes = job.granuleCount * granuleBytes;
  const plain = job.isPacked ? decompressLarge(job.body, plainBytes) : job.body;
  if (plain?.length !== plainBytes) return undefined;
  if (job.digest !== undefined && !equalBytes(hash("sha256", plain, "buffer"), job.digest)) return undefined;
  const blockCount = job.blocks.length / changeBlock.count;
  const answer = new Uint32Array(blockCount * changeResult.count);
  let used = changedGranulesMax * (digestBytes + digestRowBytes);
  for (let index = 0; index < blockCount; index++) {
    const changed = changeOne(job, plain, index);
    const [outcome, bytes, mask] = [changed.outcome, changed.bytes ?? new Uint8Array(0), changed.mask];
    const packed = bytes.length === 0 ? undefined : compressEntry(bytes);
    job.out.set(packed ?? bytes, used);
    const length = (packed ?? bytes).length;
    answer.set([outcome, used, length, packed === undefined ? 0 : 1, mask], index * changeResult.count);
    used += length;
  }
  return answer;
}

/** Where the answer has the new id and the new row of a block, in `out`. */
export function changedIdAt(out: Uint8Array, index: number): Uint8Array {
  return out.subarray(index * digestBytes, (index + 1) * digestBytes);
}
export function changedRowAt(out: Uint8Array, index: number): Uint8Array {
  const at = changedGranulesMax * digestBytes + index * digestRowBytes;
  return out.subarray(at, at + digestRowBytes);
}

interface Changed {
  readonly outcome: number;
  readonly mask: number;
  readonly bytes?: Uint8Array;
}

const content = Buffer.alloc(blockBytes);
const digest = Buffer.alloc(digestBytes);

function changeOne(job: ChangeJob, plain: Uint8Array, index: number): Changed {
  const [first = 0, granuleCount = 0, forms = 0] = job.blocks.subarray(index * changeBlock.count);
  const row = changedRowAt(job.out, index);
  row.set(job.rows.subarray(index * digestRowBytes, (index + 1) * digestRowBytes));
  const changed: ChangedGranule[] = [];
  let mask = 0;
  for (let slot = first; slot < first + granuleCount; slot++) {
    const granule = job.indexes[slot] ?? 0;
    const bytes = plain.subarray(slot * granuleBytes, (slot + 1) * granuleBytes);
    digestGranules(bytes, digest);
    const before = row.subarray(granule * digestBytes, (granule + 1) * digestBytes);
    if (equalBytes(before, digest)) continue;
    before.set(digest);
    mask |= 1 << granule;
    changed.push({ index: granule, bytes });
  }
  const id = changedIdAt(job.out, index);
  id.set(rowIdOf(row));
  if (changed.length === 0) return { outcome: changeOutcomes.same, mask };
  if (isZeroId(id)) return { outcome: changeOutcomes.zero, mask };
  const baseId = job.baseIds.subarray(index * digestBytes, (index + 1) * digestBytes);
  const patch = forms === changeForms.full ? undefined : encodePatch("block", baseId, changed);
  if (patch !== undefined) return { outcome: changeOutcomes.patch, mask, bytes: patch };
  assert(forms !== changeForms.patch, "a block that may only be a patch has few enough granules");
  content.fill(0);
  for (let slot = first; slot < first + granuleCount; slot++)
    content.set(plain.subarray(slot * granuleBytes, (slot + 1) * granuleBytes), (job.indexes[slot] ?? 0) * granuleBytes);
  return { outcome: changeOutcomes.full, mask, bytes: content };
}

/** Forms that a block may get without a look at the content of what it stands on; undefined when that content is needed. */
export function formsUnseen(granuleCount: number, base: "zero" | "patchable" | "other"): number | undefined {
  if (base === "zero") return changeForms.full;
  if (granuleCount === granulesPerBlock) return base === "patchable" ? changeForms.either : changeForms.full;
  return base === "patchable" && granuleCount <= kindSizes.block.granulesMax ? changeForms.patch : undefined;
}
