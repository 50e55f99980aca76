// Sign-ins under way: what a client asked for, in which browser, how far it came. Each step happens once; codes are kept as digests.

import { createHash } from "node:crypto";
import type { Kysely, Selectable } from "kysely";
import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import type { SignInTable } from "./people-schema.ts";
import type { Sealer } from "./secrets.ts";
import { digestOf } from "./sessions.ts";
import type { Tables } from "./tables.ts";

export interface SignIn {
  readonly signInId: string;
  readonly kind: "browser" | "device";
  readonly clientId: string;
  readonly scope: string;
  /** Of the browser kind. */
  readonly back:
    | { readonly redirectUri: string; readonly responseMode: "query" | "form_post"; readonly state: string | undefined }
    | undefined;
  readonly nonce: string | undefined;
  /** The address that asked for it. */
  readonly askedFrom: string;
  readonly sessionId: string | undefined;
}

export type Redeemed =
  | { readonly kind: "unknown" | "pending" | "slowDown" | "refused" }
  | { readonly kind: "replayed"; readonly sessionId: string }
  | { readonly kind: "good"; readonly signIn: SignIn; readonly sessionId: string };

export interface SignIns {
  /** Fault TooManyRequests when as many as may be are under way. */
  ask(wanted: {
    readonly clientId: string;
    readonly scope: string;
    readonly back: NonNullable<SignIn["back"]>;
    readonly nonce: string | undefined;
    readonly codeChallenge: string;
    readonly askedFrom: string;
    readonly browser: string;
  }): Promise<SignIn>;
  askDevice(wanted: { readonly clientId: string; readonly scope: string; readonly askedFrom: string }): Promise<{
    readonly deviceCode: string;
    readonly userCode: string;
    readonly expiresInSeconds: number;
    readonly intervalSeconds: number;
  }>;
  /** One that nobody is proved for yet, in the browser that began it. */
  findAsked(signInId: string, browser: string): Promise<SignIn | undefined>;
  /** Binds a device's sign-in to the browser in which its code was typed first. */
  claimDevice(userCode: string, browser: string): Promise<SignIn | undefined>;
  /** Remembers what goes to the provider, sealed; what went before counts no more. */
  leave(signInId: string, toProvider: { readonly state: string; readonly secrets: unknown }): Promise<void>;
  /** Takes up what the provider's answer belongs to, once, and only in the same browser. */
  comeBack(state: string, browser: string): Promise<{ readonly signIn: SignIn; readonly secrets: unknown } | undefined>;
  /** false when it is proved, refused or over already. */
  prove(signInId: string, sessionId: string): Promise<boolean>;
  /** Ends a proved sign-in well; a browser's has a code for its client then. undefined when it was ended otherwise. */
  grant(signInId: string, browser: string): Promise<{ readonly signIn: SignIn; readonly code: string } | undefined>;
  /** The sign-in of the browser that waits for the person's word. */
  refuse(signInId: string, browser: string): Promise<SignIn | undefined>;
  redeemCode(shown: {
    readonly code: string;
    readonly clientId: string;
    readonly redirectUri: string;
    readonly verifier: string;
  }): Promise<Redeemed>;
  redeemDevice(deviceCode: string, clientId: string): Promise<Redeemed>;
}

const secretBytes = 32;
const signInMinutesMax = 15;
const codeSecondsMax = 120;
/** Codes that were redeemed are kept for a while: showing one again ends the session. */
const keptAfterEndMs = 3600_000;
const underWayMax = 10_000;
const pollSeconds = 5;
/** No vowels, so that no words come out; no letters that look like digits (RFC 8628, 6.1). */
const userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ";
const userCodeLength = 8;

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly clock: Clock;
  readonly random: Random;
  readonly sealer: Sealer;
}

export function openSignIns(dependencies: Dependencies): SignIns {
  return { ...openQuestions(dependencies), ...openProofs(dependencies), ...openAnswers(dependencies) };
}

