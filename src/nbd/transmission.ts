// The transmission phase of one NBD connection: requests in, replies out in any order, everything bounded.

import type { Log } from "../base/log.ts";
import type { Disk, WritableDisk } from "../disk/disk.ts";
import { blockStatus } from "./block-status.ts";
import type { BufferPool } from "./buffer-pool.ts";
import type { ByteReader } from "./byte-reader.ts";
import { Flight } from "./flight.ts";
import type { Outbox } from "./outbox.ts";
import { pieceBytesMax, requestBytesMax, zeroPieceBytes } from "./limits.ts";
import {
  allocationContextId,
  chunks,
  commandFlags,
  commands,
  encodeChunk,
  encodeErrorPayload,
  encodeSimpleReply,
  errors,
  exportFlags,
  parseRequest,
  requestHeaderBytes,
  type ErrorNumber,
  type Request,
} from "./protocol.ts";
import { answerRead, piecesAheadMax } from "./read-reply.ts";

/** What is served under a name. The server never closes the disk. */
export type NbdExport = { readonly name: string } & (
  | { readonly access: "read-only"; readonly disk: Disk }
  | { readonly access: "read-write"; readonly disk: WritableDisk }
);

export interface Connection {
  readonly reader: ByteReader;
  /** Resolves when the bytes have left for the kernel; rejects when the peer is gone. */
  readonly send: (...pieces: readonly Uint8Array[]) => Promise<void>;
  readonly outbox: Outbox;
  readonly served: NbdExport;
  readonly isStructured: boolean;
  readonly hasAllocation: boolean;
  readonly pool: BufferPool;
  readonly log: Log;
  /** Aborted when the connection ends. */
  readonly signal: AbortSignal;
}

/** A request that is answered with an error number; the connection goes on. */
class Refusal extends Error {
  readonly errorNumber: ErrorNumber;
  constructor(errorNumber: ErrorNumber, message: string) {
    super(message);
    this.errorNumber = errorNumber;
  }
}

export function transmissionFlagsOf(served: NbdExport): number {
  const common = exportFlags.hasFlags | exportFlags.sendFlush | exportFlags.sendDontFragment | exportFlags.canMultiConnect;
  if (served.access === "read-only") return common | exportFlags.readOnly;
  return common | exportFlags.sendFua | exportFlags.sendTrim | exportFlags.sendWriteZeroes;
}

/** Serves requests until the client disconnects, leaves or breaks the protocol. */
export async function transmit(connection: Connection): Promise<void> {
  const flight = new Flight();
  try {
    while (await takeRequest(connection, flight));
  } finally {
    await flight.land(); // Whoever waits for the connection's end may close the disk next.
  }
}

/** Takes one request and starts to answer it; false at the end of the conversation. */
async function takeRequest(connection: Connection, flight: Flight): Promise<boolean> {
  const header = await connection.reader.take(requestHeaderBytes);
  const request = header === undefined ? undefined : parseRequest(header);
  if (request === undefined || request.command === commands.disconnect) return false;
  let payload: Buffer | undefined;
  if (request.command === commands.write) {
    if (request.lengthBytes > requestBytesMax) return false; // The stream cannot be kept in step without reading it all.
    payload = await connection.reader.take(request.lengthBytes);
    if (payload === undefined) return false;
  }
  await flight.launch(costBytesOf(connection, request), async () => await answer(connection, request, payload));
  return true;
}

function costBytesOf(connection: Connection, request: Request): number {
  if (request.command === commands.write) return request.lengthBytes;
  if (request.command !== commands.read) return 0;
  const isWhole = !connection.isStructured || (request.flags & commandFlags.dontFragment) !== 0;
  return Math.min(request.lengthBytes, isWhole ? requestBytesMax : piecesAheadMax * pieceBytesMax);
}

/** Answers one request, also when it fails. Never rejects: a send fails only when the connection is over. */
async function answer(connection: Connection, request: Request, payload: Buffer | undefined): Promise<void> {
  try {
    await perform(connection, request, payload);
  } catch (error) {
    if (connection.signal.aborted) return;
    const errorNumber = error instanceof Refusal ? error.errorNumber : errors.io;
    if (!(error instanceof Refusal)) {
      const { command, lengthBytes } = request;
      connection.log.error("nbd request failed", { command, offset: Number(request.offset), lengthBytes, error: String(error) });
    }
    await sendError(connection, request, errorNumber).catch(() => undefined); // The reading side ends the connection.
  }
}

