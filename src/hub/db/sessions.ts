// Sessions of people: what a sign-in began. Refresh tokens are kept as digests; one that is shown twice ends the session.

import type { Kysely } from "kysely";
import { createHash } from "node:crypto";
import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { Sealer } from "./secrets.ts";
import type { Tables } from "./tables.ts";

export interface Session {
  readonly sessionId: string;
  readonly principalId: string;
  readonly principalKind: "person" | "localAccount";
  readonly name: string;
  readonly userName: string;
  readonly clientId: string;
  /** Groups of this hub that the provider's claim stands for now. */
  readonly groupIds: readonly string[];
  readonly endsAt: string;
}

interface OpenedSession {
  readonly principalId: string;
  readonly clientId: string;
  readonly claimedGroups: readonly string[];
  /** The provider's own refresh token; it is sealed. */
  readonly providerToken: string | undefined;
  readonly endsAt: string;
}

type ShownToken =
  | { readonly kind: "unknown" }
  | { readonly kind: "ended"; readonly session: Session }
  | { readonly kind: "shownTwice"; readonly session: Session }
  | { readonly kind: "good"; readonly session: Session; readonly providerToken: string | undefined };

export interface Sessions {
  open(wanted: OpenedSession): Promise<string>;
  /** A session that goes on; undefined when it ended, or its person was removed or disabled. */
  find(sessionId: string): Promise<Session | undefined>;
  /** Sessions of the principal that go on, newest first. */
  of(principalId: string): Promise<readonly Session[]>;
  /** What a refresh token is worth; one that was used before ends its session here. */
  look(refreshToken: string): Promise<ShownToken>;
  /** The first refresh token of a session. */
  begin(sessionId: string): Promise<string>;
  /** Uses one up for the next, once; undefined when another was quicker, which ends the session. */
  rotate(
    refreshToken: string,
    renewed: { readonly claimedGroups: readonly string[]; readonly providerToken: string | undefined } | undefined,
  ): Promise<string | undefined>;
  end(sessionId: string, reason: string): Promise<void>;
  endAllOf(principalId: string, reason: string): Promise<number>;
}

const tokenBytes = 32;
const sessionsMax = 50;
const keptAfterEndMs = 30 * 86_400_000;
const reuseReason = "a refresh token was shown twice";

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly clock: Clock;
  readonly random: Random;
  readonly sealer: Sealer;
}

export function openSessions(dependencies: Dependencies): Sessions {
  const { db, clock, random, sealer } = dependencies;
  const now = (): string => toTimestamp(clock.nowMs());
  return {
    ...openRefreshTokens(dependencies),
    open: async (wanted) => {
      const sessionId = random.uuid();
      const { principalId, clientId, claimedGroups, providerToken, endsAt } = wanted;
      const times = { started_at: now(), ends_at: endsAt, ended_at: null, end_reason: null };
      const sealed = sealToken(sealer, sessionId, providerToken);
      const forgotten = toTimestamp(clock.nowMs() - keptAfterEndMs);
      await db.deleteFrom("sessions").where("ends_at", "<", forgotten).execute();
      const who = { session_id: sessionId, principal_id: principalId, client_id: clientId };
      await db
        .insertInto("sessions")
        .values({ ...who, claimed_groups: [...claimedGroups], provider_token: sealed, ...times })
        .execute();
      return sessionId;
    },
    find: async (sessionId) => (await readSessions(db, now()).where("sessions.session_id", "=", sessionId).execute()).map(fromRow)[0],
    of: async (principalId) => {
      const query = readSessions(db, now()).where("sessions.principal_id", "=", principalId).orderBy("started_at", "desc");
      return (await query.limit(sessionsMax).execute()).map(fromRow);
    },
    end: async (sessionId, reason) => await endSession(db, { sessionId, reason, at: now() }),
    endAllOf: async (principalId, reason) => {
      const query = db.updateTable("sessions").set({ ended_at: now(), end_reason: reason, provider_token: null });
      const ended = await query.where("principal_id", "=", principalId).where("ended_at", "is", null).returning("session_id").execute();
      return ended.length;
    },
  };
}

