// Digests of granules by the OpenSSL inside the node program: several lanes of SHA-256 at once where its code for that is there.

import { hash } from "node:crypto";
import { isAllZero } from "./digest.ts";
import { digestBytes, granuleBytes, granulesPerBlock } from "./geometry.ts";

/** Writes the digest of each granule in the first bytes to the start of the second; zeros for a granule of zeros. */
export type DigestGranules = (granules: Uint8Array, into: Uint8Array) => void;

type Ffi = NonNullable<ReturnType<typeof loadFfi>>;

/** The quickest way that this program has and that answers as the public call does; undefined when it has none. */
export function nativeDigest(): DigestGranules | undefined {
  const ffi = loadFfi();
  if (ffi === undefined) return undefined;
  const single = tried(() => singleDigest(ffi));
  const several = single === undefined ? undefined : tried(() => laneDigest(ffi, single));
  return several ?? single;
}

function loadFfi() {
  return process.getBuiltinModule("node:ffi");
}

/** Undefined where a build does not export what it needs, or the result is not what it must be. */
function tried(make: () => DigestGranules): DigestGranules | undefined {
  try {
    const native = make();
    return passesSelfTest(native) ? native : undefined;
  } catch {
    return undefined;
  }
}

/** SHA-256 of a row of digests into the 32 bytes of the second, without a new object; undefined as above. */
export function nativeRowDigest(): ((row: Uint8Array, into: Uint8Array) => void) | undefined {
  const ffi = loadFfi();
  if (ffi === undefined) return undefined;
  try {
    const { SHA256: sha256 } = ffi.dlopen(null, { SHA256: { arguments: ["pointer", "u64", "pointer"], return: "pointer" } }).functions;
    const sample = Buffer.alloc(granulesPerBlock * digestBytes, "a row");
    const answer = Buffer.alloc(digestBytes);
    const digest = (row: Uint8Array, into: Uint8Array): void =>
      void sha256(ffi.getRawPointer(row), BigInt(row.length), ffi.getRawPointer(into));
    digest(sample, answer);
    return answer.equals(hash("sha256", sample, "buffer")) ? digest : undefined;
  } catch {
    return undefined;
  }
}

/** One granule after the other, without a new object for each. */
function singleDigest(ffi: Ffi): DigestGranules {
  const { SHA256: sha256 } = ffi.dlopen(null, { SHA256: { arguments: ["pointer", "u64", "pointer"], return: "pointer" } }).functions;
  return (bytes, into) => {
    const [from, target] = [ffi.getRawPointer(bytes), ffi.getRawPointer(into)];
    for (let at = 0, to = 0; at < bytes.length; at += granuleBytes, to += digestBytes)
      if (isZeroGranule(bytes, at)) into.fill(0, to, to + digestBytes);
      else sha256(from + BigInt(at), BigInt(granuleBytes), target + BigInt(to));
  };
}

const lanesMax = 8;
const fewLanes = 4;
const wordsPerDigest = digestBytes / 4;
const chunkBytes = 64;
/** Address and count of chunks. */
const laneBytes = 16;
/** FIPS 180-4, 5.3.3: the state before the first chunk. */
const firstState = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19] as const;

/**
 * OpenSSL's code for many TLS records at once: two lanes share a processor's SHA unit, or eight its vectors, and take half the time of one
 * after the other. It works on whole chunks of 64 bytes: words of the state lie lane by lane, and a second call adds the padding.
 */
