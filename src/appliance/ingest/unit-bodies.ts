// Reads the bodies of ids, blocks and granules frames: sizes and order checked, nothing trusted; the vault checks digests.

import { zstdDecompressSync } from "node:zlib";
import { blocksPerFrameMax, FrameError, granulesPerFrameMax, payloadMethods, type Frame } from "../../contract/agent-frames.ts";
import { blockBytes, digestBytes, granuleBytes } from "../../disk/geometry.ts";

export interface IdsBody {
  readonly diskIndex: number;
  readonly firstBlock: number;
  /** Own copies; they may be kept. */
  readonly ids: readonly Uint8Array[];
}

export interface BlockPayload {
  readonly block: number;
  /** As they came, in the frame's memory: 64 KiB, or one zstd frame that nobody has unpacked yet. */
  readonly bytes: Uint8Array;
  readonly packing: "raw" | "zstd";
}

export interface BlocksBody {
  readonly diskIndex: number;
  readonly blocks: readonly BlockPayload[];
}

export interface GranulesBody {
  readonly diskIndex: number;
  readonly granules: readonly number[];
  /** As they came, in the frame's memory: 4 KiB for each granule, or one zstd frame of all that nobody has unpacked yet. */
  readonly bytes: Uint8Array;
  readonly packing: "raw" | "zstd";
  /** What the plain bytes must have. */
  readonly digest: Uint8Array;
}

export function readIdsBody(frame: Frame): IdsBody {
  const { body, count } = frame;
  if (count < 1 || count > blocksPerFrameMax) throw new FrameError(`ids frame of ${count} ids`);
  if (body.length !== 8 + count * digestBytes) throw new FrameError("ids frame of a wrong size");
  const view = viewOf(body);
  const kept = body.slice(8);
  const ids = Array.from({ length: count }, (_, index) => kept.subarray(index * digestBytes, (index + 1) * digestBytes));
  return { diskIndex: view.getUint32(0), firstBlock: view.getUint32(4), ids };
}

export function readBlocksBody(frame: Frame): BlocksBody {
  const { body, count } = frame;
  if (count < 1 || count > blocksPerFrameMax) throw new FrameError(`blocks frame of ${count} blocks`);
  if (body.length < 4) throw new FrameError("blocks frame without a disk");
  const view = viewOf(body);
  const blocks: BlockPayload[] = [];
  let offset = 4;
  for (let index = 0; index < count; index++) {
    if (body.length - offset < 9) throw new FrameError("blocks frame is cut");
    const block = view.getUint32(offset);
    const payloadLength = view.getUint32(offset + 4);
    const method = view.getUint8(offset + 8);
    offset += 9;
    if (payloadLength > body.length - offset) throw new FrameError("blocks frame is cut");
    const packing = packingOf(method);
    if (packing === "raw" && payloadLength !== blockBytes) throw wrongSize(payloadLength, blockBytes);
    blocks.push({ block, bytes: body.subarray(offset, offset + payloadLength), packing });
    offset += payloadLength;
  }
  if (offset !== body.length) throw new FrameError("blocks frame with bytes left over");
  return { diskIndex: view.getUint32(0), blocks };
}

export function readGranulesBody(frame: Frame): GranulesBody {
  const { body, count } = frame;
  if (count < 1 || count > granulesPerFrameMax) throw new FrameError(`granules frame of ${count} granules`);
  const payloadOffset = 8 + count * 4 + digestBytes;
  if (body.length < payloadOffset) throw new FrameError("granules frame is cut");
  const view = viewOf(body);
  if (view.getUint8(5) !== 0 || view.getUint16(6) !== 0) throw new FrameError("reserved granules bytes are not zero");
  const granules: number[] = [];
  for (let index = 0; index < count; index++) {
    const granule = view.getUint32(8 + index * 4);
    if (index > 0 && granule <= (granules[index - 1] ?? 0)) throw new FrameError("granules are not in rising order");
    granules.push(granule);
  }
  const packing = packingOf(view.getUint8(4));
  const bytes = body.subarray(payloadOffset);
  if (packing === "raw" && bytes.length !== count * granuleBytes) throw wrongSize(bytes.length, count * granuleBytes);
  const digest = Uint8Array.from(body.subarray(payloadOffset - digestBytes, payloadOffset));
  return { diskIndex: view.getUint32(0), granules, bytes, packing, digest };
}

/** The last of the plain granules. */
export function unpackLastGranule({ granules, bytes, packing }: GranulesBody): Uint8Array {
  const method = packing === "zstd" ? payloadMethods.zstd : payloadMethods.raw;
  return unpack(method, bytes, granules.length * granuleBytes).subarray(-granuleBytes);
}

/** The plain 64 KiB of a block's payload. */
export function unpackBlock({ bytes, packing }: BlockPayload): Uint8Array {
  return unpack(packing === "zstd" ? payloadMethods.zstd : payloadMethods.raw, bytes, blockBytes);
}

function unpack(method: number, payload: Uint8Array, sizeBytes: number): Uint8Array {
  const bytes = packingOf(method) === "zstd" ? decompress(payload, sizeBytes) : payload;
  if (bytes.length !== sizeBytes) throw wrongSize(bytes.length, sizeBytes);
  return bytes;
}

function packingOf(method: number): "raw" | "zstd" {
  if (method === payloadMethods.zstd) return "zstd";
  if (method === payloadMethods.raw) return "raw";
  throw new FrameError(`unknown payload method ${method}`);
}

function wrongSize(byteCount: number, sizeBytes: number): FrameError {
  return new FrameError(`payload of ${byteCount} bytes where ${sizeBytes} belong`);
}

function decompress(payload: Uint8Array, sizeBytes: number): Uint8Array {
  try {
    return zstdDecompressSync(payload, { maxOutputLength: sizeBytes });
  } catch (error) {
    throw new FrameError(`payload does not decompress: ${error instanceof Error ? error.message : "unreadable"}`);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
