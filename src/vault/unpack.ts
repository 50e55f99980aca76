// Unpacks one zstd frame straight into its reader's memory: by the zstd inside the node program, or by way of zstd.ts and a copy.

import { zstdCompressSync } from "node:zlib";
import { viewFrame } from "./zstd.ts";

/** False unless `packed` is one frame and nothing more, of exactly as many bytes as `into` has; then `into` holds anything. */
export type UnpackInto = (packed: Uint8Array, into: Uint8Array) => boolean;

let chosen: UnpackInto | undefined;

export const unpackInto: UnpackInto = (packed, into) => (chosen ??= tryNative() ?? unpackAndCopy)(packed, into);

const unpackAndCopy: UnpackInto = (packed, into) => {
  const plain = viewFrame(packed, into.length);
  if (plain?.length !== into.length) return false;
  into.set(plain);
  return true;
};

function tryNative(): UnpackInto | undefined {
  try {
    const native = nativeUnpack();
    return native !== undefined && passesSelfTest(native) ? native : undefined;
  } catch {
    return undefined; // No FFI here, or a node that keeps its zstd elsewhere.
  }
}

function nativeUnpack(): UnpackInto | undefined {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined) return undefined;
  const calls = ffi.dlopen(null, {
    ZSTD_createDCtx: { arguments: [], return: "pointer" },
    ZSTD_findFrameCompressedSize: { arguments: ["pointer", "u64"], return: "u64" },
    ZSTD_decompressDCtx: { arguments: ["pointer", "pointer", "u64", "pointer", "u64"], return: "u64" },
  }).functions;
  // One context for the life of the thread; it may be used again after a failure, and only when no other call runs.
  const context = calls.ZSTD_createDCtx();
  if (context === 0n) return undefined;
  return (packed, into) => {
    const [from, length, room] = [ffi.getRawPointer(packed), BigInt(packed.length), BigInt(into.length)];
    // Errors are numbers larger than any length. Several frames in a row would unpack too, and are none of ours.
    if (calls.ZSTD_findFrameCompressedSize(from, length) !== length) return false;
    return calls.ZSTD_decompressDCtx(context, ffi.getRawPointer(into), room, from, length) === room;
  };
}

function passesSelfTest(unpack: UnpackInto): boolean {
  const text = Buffer.from("a line of text that repeats itself\n".repeat(1000));
  const noise = Buffer.from(Array.from({ length: 3000 }, (_, index) => (index * index * 31 + index * 7) % 251));
  for (const plain of [text, noise, text]) {
    const packed = zstdCompressSync(plain);
    const unpackTo = (bytes: Uint8Array, sizeBytes: number): Buffer | undefined => {
      // What stands behind the room must stay as it is.
      const memory = Buffer.alloc(sizeBytes + 8, 7);
      const isUnpacked = unpack(bytes, memory.subarray(0, sizeBytes));
      return memory.subarray(sizeBytes).every((byte) => byte === 7) && isUnpacked ? memory.subarray(0, sizeBytes) : undefined;
    };
    const isRefused =
      unpackTo(packed, plain.length - 1) === undefined &&
      unpackTo(packed, plain.length + 1) === undefined &&
      unpackTo(packed.subarray(0, -1), plain.length) === undefined &&
      unpackTo(plain, plain.length) === undefined &&
      unpackTo(Buffer.concat([packed, packed]), plain.length * 2) === undefined;
    if (!isRefused || unpackTo(packed, plain.length)?.equals(plain) !== true) return false;
  }
  return true;
}