function openQuestions(dependencies: Dependencies): Pick<SignIns, "ask" | "askDevice" | "findAsked" | "claimDevice"> {
  const { db, clock, random } = dependencies;
  const now = (): string => toTimestamp(clock.nowMs());
  const add = async (row: Partial<SignInTable> & Pick<SignInTable, "kind" | "client_id" | "scope" | "asked_from">): Promise<SignIn> => {
    await db
      .deleteFrom("sign_ins")
      .where("expires_at", "<", toTimestamp(clock.nowMs() - keptAfterEndMs))
      .execute();
    const live = db
      .selectFrom("sign_ins")
      .select(({ fn }) => fn.countAll<string>().as("count"))
      .where("expires_at", ">", now());
    if (Number((await live.executeTakeFirstOrThrow()).count) >= underWayMax)
      throw new Fault("TooManyRequests", "could not begin a sign-in: too many are under way", { evidence: { underWayMax } });
    const times = { expires_at: toTimestamp(clock.nowMs() + signInMinutesMax * 60_000), polled_at: null };
    const made = { ...emptyRow, ...row, ...times, sign_in_id: random.uuid(), state: "asked" as const };
    await db.insertInto("sign_ins").values(made).execute();
    return fromRow(made);
  };
  return {
    ask: async ({ clientId, scope, back, nonce, codeChallenge, askedFrom, browser }) => {
      const { redirectUri, responseMode, state } = back;
      const client = { kind: "browser" as const, client_id: clientId, scope, asked_from: askedFrom, code_challenge: codeChallenge };
      const toClient = { redirect_uri: redirectUri, response_mode: responseMode, client_state: state ?? null, client_nonce: nonce ?? null };
      return await add({ ...client, ...toClient, browser_digest: digestOf(browser) });
    },
    askDevice: async ({ clientId, scope, askedFrom }) => {
      const deviceCode = randomText(random);
      const userCode = randomUserCode(random);
      const digests = { user_code_digest: digestOf(userCode), device_code_digest: digestOf(deviceCode) };
      await add({ kind: "device", client_id: clientId, scope, asked_from: askedFrom, ...digests });
      return { deviceCode, userCode, expiresInSeconds: signInMinutesMax * 60, intervalSeconds: pollSeconds };
    },
    findAsked: async (signInId, browser) => {
      const query = db
        .selectFrom("sign_ins")
        .selectAll()
        .where("sign_in_id", "=", signInId)
        .where("browser_digest", "=", digestOf(browser));
      const row = await query.where("state", "=", "asked").where("expires_at", ">", now()).executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
    claimDevice: async (userCode, browser) => {
      const letters = userCode.toUpperCase().replaceAll(/[^A-Z]/g, "");
      const bound = digestOf(browser);
      const query = db.updateTable("sign_ins").set({ browser_digest: bound }).where("user_code_digest", "=", digestOf(letters));
      const free = query.where((where) => where.or([where("browser_digest", "is", null), where("browser_digest", "=", bound)]));
      const row = await free.where("state", "=", "asked").where("expires_at", ">", now()).returningAll().executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
  };
}

function openProofs({ db, clock, random, sealer }: Dependencies): Pick<SignIns, "leave" | "comeBack" | "prove" | "grant" | "refuse"> {
  const now = (): string => toTimestamp(clock.nowMs());
  const labelOf = (signInId: string): string => `sign-in#${signInId}`;
  return {
    leave: async (signInId, { state, secrets }) => {
      const sealed = sealer.seal(labelOf(signInId), Buffer.from(JSON.stringify(secrets), "utf8"));
      const query = db.updateTable("sign_ins").set({ provider_state_digest: digestOf(state), provider_secrets: sealed });
      await query.where("sign_in_id", "=", signInId).where("state", "=", "asked").execute();
    },
    comeBack: async (state, browser) => {
      const found = await db.selectFrom("sign_ins").selectAll().where("provider_state_digest", "=", digestOf(state)).executeTakeFirst();
      if (found === undefined) return undefined;
      const query = db.updateTable("sign_ins").set({ provider_state_digest: null, provider_secrets: null });
      const mine = query.where("sign_in_id", "=", found.sign_in_id).where("provider_state_digest", "=", digestOf(state));
      const bound = mine.where("browser_digest", "=", digestOf(browser)).where("state", "=", "asked").where("expires_at", ">", now());
      const taken = (await bound.returning("sign_in_id").execute()).length > 0;
      if (!taken || found.provider_secrets === null) return undefined;
      const text = Buffer.from(sealer.open(labelOf(found.sign_in_id), found.provider_secrets)).toString("utf8");
      const secrets: unknown = JSON.parse(text);
      return { signIn: fromRow(found), secrets };
    },
    prove: async (signInId, sessionId) => {
      const query = db.updateTable("sign_ins").set({ state: "proved", session_id: sessionId }).where("sign_in_id", "=", signInId);
      const rows = await query.where("state", "=", "asked").where("expires_at", ">", now()).returning("sign_in_id").execute();
      return rows.length > 0;
    },
    grant: async (signInId, browser) => {
      const code = randomText(random);
      const expires = { expires_at: toTimestamp(clock.nowMs() + codeSecondsMax * 1000) };
      const query = db.updateTable("sign_ins").set({ state: "granted", code_digest: digestOf(code), ...expires });
      const proved = query.where("sign_in_id", "=", signInId).where("state", "=", "proved").where("expires_at", ">", now());
      const row = await proved.where("browser_digest", "=", digestOf(browser)).returningAll().executeTakeFirst();
      return row === undefined ? undefined : { signIn: fromRow(row), code };
    },
    refuse: async (signInId, browser) => {
      const query = db.updateTable("sign_ins").set({ state: "refused" }).where("sign_in_id", "=", signInId);
      const open = query.where("state", "in", ["asked", "proved"]).where("browser_digest", "=", digestOf(browser));
      const row = await open.returningAll().executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
  };
}

function openAnswers({ db, clock }: Dependencies): Pick<SignIns, "redeemCode" | "redeemDevice"> {
  const nowMs = (): number => clock.nowMs();
  /** Once: of two calls at a time one finds it redeemed. */
  const redeem = async (row: Row): Promise<Redeemed> => {
    if (row.session_id === null) return { kind: "unknown" };
    const query = db.updateTable("sign_ins").set({ state: "redeemed" }).where("sign_in_id", "=", row.sign_in_id);
    const isFirst = (await query.where("state", "=", "granted").returning("sign_in_id").execute()).length > 0;
    return isFirst ? { kind: "good", signIn: fromRow(row), sessionId: row.session_id } : { kind: "replayed", sessionId: row.session_id };
  };
  return {
    redeemCode: async ({ code, clientId, redirectUri, verifier }) => {
      const row = await db.selectFrom("sign_ins").selectAll().where("code_digest", "=", digestOf(code)).executeTakeFirst();
      if (row === undefined || row.kind !== "browser") return { kind: "unknown" };
      const challenge = createHash("sha256").update(verifier, "ascii").digest("base64url");
      const isTheirs = row.client_id === clientId && row.redirect_uri === redirectUri && row.code_challenge === challenge;
      if (!isTheirs) return { kind: "unknown" };
      if (row.state === "granted" && fromTimestamp(row.expires_at) <= nowMs()) return { kind: "unknown" };
      return await redeem(row);
    },
    redeemDevice: async (deviceCode, clientId) => {
      const row = await db.selectFrom("sign_ins").selectAll().where("device_code_digest", "=", digestOf(deviceCode)).executeTakeFirst();
      if (row === undefined || row.client_id !== clientId) return { kind: "unknown" };
      if (row.state === "redeemed") return await redeem(row);
      if (row.state === "refused") return { kind: "refused" };
      if (fromTimestamp(row.expires_at) <= nowMs()) return { kind: "unknown" };
      if (row.state === "granted") return await redeem(row);
      const last = row.polled_at === null ? 0 : fromTimestamp(row.polled_at);
      await db
        .updateTable("sign_ins")
        .set({ polled_at: toTimestamp(nowMs()) })
        .where("sign_in_id", "=", row.sign_in_id)
        .execute();
      // A second less than told: timers of clients are not exact.
      return { kind: nowMs() - last < (pollSeconds - 1) * 1000 ? "slowDown" : "pending" };
    },
  };
}

type Row = Selectable<SignInTable>;

const emptyRow = {
  redirect_uri: null,
  response_mode: null,
  client_state: null,
  client_nonce: null,
  code_challenge: null,
  browser_digest: null,
  user_code_digest: null,
  device_code_digest: null,
  provider_state_digest: null,
  provider_secrets: null,
  session_id: null,
  code_digest: null,
};

function fromRow(row: Omit<Row, "polled_at" | "expires_at">): SignIn {
  const mode = row.response_mode === "form_post" ? "form_post" : "query";
  const { redirect_uri: redirectUri, client_state: state } = row;
  return {
    signInId: row.sign_in_id,
    kind: row.kind,
    clientId: row.client_id,
    scope: row.scope,
    back: redirectUri === null ? undefined : { redirectUri, responseMode: mode, state: state ?? undefined },
    nonce: row.client_nonce ?? undefined,
    askedFrom: row.asked_from,
    sessionId: row.session_id ?? undefined,
  };
}

function randomText(random: Random): string {
  return Buffer.from(random.bytes(secretBytes)).toString("base64url");
}

/** 34 bits that live for fifteen minutes; who guesses is slowed by address. */
function randomUserCode(random: Random): string {
  const letters: string[] = [];
  while (letters.length < userCodeLength)
    for (const byte of random.bytes(userCodeLength)) {
      // Bytes beyond the last whole round would favour the first letters.
      if (byte >= 240 || letters.length === userCodeLength) continue;
      letters.push(userCodeLetters[byte % userCodeLetters.length] ?? "");
    }
  return letters.join("");
}
