// Checks blocks as they came from their sender and seals them into a pack's memory: the same work in this thread and in others.

import { blockIdOf } from "../disk/block-id.ts";
import { equalBytes } from "../disk/digest.ts";
import { blockBytes, digestBytes } from "../disk/geometry.ts";
import type { StoreKey } from "../store/store.ts";
import { createNewSealer, type ObjectSealer, type SealHead, type VaultSecret } from "./sealing.ts";
import { viewFrame } from "./zstd.ts";

/** Numbers of one block in FillJob.places. */
export const fillPlace = { at: 0, length: 1, isPacked: 2, packOffset: 3, count: 4 } as const;
/** Instead of an offset: the block is checked and not stored, because the vault has it. */
export const checkOnly = 0xffff_ffff;

/** Plain values over shared memory, so that it can travel to a thread without a copy. */
export interface FillJob {
  /** Holds the bytes of all blocks. */
  readonly body: Uint8Array;
  /** fillPlace.count numbers a block. */
  readonly places: Uint32Array;
  /** 32 bytes a block. */
  readonly ids: Uint8Array;
  readonly pack: Uint8Array;
  readonly secret: VaultSecret;
  readonly packKey: StoreKey;
  readonly sealHead: SealHead;
}

let lastSealer: { readonly packKey: StoreKey; readonly sealer: ObjectSealer } | undefined;

/** Answers the index of the first block whose bytes do not fit its id; -1 when all do. */
export function fillPack(job: FillJob): number {
  const { body, places, ids, pack } = job;
  const sealer = sealerOf(job);
  for (let index = 0; index < places.length / fillPlace.count; index++) {
    const [at = 0, length = 0, isPacked = 0, packOffset = checkOnly] = places.subarray(index * fillPlace.count);
    const bytes = body.subarray(at, at + length);
    const content = isPacked === 1 ? viewFrame(bytes, blockBytes) : bytes;
    const id = ids.subarray(index * digestBytes, (index + 1) * digestBytes);
    if (content?.length !== blockBytes || !equalBytes(blockIdOf(content), id)) return index;
    if (packOffset !== checkOnly) sealer.seal("entry", bytes, pack, packOffset);
  }
  return -1;
}

function sealerOf({ secret, packKey, sealHead }: FillJob): ObjectSealer {
  if (lastSealer?.packKey !== packKey) lastSealer = { packKey, sealer: createNewSealer(secret, packKey, sealHead) };
  return lastSealer.sealer;
}
