// The local account's secret and its end: a slow hash, one sign-in a secret, and no use any more once a person of the provider is Owner.

import { scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { Semaphore } from "../../base/semaphore.ts";
import { fromTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { LocalAccount, LocalAccounts } from "../db/local-account.ts";
import type { Sessions } from "../db/sessions.ts";

const derive: (secret: string, salt: Uint8Array, keyBytes: number, cost: typeof scryptCost) => Promise<Buffer> = promisify(scrypt);
/** 32 MiB and some fifty milliseconds a try (RFC 7914). */
const scryptCost = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 << 20 };
const saltBytes = 16;
const keyBytes = 32;
const secretLetters = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const secretLength = 28;
const version = "scrypt1";
/** Hashing takes memory: many tries at once wait for each other. */
const hashing = new Semaphore(2);

/** 140 random bits in groups of four, for people who have to type it. */
export function makeLocalSecret(random: Random): string {
  const letters = [...random.bytes(secretLength)].map((byte) => secretLetters[byte % secretLetters.length] ?? "");
  return letters.join("").replaceAll(/(.{4})(?=.)/g, "$1-");
}

export async function hashLocalSecret(secret: string, random: Random): Promise<string> {
  const salt = random.bytes(saltBytes);
  const key = await hashing.run(async () => await derive(normal(secret), salt, keyBytes, scryptCost));
  return `${version}:${Buffer.from(salt).toString("base64url")}:${key.toString("base64url")}`;
}

/** The account, when the secret is right and was never used. Right or wrong, it costs the same. */
export async function signInLocally(accounts: LocalAccounts, secret: string, clock: Clock): Promise<LocalAccount | undefined> {
  const account = await accounts.find();
  const isRight = await matches(secret, account?.secretHash);
  if (!isRight || account === undefined || !(await isUsable(accounts, account, clock))) return undefined;
  return (await accounts.use()) ? account : undefined;
}

/** Whether the account may still be used; one that may not any more is ended with its sessions. */
export async function checkLocalAccount(dependencies: {
  readonly accounts: LocalAccounts;
  readonly sessions: Sessions;
  readonly clock: Clock;
}): Promise<boolean> {
  const { accounts, sessions, clock } = dependencies;
  const account = await accounts.find();
  if (account === undefined) return false;
  if (await isUsable(accounts, account, clock)) return true;
  await sessions.endAllOf(account.principalId, "the local account has ended");
  return false;
}

/** Whether a secret waits to be used: the sign-in page then has a field for it. */
export async function awaitsLocalSecret(accounts: LocalAccounts, clock: Clock): Promise<boolean> {
  const account = await accounts.find();
  return account !== undefined && account.usedAt === undefined && (await isUsable(accounts, account, clock));
}

async function isUsable(accounts: LocalAccounts, account: LocalAccount, clock: Clock): Promise<boolean> {
  if (account.endedAt !== undefined || fromTimestamp(account.expiresAt) <= clock.nowMs()) return false;
  const owner = account.kind === "firstHour" ? await accounts.findOwner() : undefined;
  if (owner === undefined) return true;
  await accounts.end(`${owner} of the identity provider is Owner`);
  return false;
}

async function matches(secret: string, stored: string | undefined): Promise<boolean> {
  const [known, salt = "", key = ""] = (stored ?? "").split(":");
  const made = await hashing.run(async () => await derive(normal(secret), Buffer.from(salt, "base64url"), keyBytes, scryptCost));
  const expected = Buffer.from(key, "base64url");
  return known === version && expected.length === keyBytes && timingSafeEqual(made, expected);
}

/** Case and dashes are for reading. */
function normal(secret: string): string {
  return secret.toUpperCase().replaceAll(/[^A-Z0-9]/g, "");
}
