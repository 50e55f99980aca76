// One-use tickets to consoles: browsers cannot send a token with a WebSocket, so an authorised call gets a word that opens one line, once and soon.

import { createHash } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import type { ConsoleWish } from "../../landing/target.ts";

/** Whom a ticket lets do what. */
export interface ConsoleGrant {
  readonly principalId: string;
  readonly principalName: string;
  readonly correlationId: string;
  /** A line that broke and came back is the same session: it needs nobody's place but its own. */
  readonly sessionId: string;
  /** Id of the landed machine's resource. */
  readonly machineId: string;
  readonly wish: ConsoleWish;
  /** Whoever writes there loses the line. */
  readonly takesOver: boolean;
  /** By the monotonic clock: then a new call has to be authorised. */
  readonly endsAtMs: number;
}

const ticketBytes = 32;
const ticketsMax = 1_000;

/** In this process alone: the line that a ticket opens is one of this host. Only digests are kept. */
export class ConsoleTickets {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #grants = new Map<string, { readonly grant: ConsoleGrant; readonly endsAtMs: number }>();

  constructor(parts: { readonly clock: Clock; readonly random: Random }) {
    this.#clock = parts.clock;
    this.#random = parts.random;
  }

  /** Fault TooManyRequests while too many wait to be used. */
  issue(grant: ConsoleGrant, lifeMs: number): string {
    const nowMs = this.#clock.monotonicMs();
    for (const [digest, { endsAtMs }] of this.#grants) if (endsAtMs <= nowMs) this.#grants.delete(digest);
    if (this.#grants.size >= ticketsMax)
      throw new Fault("TooManyRequests", "could not give a ticket to a console: too many wait to be used", {
        evidence: { ticketsMax, retryAfterSeconds: 30 },
      });
    const ticket = Buffer.from(this.#random.bytes(ticketBytes)).toString("base64url");
    this.#grants.set(digestOf(ticket), { grant, endsAtMs: Math.min(nowMs + lifeMs, grant.endsAtMs) });
    return ticket;
  }

  /** Undefined for one that was used, is too old, or never was. */
  redeem(ticket: string): ConsoleGrant | undefined {
    const digest = digestOf(ticket);
    const found = this.#grants.get(digest);
    this.#grants.delete(digest);
    return found === undefined || found.endsAtMs <= this.#clock.monotonicMs() ? undefined : found.grant;
  }

  /** A ticket that nobody shall use any more. */
  withdraw(ticket: string): void {
    this.#grants.delete(digestOf(ticket));
  }
}

function digestOf(ticket: string): string {
  return createHash("sha256").update(ticket, "utf8").digest("base64url");
}
