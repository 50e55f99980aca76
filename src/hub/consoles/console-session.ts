// One WebSocket to one console: bytes both ways without compression, held to its limits, ended with a code that says why.

import type { WebSocket } from "ws";
import type { Clock } from "../../base/clock.ts";
import { asFault } from "../../contract/errors.ts";
import type { ConsoleLine, ConsoleWish } from "../../landing/target.ts";

/** Close codes of our own (RFC 6455, section 7.4.2: 4000 to 4999). */
export const closeCodes = {
  takenOver: 4001,
  readsOnly: 4003,
  idle: 4008,
  ended: 4009,
  stopped: 4010,
  failed: 4011,
} as const;

export interface ConsoleLimits {
  /** Nothing came or went for so long. */
  readonly idleMs: number;
  /** A peer that has not answered since the last question is gone. */
  readonly pingMs: number;
}

export interface ConsoleSession {
  readonly socket: WebSocket;
  readonly line: ConsoleLine;
  readonly wish: ConsoleWish;
  readonly endsAtMs: number;
  /** Told with each question whether the peer is there: what a client of ours needs to come back by itself. */
  readonly tell: (() => string) | undefined;
}

/** Answers why it ended. The line is closed then, and the socket too. */
export async function runSession(session: ConsoleSession, limits: ConsoleLimits, clock: Clock): Promise<string> {
  const { socket, line } = session;
  const over = new AbortController();
  const closed = new Promise<string>((resolve) => {
    socket.once("close", (code, reason) => resolve(`${code}${reason.length === 0 ? "" : ` ${reason.toString("utf8")}`}`));
  });
  socket.on("error", () => undefined); // Its close follows.
  let activeMs = clock.monotonicMs();
  const touch = (): void => void (activeMs = clock.monotonicMs());
  takeInput(session, touch);
  const pumped = giveOutput(session, touch);
  const watched = watchOver(session, { ...limits, activeMs: () => activeMs }, clock, over.signal);
  const why = await closed;
  over.abort();
  await line[Symbol.asyncDispose]();
  await Promise.all([pumped, watched]);
  return why;
}

/** The next piece is read when the one before it has left: a slow peer reads slowly, and nothing piles up here. */
async function giveOutput({ socket, line }: ConsoleSession, touch: () => void): Promise<void> {
  try {
    for await (const piece of line.output) {
      touch();
      if (!(await isSent(socket, piece))) return;
    }
    socket.close(closeCodes.stopped, "the machine stopped");
  } catch (error) {
    socket.close(closeCodes.failed, shortReason(error));
  }
}

async function isSent(socket: WebSocket, piece: Uint8Array): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    socket.send(piece, { binary: true }, (error) => resolve(error === undefined || error === null));
  });
}

/** In order; no more is read from the peer until the console has taken what came. */
function takeInput({ socket, line, wish }: ConsoleSession, touch: () => void): void {
  let taken = Promise.resolve();
  socket.on("message", (data: Buffer) => {
    touch();
    if (wish.access === "read") return socket.close(closeCodes.readsOnly, "this line only reads");
    socket.pause();
    taken = taken.then(async () => {
      try {
        await line.write(data);
        socket.resume();
      } catch (error) {
        socket.resume(); // Else its close would never be read.
        socket.close(closeCodes.failed, shortReason(error));
      }
    });
  });
}

async function watchOver(
  { socket, endsAtMs, tell }: ConsoleSession,
  { idleMs, pingMs, activeMs }: ConsoleLimits & { readonly activeMs: () => number },
  clock: Clock,
  over: AbortSignal,
): Promise<void> {
  let isThere = true;
  socket.on("pong", () => (isThere = true));
  try {
    for (;;) {
      if (tell !== undefined && socket.readyState === socket.OPEN) socket.send(tell(), { binary: false });
      await clock.sleep(pingMs, over);
      const nowMs = clock.monotonicMs();
      if (!isThere) socket.terminate();
      else if (nowMs >= endsAtMs) socket.close(closeCodes.ended, "open the console again");
      else if (nowMs - activeMs() >= idleMs) socket.close(closeCodes.idle, "nothing came or went");
      else {
        isThere = false;
        socket.ping();
      }
    }
  } catch (error) {
    if (!over.aborted) throw error; // The session ended.
  }
}

/** A close frame holds 123 bytes. */
function shortReason(error: unknown): string {
  return asFault(error, "serve the console")
    .message.replaceAll(/[^\x20-\x7e]/g, "?")
    .slice(0, 120);
}
