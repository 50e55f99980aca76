// The one password of the set-up page: made here, told once, kept as a salted scrypt hash, and slow to guess.

import { scrypt, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { Fault } from "../../contract/errors.ts";
import type { SealedFacts } from "../state/facts.ts";

/** 64 MiB and a tenth of a second for each guess. */
const cost = { N: 1 << 16, r: 8, p: 1, maxmem: 128 << 20 };
const hashBytes = 32;
const saltBytes = 16;
/** Wrong ones of one address before it has to wait, and of all addresses together. */
const wrongMax = 5;
const wrongOfAllMax = 40;
const waitMsFirst = 30_000;
const waitMsMax = 15 * 60_000;
const addressesMax = 1024;

const keptShape = z.object({ salt: z.string(), hash: z.string() });

/** 20 symbols without look-alikes, 100 bits. */
const symbols = "abcdefghjkmnpqrstuvwxyz23456789x";

/** Makes a new password; the one before and its sessions hold no longer. The only time that it can be read. */
export async function makeSetupPassword(facts: SealedFacts, random: Random): Promise<string> {
  const password = Array.from(
    random.bytes(20),
    (byte, index) => `${index > 0 && index % 5 === 0 ? "-" : ""}${symbols[byte & 31] ?? ""}`,
  ).join("");
  const salt = Buffer.from(random.bytes(saltBytes));
  const hash = await hashOf(password, salt);
  facts.write("setupPassword", JSON.stringify({ salt: salt.toString("base64"), hash: hash.toString("base64") }));
  return password;
}

/** Which password holds; sessions of another one have ended. undefined before the first was made. */
export function setupPasswordMark(facts: SealedFacts): string | undefined {
  return readKept(facts)?.salt;
}

interface Wrong {
  count: number;
  waitUntilMs: number;
}

/** Judges passwords and makes who guesses wait. */
export class SetupPasswordGate {
  readonly #clock: Clock;
  readonly #wrong = new Map<string, Wrong>();
  readonly #all: Wrong = { count: 0, waitUntilMs: 0 };
  /** Hashing is heavy on purpose, so that it must not be done for many at once. */
  readonly #turn = new Semaphore(1);

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Throws TooManyRequests with the seconds to wait, Unauthorized, or NotFound when there is no password yet. */
  async check(facts: SealedFacts, address: string, password: string): Promise<void> {
    await this.#turn.run(async () => {
      this.#requireTurn(address);
      const kept = readKept(facts);
      if (kept === undefined) {
        throw new Fault("NotFound", "the set-up page has no password yet", {
          causes: ["none was made on this appliance"],
          action: "on the appliance's console run: watari appliance setup-password",
        });
      }
      const hash = await hashOf(password.trim(), Buffer.from(kept.salt, "base64"));
      if (timingSafeEqual(hash, Buffer.from(kept.hash, "base64"))) {
        this.#wrong.delete(address);
        return;
      }
      this.#note(address);
      throw new Fault("Unauthorized", "refused to sign in: the password is wrong", {
        causes: ["it is misspelt", "a newer one was made"],
        action: "type the password that the console showed, or make a new one there: watari appliance setup-password",
      });
    });
  }

  #requireTurn(address: string): void {
    const nowMs = this.#clock.monotonicMs();
    const waitMs = Math.max(this.#wrong.get(address)?.waitUntilMs ?? 0, this.#all.waitUntilMs) - nowMs;
    if (waitMs <= 0) return;
    const retryAfterSeconds = Math.ceil(waitMs / 1000);
    throw new Fault("TooManyRequests", `refused to sign in: too many wrong passwords; wait ${retryAfterSeconds} s`, {
      evidence: { retryAfterSeconds },
      causes: ["the password was wrong several times"],
      action: "wait, then type the password again; a new one is made on the console: watari appliance setup-password",
    });
  }

  #note(address: string): void {
    const nowMs = this.#clock.monotonicMs();
    const wrong = this.#wrong.get(address) ?? { count: 0, waitUntilMs: 0 };
    this.#wrong.delete(address);
    this.#wrong.set(address, wrong);
    wrong.count += 1;
    if (wrong.count >= wrongMax) wrong.waitUntilMs = nowMs + Math.min(waitMsMax, waitMsFirst * 2 ** Math.min(20, wrong.count - wrongMax));
    const oldest = this.#wrong.keys().next();
    if (this.#wrong.size > addressesMax && oldest.done !== true) this.#wrong.delete(oldest.value);
    this.#all.count += 1;
    if (this.#all.count < wrongOfAllMax) return;
    this.#all.count = 0;
    this.#all.waitUntilMs = nowMs + waitMsFirst;
  }
}

function readKept(facts: SealedFacts): z.infer<typeof keptShape> | undefined {
  const text = facts.read("setupPassword");
  return text === undefined ? undefined : keptShape.parse(JSON.parse(text));
}

async function hashOf(password: string, salt: Uint8Array): Promise<Buffer> {
  return await new Promise((resolve, reject) => {
    scrypt(password, salt, hashBytes, cost, (error, hash) => (error === null ? resolve(hash) : reject(error)));
  });
}
