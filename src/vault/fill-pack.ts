// Seals entries into a pack's memory, and checks blocks as they came from their sender: the same work in this thread and in others.

import { digestGranules, digestRowBytes, rowIdOf } from "../disk/block-id.ts";
import { equalBytes } from "../disk/digest.ts";
import { blockBytes, digestBytes } from "../disk/geometry.ts";
import type { StoreKey } from "../store/store.ts";
import { createNewSealer, type ObjectSealer, type SealHead, type VaultSecret } from "./sealing.ts";
import { viewFrame } from "./zstd.ts";

/** Numbers of one entry in SealJob.places. */
export const fillPlace = { at: 0, length: 1, isPacked: 2, packOffset: 3, count: 4 } as const;
/** Instead of an offset: the block is checked and not stored, because the vault has it. */
export const checkOnly = 0xffff_ffff;

/** Plain values over shared memory, so that it can travel to a thread without a copy. */
export interface SealJob {
  /** Holds the bytes of all entries. */
  readonly body: Uint8Array;
  /** fillPlace.count numbers an entry. */
  readonly places: Uint32Array;
  readonly pack: Uint8Array;
  readonly secret: VaultSecret;
  readonly packKey: StoreKey;
  readonly sealHead: SealHead;
}

/** Blocks, which are checked before they are sealed. */
export interface FillJob extends SealJob {
  /** 32 bytes a block. */
  readonly ids: Uint8Array;
}

export interface Filled {
  /** Index of the first block whose bytes do not fit its id; -1 when all do. */
  readonly bad: number;
  /** Digests of the blocks' granules, a row each. */
  readonly rows: Uint8Array;
}

let lastSealer: { readonly packKey: StoreKey; readonly sealer: ObjectSealer } | undefined;

export function fillPack(job: FillJob): Filled {
  const { body, places, ids, pack } = job;
  const sealer = sealerOf(job);
  const rows = new Uint8Array((ids.length / digestBytes) * digestRowBytes);
  for (let index = 0; index < places.length / fillPlace.count; index++) {
    const [at = 0, length = 0, isPacked = 0, packOffset = checkOnly] = places.subarray(index * fillPlace.count);
    const bytes = body.subarray(at, at + length);
    const content = isPacked === 1 ? viewFrame(bytes, blockBytes) : bytes;
    if (content?.length !== blockBytes) return { bad: index, rows };
    const row = rows.subarray(index * digestRowBytes, (index + 1) * digestRowBytes);
    digestGranules(content, row);
    if (!equalBytes(rowIdOf(row), ids.subarray(index * digestBytes, (index + 1) * digestBytes))) return { bad: index, rows };
    if (packOffset !== checkOnly) sealer.seal("entry", bytes, pack, packOffset);
  }
  return { bad: -1, rows };
}

export function sealEntries(job: SealJob): void {
  const { body, places, pack } = job;
  const sealer = sealerOf(job);
  for (let index = 0; index < places.length / fillPlace.count; index++) {
    const [at = 0, length = 0, , packOffset = 0] = places.subarray(index * fillPlace.count);
    sealer.seal("entry", body.subarray(at, at + length), pack, packOffset);
  }
}

function sealerOf({ secret, packKey, sealHead }: SealJob): ObjectSealer {
  if (lastSealer?.packKey !== packKey) lastSealer = { packKey, sealer: createNewSealer(secret, packKey, sealHead) };
  return lastSealer.sealer;
}
