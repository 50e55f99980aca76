// zstd level 1 for entries: compress when it pays, decompress to at most a given size.
//
// Node's public calls make a context for each call, which costs more than the work on 64 KiB. So the context of one
// stream object is used again and again through its private handle, where a self-test finds that this works; the
// public calls are the fallback. docs/decisions/vault-representation.md has the figures.

import { constants, createZstdCompress, createZstdDecompress, zstdCompressSync, zstdDecompressSync } from "node:zlib";

const params = { [constants.ZSTD_c_compressionLevel]: 1 };
/** An entry that shrinks by less than this part stays raw. */
const savingMin = 0.03;
/** Room for what a block may grow to when it does not compress. */
const outputBytes = 80 << 10;

/** One direction of zstd. Answers bytes that are valid until its next call; undefined when the input is refused or the output too long. */
type Transform = (input: Uint8Array, outputBytesMax: number) => Uint8Array | undefined;

let compress: Transform | undefined;
let decompress: Transform | undefined;

/** One zstd frame, valid until the next call; undefined when it saves too little to be worth unpacking. */
export function compressEntry(plain: Uint8Array): Uint8Array | undefined {
  compress ??= createTransform(() => createZstdCompress({ params }), publicCompress);
  const packed = compress(plain, outputBytes);
  return packed !== undefined && paysPacked(packed.length, plain.length) ? packed : undefined;
}

/** Whether a frame is so much smaller than its content that it is stored instead. */
export function paysPacked(packedBytes: number, plainBytes: number): boolean {
  return packedBytes <= plainBytes * (1 - savingMin);
}

/** The content of a frame, in memory of its own; undefined when it is none, or unpacks to more than sizeMax bytes. */
export function decompressEntry(packed: Uint8Array, sizeMax: number): Buffer | undefined {
  const plain = viewFrame(packed, sizeMax);
  return plain === undefined ? undefined : Buffer.from(plain);
}

/** As decompressEntry, in memory that the next call overwrites: for looking, not for keeping. */
export function viewFrame(packed: Uint8Array, sizeMax: number): Uint8Array | undefined {
  decompress ??= createTransform(createZstdDecompress, publicDecompress);
  return decompress(packed, sizeMax);
}

/** As decompressEntry for what may be larger than a block. */
export function decompressLarge(packed: Uint8Array, sizeMax: number): Uint8Array | undefined {
  return publicDecompress(packed, sizeMax);
}

const publicCompress: Transform = (input) => zstdCompressSync(input, { params });

const publicDecompress: Transform = (input, outputBytesMax) => {
  try {
    return zstdDecompressSync(input, { maxOutputLength: outputBytesMax });
  } catch {
    return undefined; // Every failure here is of the bytes; the caller names the object that they came from.
  }
};

/** The part of a zlib handle that is used here. */
interface StreamHandle {
  reset(): void;
  writeSync(
    flush: number,
    input: Uint8Array,
    inputAt: number,
    inputBytes: number,
    output: Uint8Array,
    outputAt: number,
    outputBytes: number,
  ): void;
  onerror: () => void;
}

function createTransform(openStream: () => object, fallback: Transform): Transform {
  const reusing = reusingTransform(openStream);
  return reusing !== undefined && passesSelfTest(reusing, fallback) ? reusing : fallback;
}

function reusingTransform(openStream: () => object): Transform | undefined {
  const output = Buffer.allocUnsafeSlow(outputBytes);
  let opened = openHandle(openStream());
  if (opened === undefined) return undefined;
  return (input, outputBytesMax) => {
    if (opened === undefined) return fallbackless();
    const { handle, state } = opened;
    let isRefused = false;
    handle.onerror = () => (isRefused = true);
    handle.reset();
    // One byte more than allowed, so that output which is too long shows.
    const room = Math.min(outputBytesMax + 1, output.length);
    handle.writeSync(constants.ZSTD_e_end, input, 0, input.length, output, 0, room);
    const outputLeft = state[0] ?? 0;
    const inputLeft = state[1] ?? 0;
    if (isRefused) opened = openHandle(openStream()); // A context that has failed is not used again.
    return isRefused || inputLeft > 0 || room - outputLeft > outputBytesMax ? undefined : output.subarray(0, room - outputLeft);
  };
}

/** A stream that opened once and then did not: the private form changed while the program ran, which cannot be. */
function fallbackless(): never {
  throw new Error("assertion failed: a zstd stream opens again");
}

function openHandle(stream: object): { readonly handle: StreamHandle; readonly state: Uint32Array } | undefined {
  const handle: unknown = "_handle" in stream ? stream._handle : undefined;
  const state: unknown = "_writeState" in stream ? stream._writeState : undefined;
  const isKnown =
    typeof handle === "object" &&
    handle !== null &&
    "reset" in handle &&
    "writeSync" in handle &&
    "onerror" in handle &&
    state instanceof Uint32Array;
  return isKnown ? { handle: handle as StreamHandle, state } : undefined; // Proved by the members above and the self-test.
}

/** The reused context must do what the public call does: on text, on noise, after a refusal, and within its bound. */
function passesSelfTest(transform: Transform, reference: Transform): boolean {
  const text = Buffer.from("a line of text that repeats itself\n".repeat(1000));
  const noise = Buffer.from(Array.from({ length: 3000 }, (_, index) => (index * index * 31 + index * 7) % 251));
  try {
    for (const sample of [text, noise, text]) {
      const packed = zstdCompressSync(sample, { params });
      const input = reference === publicCompress ? sample : packed;
      const [own, expected] = [transform(input, outputBytes - 1), reference(input, outputBytes - 1)];
      if (own === undefined || expected === undefined) return false;
      const isRight = reference === publicCompress ? zstdDecompressSync(own).equals(sample) : Buffer.compare(own, expected) === 0;
      if (!isRight) return false;
      if (
        reference === publicDecompress &&
        (transform(noise, outputBytes - 1) !== undefined || transform(packed, sample.length - 1) !== undefined)
      )
        return false;
    }
    return true;
  } catch {
    return false; // The private form is another one in this Node: the public calls are used.
  }
}