function openRefreshTokens({ db, clock, random, sealer }: Dependencies): Pick<Sessions, "look" | "begin" | "rotate"> {
  const now = (): string => toTimestamp(clock.nowMs());
  const add = async (within: Kysely<Tables>, sessionId: string): Promise<string> => {
    const token = Buffer.from(random.bytes(tokenBytes)).toString("base64url");
    const row = { digest: digestOf(token), session_id: sessionId, made_at: now(), used_at: null };
    await within.insertInto("refresh_tokens").values(row).execute();
    return token;
  };
  return {
    begin: async (sessionId) => await add(db, sessionId),
    look: async (refreshToken) => {
      const query = db.selectFrom("refresh_tokens").innerJoin("sessions", "sessions.session_id", "refresh_tokens.session_id");
      const row = await query
        .select(["refresh_tokens.session_id", "used_at", "provider_token", "ended_at"])
        .where("digest", "=", digestOf(refreshToken))
        .executeTakeFirst();
      if (row === undefined) return { kind: "unknown" };
      const session = (await readSessions(db, undefined).where("sessions.session_id", "=", row.session_id).execute()).map(fromRow)[0];
      if (session === undefined) return { kind: "unknown" };
      if (row.used_at !== null) {
        await endSession(db, { sessionId: session.sessionId, reason: reuseReason, at: now() });
        return { kind: "shownTwice", session };
      }
      if (row.ended_at !== null || session.isDisabled || fromTimestamp(session.endsAt) <= clock.nowMs()) return { kind: "ended", session };
      return { kind: "good", session, providerToken: openToken(sealer, session.sessionId, row.provider_token) };
    },
    rotate: async (refreshToken, renewed) =>
      await db.transaction().execute(async (transaction) => {
        const digest = digestOf(refreshToken);
        const unused = transaction.updateTable("refresh_tokens").set({ used_at: now() }).where("digest", "=", digest);
        const sessionId = (await unused.where("used_at", "is", null).returning("session_id").executeTakeFirst())?.session_id;
        if (sessionId === undefined) {
          const query = transaction.selectFrom("refresh_tokens").select("session_id").where("digest", "=", digest);
          const lost = (await query.executeTakeFirst())?.session_id;
          if (lost !== undefined) await endSession(transaction, { sessionId: lost, reason: reuseReason, at: now() });
          return undefined;
        }
        if (renewed !== undefined) {
          const providerToken = sealToken(sealer, sessionId, renewed.providerToken);
          const present = transaction.updateTable("sessions").where("session_id", "=", sessionId).where("ended_at", "is", null);
          await present.set({ claimed_groups: [...renewed.claimedGroups], provider_token: providerToken }).execute();
        }
        return await add(transaction, sessionId);
      }),
  };
}

async function endSession(
  db: Kysely<Tables>,
  { sessionId, reason, at }: { readonly sessionId: string; readonly reason: string; readonly at: string },
): Promise<void> {
  const query = db.updateTable("sessions").set({ ended_at: at, end_reason: reason, provider_token: null });
  await query.where("session_id", "=", sessionId).where("ended_at", "is", null).execute();
}

function sealToken(sealer: Sealer, sessionId: string, token: string | undefined): Uint8Array | null {
  return token === undefined ? null : sealer.seal(`session#${sessionId}`, Buffer.from(token, "utf8"));
}

function openToken(sealer: Sealer, sessionId: string, sealed: Uint8Array | null): string | undefined {
  return sealed === null ? undefined : Buffer.from(sealer.open(`session#${sessionId}`, sealed)).toString("utf8");
}

/** Of codes and tokens only this is kept. They are 256 random bits, so a plain digest cannot be searched. */
export function digestOf(secret: string): string {
  return createHash("sha256").update(secret, "utf8").digest("hex");
}

/** Those that go on at `at`; all of them without it. */
function readSessions(db: Kysely<Tables>, at: string | undefined) {
  const query = db
    .selectFrom("sessions")
    .innerJoin("principals", "principals.principal_id", "sessions.principal_id")
    .leftJoin("people", "people.principal_id", "sessions.principal_id")
    .select(["sessions.session_id", "sessions.principal_id", "sessions.client_id", "ends_at", "principals.name", "principals.kind"])
    .select(["people.user_name", "people.disabled_at"])
    .select(({ selectFrom, fn }) =>
      selectFrom("groups")
        .select(({ fn: inner }) => inner.agg<readonly string[]>("array_agg", ["groups.group_id"]).as("ids"))
        .whereRef("groups.claim_value", "=", fn.any("sessions.claimed_groups"))
        .as("group_ids"),
    );
  return at === undefined ? query : query.where("ended_at", "is", null).where("ends_at", ">", at).where("people.disabled_at", "is", null);
}

function fromRow(row: {
  readonly session_id: string;
  readonly principal_id: string;
  readonly client_id: string;
  readonly ends_at: string;
  readonly name: string;
  readonly kind: string;
  readonly user_name: string | null;
  readonly disabled_at: string | null;
  readonly group_ids: readonly string[] | null;
}): Session & { readonly isDisabled: boolean } {
  return {
    sessionId: row.session_id,
    principalId: row.principal_id,
    principalKind: row.kind === "localAccount" ? "localAccount" : "person",
    name: row.name,
    userName: row.user_name ?? row.name,
    clientId: row.client_id,
    groupIds: row.group_ids ?? [],
    endsAt: row.ends_at,
    isDisabled: row.disabled_at !== null,
  };
}
