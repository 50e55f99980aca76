// Words of the NBD protocol: constants of proto.md and the encoding of replies. Pure, big-endian, nothing waits here.

export const handshakeMagic = Buffer.from("NBDMAGICIHAVEOPT", "latin1");
export const optionMagic = 0x4948_4156_454f_5054n;
const optionReplyMagic = 0x0003_e889_0455_65a9n;
const requestMagic = 0x2560_9513;
const simpleReplyMagic = 0x6744_6698;
const structuredReplyMagic = 0x668e_33ef;

export const handshakeFlags = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const options = {
  exportName: 1,
  abort: 2,
  list: 3,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;

export const optionReplies = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x8000_0001,
  policy: 0x8000_0002,
  invalid: 0x8000_0003,
  unknown: 0x8000_0006,
  tooBig: 0x8000_0009,
} as const;

export const infos = { export: 0, blockSize: 3 } as const;

export const exportFlags = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendFua: 8,
  sendTrim: 32,
  sendWriteZeroes: 64,
  sendDontFragment: 128,
  canMultiConnect: 256,
} as const;

export const commands = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6, blockStatus: 7 } as const;
export const commandFlags = { forceUnitAccess: 1, noHole: 2, dontFragment: 4, requestOne: 8 } as const;
export const chunks = { none: 0, offsetData: 1, offsetHole: 2, blockStatus: 5, error: 0x8001 } as const;
const chunkDone = 1;

/** Error numbers that proto.md allows in replies. */
export const errors = { notPermitted: 1, io: 5, invalid: 22, noSpace: 28, overflow: 75, shutdown: 108 } as const;
export type ErrorNumber = (typeof errors)[keyof typeof errors];

export const allocationContext = "base:allocation";
export const allocationContextId = 1;
export const allocationStates = { data: 0, holeOfZeros: 3 } as const;

export const requestHeaderBytes = 28;
export const optionHeaderBytes = 16;

export interface Request {
  readonly flags: number;
  readonly command: number;
  /** The client's mark, echoed as it came. */
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly lengthBytes: number;
}

/** undefined when the magic is wrong: the stream is out of step and must be closed. */
export function parseRequest(header: Buffer): Request | undefined {
  if (header.readUInt32BE(0) !== requestMagic) return undefined;
  return {
    flags: header.readUInt16BE(4),
    command: header.readUInt16BE(6),
    cookie: header.readBigUInt64BE(8),
    offset: header.readBigUInt64BE(16),
    lengthBytes: header.readUInt32BE(24),
  };
}

export function encodeRequest(request: Request): Buffer {
  const header = Buffer.alloc(requestHeaderBytes);
  header.writeUInt32BE(requestMagic, 0);
  header.writeUInt16BE(request.flags, 4);
  header.writeUInt16BE(request.command, 6);
  header.writeBigUInt64BE(request.cookie, 8);
  header.writeBigUInt64BE(request.offset, 16);
  header.writeUInt32BE(request.lengthBytes, 24);
  return header;
}

export function encodeOptionReply(option: number, reply: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(20);
  header.writeBigUInt64BE(optionReplyMagic, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(reply, 12);
  header.writeUInt32BE(data.length, 16);
  return Buffer.concat([header, data]);
}

export function encodeSimpleReply(cookie: bigint, error: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32BE(simpleReplyMagic, 0);
  header.writeUInt32BE(error, 4);
  header.writeBigUInt64BE(cookie, 8);
  return header;
}

/** Header of one chunk with the fixed part of its payload; `dataBytes` more follow it on the wire. */
export function encodeChunk(cookie: bigint, chunk: { type: number; isLast: boolean; fixed: Buffer; dataBytes: number }): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt32BE(structuredReplyMagic, 0);
  header.writeUInt16BE(chunk.isLast ? chunkDone : 0, 4);
  header.writeUInt16BE(chunk.type, 6);
  header.writeBigUInt64BE(cookie, 8);
  header.writeUInt32BE(chunk.fixed.length + chunk.dataBytes, 16);
  return Buffer.concat([header, chunk.fixed]);
}

export function encodeOffset(offset: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(offset));
  return bytes;
}

export function encodeHole(offset: number, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeBigUInt64BE(BigInt(offset));
  bytes.writeUInt32BE(lengthBytes, 8);
  return bytes;
}

/** Payload of an error chunk: the number and a short text for the client's log. */
export function encodeErrorPayload(error: number, text: string): Buffer {
  const message = Buffer.from(text.slice(0, 200));
  const bytes = Buffer.alloc(6 + message.length);
  bytes.writeUInt32BE(error, 0);
  bytes.writeUInt16BE(message.length, 4);
  message.copy(bytes, 6);
  return bytes;
}