function laneDigest(ffi: Ffi, single: DigestGranules): DigestGranules {
  const { sha256_multi_block: addChunks } = ffi.dlopen(null, {
    sha256_multi_block: { arguments: ["pointer", "pointer", "i32"], return: "void" },
  }).functions;
  const fresh = new Uint32Array(wordsPerDigest * lanesMax);
  for (const [word, value] of firstState.entries()) fresh.fill(value, word * lanesMax, (word + 1) * lanesMax);
  // One memory for all that is told by address: while one view of it is used below, none of it is given back.
  const memory = new ArrayBuffer(fresh.byteLength + 2 * lanesMax * laneBytes + chunkBytes);
  const state = new Uint32Array(memory, 0, fresh.length);
  const lanes = new BigUint64Array(memory, fresh.byteLength, 2 * lanesMax);
  const ends = new BigUint64Array(memory, fresh.byteLength + lanesMax * laneBytes, 2 * lanesMax);
  const padding = Buffer.from(memory, memory.byteLength - chunkBytes);
  padding[0] = 0x80;
  padding.writeBigUInt64BE(BigInt(granuleBytes * 8), chunkBytes - 8);
  const [stateAt, lanesAt, endsAt] = [ffi.getRawPointer(state), ffi.getRawPointer(lanes), ffi.getRawPointer(ends)];
  for (let lane = 0; lane < lanesMax; lane++) {
    lanes[lane * 2 + 1] = BigInt(granuleBytes / chunkBytes);
    ends.set([ffi.getRawPointer(padding), 1n], lane * 2);
  }
  const wanted = new Uint32Array(granulesPerBlock);

  /** Digests `count` of the wanted granules from `first` on; lanes without one repeat the first. */
  const run = (from: bigint, first: number, count: number, into: DataView): void => {
    const laneCount = count > fewLanes ? lanesMax : fewLanes;
    for (let lane = 0; lane < laneCount; lane++)
      lanes[lane * 2] = from + BigInt((wanted[first + (lane < count ? lane : 0)] ?? 0) * granuleBytes);
    state.set(fresh);
    addChunks(stateAt, lanesAt, laneCount / fewLanes);
    addChunks(stateAt, endsAt, laneCount / fewLanes);
    for (let lane = 0; lane < count; lane++) {
      const to = (wanted[first + lane] ?? 0) * digestBytes;
      for (let word = 0; word < wordsPerDigest; word++) into.setUint32(to + word * 4, state[word * lanesMax + lane] ?? 0);
    }
  };

  return (bytes, into) => {
    let count = 0;
    for (let at = 0, to = 0; at < bytes.length; at += granuleBytes, to += digestBytes)
      if (isZeroGranule(bytes, at)) into.fill(0, to, to + digestBytes);
      else wanted[count++] = at / granuleBytes;
    const from = ffi.getRawPointer(bytes);
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    let done = 0;
    for (; count - done >= lanesMax; done += lanesMax) run(from, done, lanesMax, view);
    for (; count - done >= fewLanes - 1; done += fewLanes) run(from, done, Math.min(fewLanes, count - done), view);
    for (; done < count; done++) {
      const index = wanted[done] ?? 0;
      const granule = bytes.subarray(index * granuleBytes, (index + 1) * granuleBytes);
      single(granule, into.subarray(index * digestBytes, (index + 1) * digestBytes));
    }
  };
}

/** Most granules show at their first byte that they are not zero. */
function isZeroGranule(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0 && isAllZero(bytes.subarray(at, at + granuleBytes));
}

/** Every count of granules, with a zero one in each place, must give what the public call gives. */
function passesSelfTest(native: DigestGranules): boolean {
  const granules = Buffer.alloc(granulesPerBlock * granuleBytes);
  const expected = Buffer.alloc(granulesPerBlock * digestBytes);
  for (let index = 0; index < granulesPerBlock; index++) {
    const granule = granules.subarray(index * granuleBytes, (index + 1) * granuleBytes).fill(`granule ${index * 7} with something in it`);
    expected.set(hash("sha256", granule, "buffer"), index * digestBytes);
  }
  const isRight = (count: number): boolean => {
    const digests = Buffer.alloc(count * digestBytes, 1);
    native(granules.subarray(0, count * granuleBytes), digests);
    return digests.equals(expected.subarray(0, count * digestBytes));
  };
  for (let count = 1; count <= granulesPerBlock; count++) if (!isRight(count)) return false;
  for (let index = 0; index < granulesPerBlock; index++) {
    granules.fill(0, index * granuleBytes, (index + 1) * granuleBytes);
    expected.fill(0, index * digestBytes, (index + 1) * digestBytes);
    if (!isRight(granulesPerBlock)) return false;
  }
  return true;
}
