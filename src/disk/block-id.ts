// Ids of blocks: SHA-256 over the digests of their 16 granules, so that a granule can be proved or changed without the other fifteen.

import { hash } from "node:crypto";
import { assert } from "../base/assert.ts";
import { idOf, isAllZero, zeroId } from "./digest.ts";
import { blockBytes, digestBytes, granuleBytes, granulesPerBlock } from "./geometry.ts";

/** 32 bytes for each granule. */
const digestRowBytes = granulesPerBlock * digestBytes;

const row = Buffer.alloc(digestRowBytes);

/** Id of a whole block; 32 zero bytes when all of it is zero. The caller pads a short last block with zeros first. */
export function blockIdOf(block: Uint8Array): Uint8Array {
  if (isAllZero(block)) return zeroId;
  digestGranules(block, row);
  return idOf(row);
}

/** Writes the digests of the granules in `bytes`, whole ones, to the start of `into`. */
export function digestGranules(bytes: Uint8Array, into: Uint8Array): void {
  assert(bytes.length % granuleBytes === 0 && bytes.length <= blockBytes, "granules of one block are digested");
  assert(into.length >= (bytes.length / granuleBytes) * digestBytes, "there is room for a digest of each granule");
  digest ??= nativeDigest() ?? publicDigest;
  digest(bytes, into);
}

type DigestGranules = (granules: Uint8Array, into: Uint8Array) => void;

let digest: DigestGranules | undefined;

const publicDigest: DigestGranules = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += granuleBytes, to += digestBytes)
    into.set(idOf(bytes.subarray(at, at + granuleBytes)), to);
};

/**
 * SHA256 of the OpenSSL inside the node program, without a new object for each granule: sixteen small digests then cost a quarter more than
 * a large one, where the public call makes it six tenths. Undefined where a build does not export it or answers otherwise than the public call.
 */
function nativeDigest(): DigestGranules | undefined {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined) return undefined;
  try {
    const { SHA256: sha256 } = ffi.dlopen(null, { SHA256: { arguments: ["pointer", "u64", "pointer"], return: "pointer" } }).functions;
    const native: DigestGranules = (bytes, into) => {
      const [from, target] = [ffi.getRawPointer(bytes), ffi.getRawPointer(into)];
      for (let at = 0, to = 0; at < bytes.length; at += granuleBytes, to += digestBytes)
        // Most granules show at their first byte that they are not zero.
        if (bytes[at] === 0 && isAllZero(bytes.subarray(at, at + granuleBytes))) into.fill(0, to, to + digestBytes);
        else sha256(from + BigInt(at), BigInt(granuleBytes), target + BigInt(to));
    };
    return passesSelfTest(native) ? native : undefined;
  } catch {
    return undefined; // No FFI here, or a node that keeps its OpenSSL elsewhere.
  }
}

function passesSelfTest(native: DigestGranules): boolean {
  const granules = Buffer.alloc(3 * granuleBytes, "a granule with something in it");
  granules.fill(0, granuleBytes, 2 * granuleBytes);
  const digests = Buffer.alloc(3 * digestBytes, 1);
  native(granules, digests);
  const expected = hash("sha256", granules.subarray(0, granuleBytes), "buffer");
  return digests.equals(
    Buffer.concat([expected, Buffer.alloc(digestBytes), hash("sha256", granules.subarray(2 * granuleBytes), "buffer")]),
  );
}
