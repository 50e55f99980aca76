// The haggling before a transmission: options until the client goes, aborts or misbehaves (NBD proto.md, fixed newstyle).

import type { ByteReader } from "./byte-reader.ts";
import { blockSizes, exportNameBytesMax, optionBytesMax, optionCountMax, optionSkipBytesMax, requestBytesMax } from "./limits.ts";
import {
  allocationContext,
  allocationContextId,
  encodeOptionReply,
  handshakeFlags,
  handshakeMagic,
  infos,
  optionHeaderBytes,
  optionMagic,
  optionReplies,
  options,
} from "./protocol.ts";

/** What the handshake tells of an export. */
export interface ExportFacts {
  readonly name: string;
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
}

export type HandshakeOutcome =
  | { readonly kind: "closed"; readonly reason: string }
  | { readonly kind: "go"; readonly exportName: string; readonly isStructured: boolean; readonly hasAllocation: boolean };

export interface HandshakeOptions {
  readonly reader: ByteReader;
  readonly send: (bytes: Buffer) => Promise<void>;
  /** Asked at each option, so that exports may come and go. */
  readonly findExport: (name: string) => ExportFacts | undefined;
  readonly listExports: () => readonly string[];
}

interface Haggle extends HandshakeOptions {
  readonly sendsZeroes: boolean;
  isStructured: boolean;
  /** The export that the allocation context was agreed for. */
  allocationFor: string | undefined;
}

/** Runs the handshake. Never throws for what a client may send. */
export async function shakeHands(given: HandshakeOptions): Promise<HandshakeOutcome> {
  const serverFlags = Buffer.alloc(2);
  serverFlags.writeUInt16BE(handshakeFlags.fixedNewstyle | handshakeFlags.noZeroes);
  await given.send(Buffer.concat([handshakeMagic, serverFlags]));
  const clientFlags = (await given.reader.take(4))?.readUInt32BE(0);
  if (clientFlags === undefined) return closed("the client left before its flags");
  if ((clientFlags & handshakeFlags.fixedNewstyle) === 0 || clientFlags > 3) return closed("the client does not speak fixed newstyle");
  const haggle: Haggle = {
    ...given,
    sendsZeroes: (clientFlags & handshakeFlags.noZeroes) === 0,
    isStructured: false,
    allocationFor: undefined,
  };
  for (let count = 0; count < optionCountMax; count++) {
    const outcome = await answerOption(haggle);
    if (outcome !== undefined) return outcome;
  }
  return closed("the client sent too many options");
}

async function answerOption(haggle: Haggle): Promise<HandshakeOutcome | undefined> {
  const header = await haggle.reader.take(optionHeaderBytes);
  if (header === undefined) return closed("the client left");
  if (header.readBigUInt64BE(0) !== optionMagic) return closed("an option had a wrong magic");
  const option = header.readUInt32BE(8);
  const lengthBytes = header.readUInt32BE(12);
  if (lengthBytes > optionBytesMax) return await refuseLong(haggle, option, lengthBytes);
  const data = await haggle.reader.take(lengthBytes);
  if (data === undefined) return closed("the client left inside an option");
  switch (option) {
    case options.exportName:
      return await answerExportName(haggle, data);
    case options.abort:
      await reply(haggle, option, optionReplies.ack);
      return closed("the client aborted");
    case options.list:
      return await answerList(haggle, data);
    case options.info:
    case options.go:
      return await answerInfo(haggle, option, data);
    case options.structuredReply:
      haggle.isStructured ||= data.length === 0;
      await reply(haggle, option, data.length === 0 ? optionReplies.ack : optionReplies.invalid);
      return undefined;
    case options.listMetaContext:
    case options.setMetaContext:
      return await answerMetaContext(haggle, option, data);
    default:
      await reply(haggle, option, optionReplies.unsupported);
      return undefined;
  }
}

async function refuseLong(haggle: Haggle, option: number, lengthBytes: number): Promise<HandshakeOutcome | undefined> {
  if (option === options.exportName || lengthBytes > optionSkipBytesMax) return closed("an option was too long");
  if (!(await haggle.reader.skip(lengthBytes))) return closed("the client left inside an option");
  await reply(haggle, option, optionReplies.tooBig);
  return undefined;
}

/** The old way in, without a way to refuse: an unknown name ends the connection. */
async function answerExportName(haggle: Haggle, data: Buffer): Promise<HandshakeOutcome> {
  const found = haggle.findExport(data.toString("utf8"));
  if (found === undefined) return closed("the client asked for an unknown export");
  const answer = Buffer.alloc(haggle.sendsZeroes ? 134 : 10);
  answer.writeBigUInt64BE(BigInt(found.sizeBytes), 0);
  answer.writeUInt16BE(found.transmissionFlags, 8);
  await haggle.send(answer);
  return go(haggle, found.name);
}