async function sendError(connection: Connection, request: Request, errorNumber: ErrorNumber): Promise<void> {
  const isChunked = connection.isStructured && (request.command === commands.read || request.command === commands.blockStatus);
  if (!isChunked) return await connection.send(encodeSimpleReply(request.cookie, errorNumber));
  const fixed = encodeErrorPayload(errorNumber, "");
  await connection.send(encodeChunk(request.cookie, { type: chunks.error, isLast: true, fixed, dataBytes: 0 }));
}

async function perform(connection: Connection, request: Request, payload: Buffer | undefined): Promise<void> {
  checkFlags(request);
  switch (request.command) {
    case commands.read: {
      const offset = checkRange(connection, request, errors.invalid);
      if (request.lengthBytes > requestBytesMax) throw new Refusal(errors.overflow, "the request is too long");
      return await answerRead(connection, request, offset);
    }
    case commands.blockStatus:
      return await answerBlockStatus(connection, request, checkRange(connection, request, errors.invalid));
    case commands.flush:
      if (connection.served.access === "read-write") await connection.served.disk.flush(connection.signal);
      return await connection.send(encodeSimpleReply(request.cookie, 0));
    case commands.write:
    case commands.writeZeroes:
    case commands.trim:
      await change(connection, request, payload);
      return await connection.send(encodeSimpleReply(request.cookie, 0));
    default:
      throw new Refusal(errors.invalid, "the command is unknown");
  }
}

/** A trim is a hint and changes nothing: the content stays readable, which proto.md allows. */
async function change(connection: Connection, request: Request, payload: Buffer | undefined): Promise<void> {
  const { served, signal } = connection;
  if (served.access === "read-only") throw new Refusal(errors.notPermitted, "the export is read-only");
  const offset = checkRange(connection, request, errors.noSpace);
  if (payload !== undefined && payload.length > 0) await served.disk.write(offset, payload, signal);
  if (request.command === commands.writeZeroes) await writeZeros(served.disk, offset, request.lengthBytes, signal);
  if ((request.flags & commandFlags.forceUnitAccess) !== 0) await served.disk.flush(signal);
}

async function writeZeros(disk: WritableDisk, offset: number, lengthBytes: number, signal: AbortSignal): Promise<void> {
  const zeros = Buffer.alloc(Math.min(zeroPieceBytes, lengthBytes));
  for (let done = 0; done < lengthBytes; done += zeros.length) {
    signal.throwIfAborted();
    await disk.write(offset + done, zeros.subarray(0, Math.min(zeros.length, lengthBytes - done)), signal);
  }
}

async function answerBlockStatus(connection: Connection, request: Request, offset: number): Promise<void> {
  if (!connection.hasAllocation) throw new Refusal(errors.invalid, "no context was agreed");
  if (request.lengthBytes === 0) throw new Refusal(errors.invalid, "the range is empty");
  const isOne = (request.flags & commandFlags.requestOne) !== 0;
  const runs = await blockStatus(connection.served.disk, { offset, lengthBytes: request.lengthBytes, isOne }, connection.signal);
  const fixed = Buffer.alloc(4 + runs.length * 8);
  fixed.writeUInt32BE(allocationContextId, 0);
  for (const [index, run] of runs.entries()) {
    fixed.writeUInt32BE(run.lengthBytes, 4 + index * 8);
    fixed.writeUInt32BE(run.state, 8 + index * 8);
  }
  await connection.send(encodeChunk(request.cookie, { type: chunks.blockStatus, isLast: true, fixed, dataBytes: 0 }));
}

const flagsAllowed: ReadonlyMap<number, number> = new Map([
  [commands.read, commandFlags.dontFragment],
  [commands.write, commandFlags.forceUnitAccess],
  [commands.flush, 0],
  [commands.trim, commandFlags.forceUnitAccess],
  [commands.writeZeroes, commandFlags.forceUnitAccess | commandFlags.noHole],
  [commands.blockStatus, commandFlags.requestOne],
]);

function checkFlags(request: Request): void {
  // A client may set the force-unit-access flag on any command (proto.md, Command flags).
  const allowed = (flagsAllowed.get(request.command) ?? 0) | commandFlags.forceUnitAccess;
  if ((request.flags & ~allowed) !== 0) throw new Refusal(errors.invalid, "a flag is unknown");
}

/** The offset as a number, after proof that the whole range lies inside the export. */
function checkRange(connection: Connection, request: Request, errorNumber: ErrorNumber): number {
  const end = request.offset + BigInt(request.lengthBytes);
  if (end > BigInt(connection.served.disk.sizeBytes)) throw new Refusal(errorNumber, "the range is outside the export");
  return Number(request.offset);
}
