// Who is signed in to the set-up page: random tokens kept as digests, which end when idle, when old, at sign-out and with the password.

import { createHash, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";

const sessionsMax = 16;
const idleMsMax = 30 * 60_000;
const ageMsMax = 12 * 3600_000;
const tokenBytes = 32;

interface Session {
  readonly passwordMark: string;
  /** Shown in a header by the page itself, which another site's page cannot read. */
  readonly csrfToken: string;
  readonly beganMs: number;
  usedMs: number;
}

export class SetupSessions {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #sessions = new Map<string, Session>();

  constructor(parts: { readonly clock: Clock; readonly random: Random }) {
    this.#clock = parts.clock;
    this.#random = parts.random;
  }

  /** The oldest makes room. */
  begin(passwordMark: string): { readonly cookie: string; readonly csrfToken: string } {
    const cookie = this.#token();
    const csrfToken = this.#token();
    const nowMs = this.#clock.monotonicMs();
    this.#sessions.set(digestOf(cookie), { passwordMark, csrfToken, beganMs: nowMs, usedMs: nowMs });
    const oldest = this.#sessions.keys().next();
    if (this.#sessions.size > sessionsMax && oldest.done !== true) this.#sessions.delete(oldest.value);
    return { cookie, csrfToken };
  }

  /** The token that goes with the cookie; undefined when there is no such session any more. */
  find(cookie: string | undefined, passwordMark: string | undefined): { readonly csrfToken: string } | undefined {
    if (cookie === undefined) return undefined;
    const digest = digestOf(cookie);
    const session = this.#sessions.get(digest);
    if (session === undefined) return undefined;
    const nowMs = this.#clock.monotonicMs();
    if (session.passwordMark !== passwordMark || nowMs - session.usedMs > idleMsMax || nowMs - session.beganMs > ageMsMax) {
      this.#sessions.delete(digest);
      return undefined;
    }
    session.usedMs = nowMs;
    return session;
  }

  end(cookie: string | undefined): void {
    if (cookie !== undefined) this.#sessions.delete(digestOf(cookie));
  }

  #token(): string {
    return Buffer.from(this.#random.bytes(tokenBytes)).toString("base64url");
  }
}

export function isSameToken(given: unknown, known: string): boolean {
  if (typeof given !== "string") return false;
  const one = Buffer.from(given);
  const other = Buffer.from(known);
  return one.length === other.length && timingSafeEqual(one, other);
}

function digestOf(cookie: string): string {
  return createHash("sha256").update(cookie).digest("hex");
}
