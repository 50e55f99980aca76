// Opens, unpacks and checks full entries of one pack into memory of their reader: the same work in this thread and in others.

import { assert } from "../base/assert.ts";
import { equalBytes } from "../disk/digest.ts";
import { blockBytes, digestBytes } from "../disk/geometry.ts";
import type { StoreKey } from "../store/store.ts";
import { contentIdOf, kindSizes, type EntryKind } from "./patch.ts";
import { createObjectSealer, type ObjectSealer, type SealHead, type VaultSecret } from "./sealing.ts";
import { unpackInto } from "./unpack.ts";

/** Numbers of one entry in OpenJob.places. */
export const openPlace = { at: 0, length: 1, packOffset: 2, isPacked: 3, into: 4, count: 5 } as const;

/** Plain values over shared memory, so that it can travel to a thread without a copy. */
export interface OpenJob {
  readonly kind: EntryKind;
  /** Holds the sealed entries, as they stand in the pack. */
  readonly sealed: Uint8Array;
  /** openPlace.count numbers an entry. */
  readonly places: Uint32Array;
  /** 32 bytes an entry: what its content must have as digest. */
  readonly ids: Uint8Array;
  /** Gets the contents. After a failure it holds anything. */
  readonly into: Uint8Array;
  readonly secret: VaultSecret;
  readonly packKey: StoreKey;
  readonly sealHead: SealHead;
}

export interface OpenFailure {
  readonly index: number;
  readonly finding: "seal" | "frame" | "digest";
}

/** Gets each frame before it is unpacked: no frame that is stored is as large as a block. */
const frame = Buffer.allocUnsafeSlow(blockBytes);

/** Keys are derived once for each pack that is read often. */
const sealersMax = 64;
const sealers = new Map<
  StoreKey,
  { readonly sealer: ObjectSealer; readonly vaultKey: Uint8Array | undefined; readonly salt: Uint8Array }
>();

/** Answers the first entry that is not what it should be; undefined when all are in `into`. */
export function openEntries(job: OpenJob): OpenFailure | undefined {
  const { sealed, places, ids, into } = job;
  const { contentBytes } = kindSizes[job.kind];
  const sealer = sealerOf(job);
  for (let index = 0; index < places.length / openPlace.count; index++) {
    const [at = 0, length = 0, packOffset = 0, isPacked = 0, target = 0] = places.subarray(index * openPlace.count);
    const content = into.subarray(target, target + contentBytes);
    const entry = { sealed: sealed.subarray(at, at + length), offset: packOffset, isPacked: isPacked === 1 };
    const failure = openEntryInto(sealer, entry, content);
    if (failure !== undefined) return { index, finding: failure };
    if (!equalBytes(contentIdOf(job.kind, content), ids.subarray(index * digestBytes, (index + 1) * digestBytes)))
      return { index, finding: "digest" };
  }
  return undefined;
}

/** Opens and unpacks one entry, whose plain bytes fill `into`; they are not checked against a digest. After a failure it holds anything. */
export function openEntryInto(
  sealer: ObjectSealer,
  { sealed, offset, isPacked }: { readonly sealed: Uint8Array; readonly offset: number; readonly isPacked: boolean },
  into: Uint8Array,
): "seal" | "frame" | undefined {
  const plainBytes = sealer.openInto("entry", sealed, offset, isPacked ? frame : into);
  if (plainBytes === undefined) return "seal";
  const isRight = isPacked ? unpackInto(frame.subarray(0, plainBytes), into) : plainBytes === into.length;
  return isRight ? undefined : "frame";
}

/** What opens the entries of a pack; remembered for a while. */
function sealerOf({ secret, packKey, sealHead }: Pick<OpenJob, "secret" | "packKey" | "sealHead">): ObjectSealer {
  const vaultKey = secret.keys.get(sealHead.generation);
  const present = sealers.get(packKey);
  const isSame = present?.vaultKey !== undefined && vaultKey !== undefined && equalBytes(present.vaultKey, vaultKey);
  if (isSame && equalBytes(present.salt, sealHead.salt)) return present.sealer;
  const sealer = createObjectSealer(secret, packKey, sealHead);
  assert(sealer !== undefined, "who asks has opened the pack with this key");
  for (const oldest of sealers.keys()) {
    if (sealers.size < sealersMax) break;
    sealers.delete(oldest);
  }
  sealers.set(packKey, { sealer, vaultKey, salt: sealHead.salt });
  return sealer;
}
