// Ids of blocks: SHA-256 over the digests of their 16 granules, so that a granule can be proved or changed without the other fifteen.

import { hash } from "node:crypto";
import { assert } from "../base/assert.ts";
import { idOf, isAllZero, zeroId } from "./digest.ts";
import { blockBytes, digestBytes, granuleBytes, granulesPerBlock } from "./geometry.ts";
import { nativeDigest, nativeRowDigest, type DigestGranules } from "./native-digest.ts";

/** A row of digests: 32 bytes for each granule of a block in order, zeros for a granule of zeros. The digest of the row is the id. */
export const digestRowBytes = granulesPerBlock * digestBytes;

const row = Buffer.alloc(digestRowBytes);

/** Id of a whole block; 32 zero bytes when all of it is zero. The caller pads a short last block with zeros first. */
export function blockIdOf(block: Uint8Array): Uint8Array {
  if (isAllZero(block)) return zeroId;
  digestGranules(block, row);
  return rowIdOf(row);
}

/** Id of the block whose granules have these digests, in memory of its own or the zero id. */
export function rowIdOf(digests: Uint8Array): Uint8Array {
  assert(digests.length === digestRowBytes, "a row has a digest for each granule");
  if (isAllZero(digests)) return zeroId;
  rowDigest ??= nativeRowDigest() ?? ((bytes, into) => into.set(hash("sha256", bytes, "buffer")));
  const id = Buffer.allocUnsafe(digestBytes);
  rowDigest(digests, id);
  return id;
}

/** Writes the digests of the granules in `bytes`, whole ones, to the start of `into`. */
export function digestGranules(bytes: Uint8Array, into: Uint8Array): void {
  assert(bytes.length % granuleBytes === 0 && bytes.length <= blockBytes, "granules of one block are digested");
  assert(into.length >= (bytes.length / granuleBytes) * digestBytes, "there is room for a digest of each granule");
  digest ??= nativeDigest() ?? publicDigest;
  digest(bytes, into);
}

let digest: DigestGranules | undefined;
let rowDigest: ReturnType<typeof nativeRowDigest>;

const publicDigest: DigestGranules = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += granuleBytes, to += digestBytes)
    into.set(idOf(bytes.subarray(at, at + granuleBytes)), to);
};
