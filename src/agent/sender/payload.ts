// Compression of what is sent: zstd level 1, or raw where that saves less than 3 %.

import { constants, zstdCompressSync } from "node:zlib";
import { payloadMethods } from "../../contract/agent-frames.ts";

export interface Payload {
  readonly method: number;
  readonly bytes: Uint8Array;
}

const options = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

export function compressPayload(raw: Uint8Array): Payload {
  const packed = zstdCompressSync(raw, options);
  return packed.length < raw.length - (raw.length >> 5) ? { method: payloadMethods.zstd, bytes: packed } : { method: payloadMethods.raw, bytes: raw };
}
