// Consoles of landed machines over WebSocket: a ticket opens a line, one writes to a serial console while others read, everything is bounded and audited.

import { STATUS_CODES, type IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer, type WebSocket } from "ws";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { asFault, Fault } from "../../contract/errors.ts";
import type { ConsoleLine, ConsoleWish } from "../../landing/target.ts";
import { toErrorBody } from "../api/arm-errors.ts";
import type { AuditTrail } from "../db/audit.ts";
import { closeCodes, runSession, type ConsoleLimits } from "./console-session.ts";
import { ConsoleTickets, type ConsoleGrant } from "./console-tickets.ts";

export const consolePrefix = "/consoles/";
/** Ours: text frames beside the bytes. A viewer that offers "binary" or nothing gets bytes alone. */
export const ownProtocol = "watari.v1";
export const consoleProtocols: readonly string[] = [ownProtocol, "binary"];

export interface ConsolesLimits extends ConsoleLimits {
  readonly ticketMs: number;
  /** To come back with after a line that broke; a new one is given with each question whether the peer is there. */
  readonly returnMs: number;
  /** From the call that was authorised to the end of what it opened. */
  readonly grantMs: number;
  readonly sessionsMax: number;
  readonly machineSessionsMax: number;
}

export const consolesLimits: ConsolesLimits = {
  ticketMs: 30_000,
  returnMs: 120_000,
  grantMs: 3600_000,
  idleMs: 15 * 60_000,
  pingMs: 30_000,
  sessionsMax: 64,
  machineSessionsMax: 8,
};

/** A peer's message: keys, a paste. */
const messageBytesMax = 65_536;
const serverOptions = {
  noServer: true,
  maxPayload: messageBytesMax,
  perMessageDeflate: false,
  clientTracking: false,
  /** For a peer that is told to go, and does not answer; whoever takes over waits for it. */
  closeTimeout: 2_000,
  handleProtocols: (offered: ReadonlySet<string>) => consoleProtocols.find((name) => offered.has(name)) ?? (false as const),
};
const sessionAction = "Microsoft.Compute/virtualMachines/openConsole/session";

type OpenLine = (machineId: string, wish: ConsoleWish) => Promise<ConsoleLine>;

interface Seat {
  readonly grant: ConsoleGrant;
  /** Absent while its line is being opened. */
  socket?: WebSocket;
  isTakenOver: boolean;
  /** Once its line is free for another one. */
  readonly left: PromiseWithResolvers<void>;
}

interface ConsoleParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly audit: AuditTrail;
}

export class Consoles implements AsyncDisposable {
  readonly #parts: ConsoleParts;
  readonly #limits: ConsolesLimits;
  readonly #tickets: ConsoleTickets;
  readonly #seats = new Set<Seat>();
  readonly #server = new WebSocketServer(serverOptions);
  #open: OpenLine | undefined;
  #origins: readonly string[] = [];
  #isClosed = false;

  constructor(parts: ConsoleParts, limits: Partial<ConsolesLimits> = {}) {
    this.#parts = parts;
    this.#limits = { ...consolesLimits, ...limits };
    this.#tickets = new ConsoleTickets(parts);
  }

  /** Says how lines are opened, and which origins of pages besides the hub's own may. */
  offer(open: OpenLine, origins: readonly string[]): void {
    this.#open = open;
    this.#origins = origins;
  }

