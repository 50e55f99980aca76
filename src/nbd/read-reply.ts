// Answers a read: holes as holes, data in pieces that are read ahead and sent as they come.

import { forEachParallel } from "../base/semaphore.ts";
import type { Extent } from "../disk/disk.ts";
import { blockBytes } from "../disk/geometry.ts";
import { pieceBytesMax } from "./limits.ts";
import { smallReplyBytes } from "./outbox.ts";
import { chunks, commandFlags, encodeChunk, encodeHole, encodeOffset, encodeSimpleReply, type Request } from "./protocol.ts";
import type { Connection } from "./transmission.ts";

/** Pieces of one request that are read and sent at the same time. */
export const piecesAheadMax = 4;

/** Sends the whole answer, or rejects with what failed; then the caller sends an error as the last chunk. */
export async function answerRead(connection: Connection, request: Request, offset: number): Promise<void> {
  const { lengthBytes } = request;
  if (!connection.isStructured) return await sendWhole(connection, request, offset);
  if (lengthBytes === 0) return await sendEnd(connection, request);
  const isWhole = (request.flags & commandFlags.dontFragment) !== 0;
  const isSmall = lengthBytes <= blockBytes;
  if (isWhole || isSmall) return await sendPiece(connection, request, { offset, length: lengthBytes, kind: "data" }, "last");
  const pieces = cutPieces(await connection.served.disk.extents(offset, lengthBytes, connection.signal));
  const [only] = pieces;
  if (only !== undefined && pieces.length === 1) return await sendPiece(connection, request, only, "last");
  await sendPieces(connection, request, pieces);
  await sendEnd(connection, request);
}

/** All pieces, the first failure told only when none is under way any more: nothing may follow the last chunk. */
async function sendPieces(connection: Connection, request: Request, pieces: readonly Extent[]): Promise<void> {
  const failures: unknown[] = [];
  await forEachParallel(pieces, piecesAheadMax, async (piece) => {
    if (failures.length > 0) return;
    await sendPiece(connection, request, piece, "more").catch((error: unknown) => failures.push(error));
  });
  if (failures.length > 0) throw failures[0];
}

/** Holes in one piece, data in pieces of at most pieceBytesMax that start and end at multiples of it. */
function cutPieces(extents: readonly Extent[]): readonly Extent[] {
  const pieces: Extent[] = [];
  for (const { offset, length, kind } of extents) {
    const end = offset + length;
    for (let at = offset; at < end;) {
      const next = kind === "zero" ? end : Math.min(end, (Math.floor(at / pieceBytesMax) + 1) * pieceBytesMax);
      pieces.push({ offset: at, length: next - at, kind });
      at = next;
    }
  }
  return pieces;
}

async function sendPiece(connection: Connection, request: Request, piece: Extent, place: "last" | "more"): Promise<void> {
  const isLast = place === "last";
  const { offset, length } = piece;
  if (piece.kind === "zero") {
    const fixed = encodeHole(offset, length);
    return await connection.send(encodeChunk(request.cookie, { type: chunks.offsetHole, isLast, fixed, dataBytes: 0 }));
  }
  const data = connection.pool.lend(length);
  await connection.served.disk.read(offset, data, connection.signal);
  const header = encodeChunk(request.cookie, { type: chunks.offsetData, isLast, fixed: encodeOffset(offset), dataBytes: length });
  // A lone piece may overtake any other reply.
  if (isLast && length <= smallReplyBytes) await connection.outbox.put(header, data);
  else await connection.send(header, data);
  connection.pool.giveBack(data); // Only after success: a failed read may still write into its buffer.
}

async function sendWhole(connection: Connection, request: Request, offset: number): Promise<void> {
  const data = connection.pool.lend(request.lengthBytes);
  if (data.length > 0) await connection.served.disk.read(offset, data, connection.signal);
  const header = encodeSimpleReply(request.cookie, 0);
  if (data.length <= smallReplyBytes) await connection.outbox.put(header, data);
  else await connection.send(header, data);
  connection.pool.giveBack(data);
}

async function sendEnd(connection: Connection, request: Request): Promise<void> {
  await connection.send(encodeChunk(request.cookie, { type: chunks.none, isLast: true, fixed: Buffer.alloc(0), dataBytes: 0 }));
}