async function answerList(haggle: Haggle, data: Buffer): Promise<undefined> {
  if (data.length > 0) return await reply(haggle, options.list, optionReplies.invalid);
  for (const name of haggle.listExports()) await reply(haggle, options.list, optionReplies.server, withLength(name));
  return await reply(haggle, options.list, optionReplies.ack);
}

async function answerInfo(haggle: Haggle, option: number, data: Buffer): Promise<HandshakeOutcome | undefined> {
  const name = parseInfoName(data);
  if (name === undefined) return await reply(haggle, option, optionReplies.invalid);
  const found = haggle.findExport(name);
  if (found === undefined) return await reply(haggle, option, optionReplies.unknown);
  const facts = Buffer.alloc(12);
  facts.writeUInt16BE(infos.export, 0);
  facts.writeBigUInt64BE(BigInt(found.sizeBytes), 2);
  facts.writeUInt16BE(found.transmissionFlags, 10);
  const sizes = Buffer.alloc(14);
  sizes.writeUInt16BE(infos.blockSize, 0);
  sizes.writeUInt32BE(blockSizes.minimumBytes, 2);
  sizes.writeUInt32BE(blockSizes.preferredBytes, 6);
  sizes.writeUInt32BE(requestBytesMax, 10);
  await reply(haggle, option, optionReplies.info, facts);
  await reply(haggle, option, optionReplies.info, sizes);
  await reply(haggle, option, optionReplies.ack);
  return option === options.go ? go(haggle, found.name) : undefined;
}

async function answerMetaContext(haggle: Haggle, option: number, data: Buffer): Promise<undefined> {
  const asked = parseMetaContext(data);
  if (option === options.setMetaContext) haggle.allocationFor = undefined; // A new choice replaces the earlier one, also when it fails.
  if (asked === undefined || !haggle.isStructured) return await reply(haggle, option, optionReplies.invalid);
  const found = haggle.findExport(asked.name);
  if (found === undefined) return await reply(haggle, option, optionReplies.unknown);
  const isList = option === options.listMetaContext;
  const isWanted = asked.queries.some((query) => query === allocationContext || (isList && query === "base:"));
  if (isWanted || (isList && asked.queries.length === 0)) {
    const context = Buffer.concat([Buffer.alloc(4), Buffer.from(allocationContext)]);
    context.writeUInt32BE(isList ? 0 : allocationContextId, 0);
    await reply(haggle, option, optionReplies.metaContext, context);
    if (!isList) haggle.allocationFor = found.name;
  }
  return await reply(haggle, option, optionReplies.ack);
}

/** Name of an INFO or GO request: length, name, count, that many 16-bit requests, and nothing more. */
function parseInfoName(data: Buffer): string | undefined {
  const name = cutText(data, 0);
  if (name === undefined || data.length < name.end + 2) return undefined;
  return data.length === name.end + 2 + 2 * data.readUInt16BE(name.end) ? name.text : undefined;
}

/** Name and queries of a meta context request. */
function parseMetaContext(data: Buffer): { readonly name: string; readonly queries: readonly string[] } | undefined {
  const name = cutText(data, 0);
  if (name === undefined || data.length < name.end + 4) return undefined;
  const count = data.readUInt32BE(name.end);
  const queries: string[] = [];
  let at = name.end + 4;
  while (queries.length < count) {
    const query = cutText(data, at);
    if (query === undefined) return undefined;
    queries.push(query.text);
    at = query.end;
  }
  return at === data.length ? { name: name.text, queries } : undefined;
}

function cutText(data: Buffer, at: number): { readonly text: string; readonly end: number } | undefined {
  if (data.length < at + 4) return undefined;
  const lengthBytes = data.readUInt32BE(at);
  const end = at + 4 + lengthBytes;
  if (lengthBytes > exportNameBytesMax || end > data.length) return undefined;
  return { text: data.toString("utf8", at + 4, end), end };
}

function withLength(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

async function reply(haggle: Haggle, option: number, kind: number, data?: Buffer): Promise<undefined> {
  await haggle.send(encodeOptionReply(option, kind, data));
}

function go(haggle: Haggle, exportName: string): HandshakeOutcome {
  const hasAllocation = haggle.allocationFor === exportName;
  return { kind: "go", exportName, isStructured: haggle.isStructured, hasAllocation };
}

function closed(reason: string): HandshakeOutcome {
  return { kind: "closed", reason };
}