  /** For a caller who was authorised. Fault StateConflict where somebody else writes, unless it takes over. */
  grant(wanted: Omit<ConsoleGrant, "endsAtMs" | "sessionId">): { readonly ticket: string; readonly lifeMs: number } {
    const { clock, random } = this.#parts;
    const grant = { ...wanted, sessionId: random.uuid(), endsAtMs: clock.monotonicMs() + this.#limits.grantMs };
    this.#requireRoom(grant);
    return { ticket: this.#tickets.issue(grant, this.#limits.ticketMs), lifeMs: this.#limits.ticketMs };
  }

  /** Takes a request to upgrade over from its HTTP server. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    this.#admit(request, socket, head).catch((error: unknown) => {
      const fault = asFault(error, "open the console");
      this.#parts.log.info("console refused", { fault: fault.code, reason: fault.message });
      refuse(socket, fault);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    const seats = [...this.#seats];
    for (const { socket } of seats) socket?.terminate();
    await Promise.all(seats.map(async ({ left }) => await left.promise));
  }

  async #admit(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const url = new URL(request.url ?? "", "https://hub.invalid");
    this.#requireOrigin(request);
    const grant = this.#tickets.redeem(url.searchParams.get("ticket") ?? "");
    if (grant === undefined || url.pathname !== `${consolePrefix}${grant.wish.kind}`)
      throw new Fault("Unauthorized", "could not open the console: its ticket was used, is too old, or is for something else", {
        action: "ask for a new one: the machine's action openConsole, or `watari landed console`",
      });
    this.#requireRoom(grant);
    const seat: Seat = { grant, isTakenOver: false, left: Promise.withResolvers() };
    const [writers, broken] = [this.#writersBeside(grant), this.#brokenOf(grant)];
    const before = [...writers, ...broken];
    this.#seats.add(seat);
    try {
      for (const other of writers) takeOver(other);
      for (const { socket: dead } of broken) dead?.terminate();
      await Promise.all(before.map(async ({ left }) => await left.promise));
      await this.#audited(seat, async () => await this.#serve(seat, { request, socket, head }));
    } finally {
      this.#seats.delete(seat);
      seat.left.resolve();
    }
  }

  async #audited({ grant }: Seat, serve: () => Promise<string>): Promise<void> {
    const { machineId: resourceId, principalId, principalName, correlationId } = grant;
    const row = await this.#parts.audit.begin({ principalId, principalName, action: sessionAction, resourceId, correlationId });
    try {
      await row.end({ outcome: await serve() });
    } catch (error) {
      await row.end({ outcome: asFault(error, "open the console").code });
      throw error;
    }
  }

  /** Answers why the session ended. */
  async #serve(seat: Seat, { request, socket, head }: Upgrade): Promise<string> {
    const { grant } = seat;
    const { clock, log } = this.#parts;
    if (this.#open === undefined) throw new Error("assertion failed: lines are offered before the first request");
    await using line = await this.#open(grant.machineId, grant.wish);
    const peer = await this.#shakeHands(request, socket, head);
    if (peer === undefined) return "the peer left";
    seat.socket = peer;
    if (this.#isClosed) peer.terminate();
    if (seat.isTakenOver) takeOver(seat);
    let ticket: string | undefined;
    const tell = (): string => {
      if (ticket !== undefined) this.#tickets.withdraw(ticket);
      ticket = this.#tickets.issue({ ...grant, takesOver: false }, this.#limits.returnMs);
      return JSON.stringify({ kind: "ticket", ticket, access: grant.wish.access });
    };
    const own = peer.protocol === ownProtocol ? { tell } : { tell: undefined };
    const session = { socket: peer, line, wish: grant.wish, endsAtMs: grant.endsAtMs, ...own };
    log.info("console opened", { machineId: grant.machineId, ...grant.wish, principalId: grant.principalId });
    const why = await runSession(session, this.#limits, clock);
    log.info("console closed", { machineId: grant.machineId, ...grant.wish, principalId: grant.principalId, why });
    // One that shall not come back by itself does not.
    if (ticket !== undefined && why.startsWith("40")) this.#tickets.withdraw(ticket);
    return why;
  }

  /** Undefined when the peer left, or speaks no WebSocket. */
  async #shakeHands(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<WebSocket | undefined> {
    return await new Promise<WebSocket | undefined>((resolve) => {
      if (socket.destroyed) return resolve(undefined);
      socket.once("close", () => resolve(undefined));
      this.#server.handleUpgrade(request, socket, head, resolve);
    });
  }

  /** A page of somebody else's must not use what a browser was given; programs send no origin. */
  #requireOrigin({ headers }: IncomingMessage): void {
    const { origin, host = "" } = headers;
    if (origin === undefined || origin === `https://${host}` || this.#origins.includes(origin)) return;
    throw new Fault("Forbidden", "could not open the console: the page is of another origin", {
      evidence: { origin: origin.slice(0, 200) },
      action: "open the hub's own page, or have the hub's operator add the origin to landing.consoleOrigins",
    });
  }

  #requireRoom(grant: ConsoleGrant): void {
    const { sessionsMax, machineSessionsMax } = this.#limits;
    if (this.#isClosed) throw new Fault("StateConflict", "could not open the console: the hub is ending", { retry: "later" });
    const others = [...this.#seats].filter((seat) => seat.grant.sessionId !== grant.sessionId);
    const atMachine = others.filter((seat) => seat.grant.machineId === grant.machineId).length;
    if (others.length >= sessionsMax || atMachine >= machineSessionsMax)
      throw new Fault("TooManyRequests", "could not open the console: as many are open as may be", {
        evidence: { sessionsMax, machineSessionsMax, open: others.length, atMachine, retryAfterSeconds: 30 },
      });
    const [writer] = this.#writersBeside(grant);
    if (writer === undefined || grant.takesOver) return;
    throw new Fault("StateConflict", `could not write to the console: ${writer.grant.principalName} does`, {
      action: "read it (access: read), or take it over (takeOver: true)",
      retry: "later",
    });
  }

  /** Other sessions that hold what the wish needs for itself. */
  #writersBeside({ machineId, wish, sessionId }: ConsoleGrant): readonly Seat[] {
    const writesSerial = ({ kind, access }: ConsoleWish): boolean => kind === "serial" && access === "write";
    if (!writesSerial(wish)) return [];
    return [...this.#seats].filter(
      ({ grant }) => grant.machineId === machineId && grant.sessionId !== sessionId && writesSerial(grant.wish),
    );
  }

  /** What is left of the session that comes back, whose end nobody has seen yet. */
  #brokenOf({ sessionId }: ConsoleGrant): readonly Seat[] {
    return [...this.#seats].filter(({ grant }) => grant.sessionId === sessionId);
  }
}

interface Upgrade {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
}

function takeOver(seat: Seat): void {
  seat.isTakenOver = true;
  seat.socket?.close(closeCodes.takenOver, "somebody else writes now");
}

/** The server's parser has let go of the connection, so the answer is written here. */
function refuse(socket: Duplex, fault: Fault): void {
  if (socket.destroyed || !socket.writable) return;
  const body = JSON.stringify(toErrorBody(fault));
  const lines = [
    `HTTP/1.1 ${fault.httpStatus} ${STATUS_CODES[fault.httpStatus] ?? "Refused"}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    "cache-control: no-store",
    "connection: close",
  ];
  socket.end(`${lines.join("\r\n")}\r\n\r\n${body}`);
}
