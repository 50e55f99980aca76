// Principals: who may sign in or hold roles. Of a secret only its hash is kept.

import { createHash, timingSafeEqual } from "node:crypto";
import type { Kysely } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import { findSetting, settingOf } from "./settings.ts";
import type { Tables } from "./tables.ts";

export interface Principal {
  readonly principalId: string;
  readonly clientId: string;
  readonly kind: "operator" | "vaultIdentity" | "servicePrincipal" | "person" | "localAccount";
  readonly name: string;
}

const operatorSetting = "operatorMade";

export interface Principals {
  add(principal: Principal, secret: string | undefined): Promise<void>;
  find(principalId: string): Promise<Principal | undefined>;
  /** undefined when the client is unknown, has no secret, or another one. */
  signIn(clientId: string, secret: string): Promise<Principal | undefined>;
  findClient(clientId: string): Promise<Principal | undefined>;
  /** Service principals, the first operator among them, in the order of their ids, after this one. */
  listServices(after: string | undefined, countMax: number): Promise<readonly Principal[]>;
  /** Whether the first operator was ever made: one that was removed does not come back. */
  hadOperator(): Promise<boolean>;
  /** A secret that was given without an end lasts until then, as a credential. Repeatable. */
  endFirstSecret(principalId: string, end: { readonly credentialId: string; readonly expiresAt: string }): Promise<void>;
  remove(principalId: string): Promise<void>;
}

export function openPrincipals({ db, clock }: { readonly db: Kysely<Tables>; readonly clock: Clock }): Principals {
  return {
    add: async (principal, secret) => {
      await db
        .insertInto("principals")
        .values({
          principal_id: principal.principalId,
          client_id: principal.clientId,
          kind: principal.kind,
          name: principal.name,
          secret_hash: secret === undefined ? null : hash(secret),
          created_at: toTimestamp(clock.nowMs()),
        })
        .onConflict((conflict) => conflict.column("principal_id").doNothing())
        .execute();
    },
    find: async (principalId) => {
      const row = await db.selectFrom("principals").selectAll().where("principal_id", "=", principalId).executeTakeFirst();
      return row === undefined ? undefined : { principalId, clientId: row.client_id, kind: row.kind, name: row.name };
    },
    signIn: async (clientId, secret) => {
      const row = await db.selectFrom("principals").selectAll().where("client_id", "=", clientId).executeTakeFirst();
      // An unknown client costs the same comparison, so that time tells nothing.
      const isRight = timingSafeEqual(Buffer.from(hash(secret)), Buffer.from(row?.secret_hash ?? hash("")));
      const isFirst = isRight && row?.secret_hash !== null;
      if (row === undefined || !(isFirst || (await hasSecret(db, row.principal_id, hash(secret), toTimestamp(clock.nowMs())))))
        return undefined;
      return { principalId: row.principal_id, clientId, kind: row.kind, name: row.name };
    },
    findClient: async (clientId) => {
      const row = await db.selectFrom("principals").selectAll().where("client_id", "=", clientId).executeTakeFirst();
      return row === undefined ? undefined : { principalId: row.principal_id, clientId, kind: row.kind, name: row.name };
    },
    listServices: async (after, countMax) => {
      const query = db
        .selectFrom("principals")
        .selectAll()
        .where("kind", "in", ["servicePrincipal", "operator"])
        .orderBy("principal_id")
        .limit(countMax);
      const rows = await (after === undefined ? query : query.where("principal_id", ">", after)).execute();
      return rows.map((row) => ({ principalId: row.principal_id, clientId: row.client_id, kind: row.kind, name: row.name }));
    },
    hadOperator: async () => {
      if ((await findSetting(db, operatorSetting)) !== undefined) return true;
      const operator = await db.selectFrom("principals").select("principal_id").where("kind", "=", "operator").executeTakeFirst();
      if (operator === undefined) return false;
      await settingOf(db, operatorSetting, () => toTimestamp(clock.nowMs()));
      return true;
    },
    endFirstSecret: async (principalId, end) => await endFirstSecret(db, principalId, { ...end, createdAt: toTimestamp(clock.nowMs()) }),
    remove: async (principalId) => {
      await db.deleteFrom("principals").where("principal_id", "=", principalId).execute();
    },
  };
}

async function endFirstSecret(
  db: Kysely<Tables>,
  principalId: string,
  { credentialId, expiresAt, createdAt }: { readonly credentialId: string; readonly expiresAt: string; readonly createdAt: string },
): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    const ofPrincipal = transaction.selectFrom("principals").select("secret_hash").where("principal_id", "=", principalId);
    const row = await ofPrincipal.forUpdate().executeTakeFirst();
    if (row === undefined || row.secret_hash === null) return;
    const facts = { credential_id: credentialId, principal_id: principalId, kind: "secret", secret_hash: row.secret_hash } as const;
    const none = { certificate_pem: null, sha1: null, sha256: null };
    await transaction
      .insertInto("credentials")
      .values({ ...facts, ...none, expires_at: expiresAt, created_at: createdAt })
      .execute();
    await transaction.updateTable("principals").set({ secret_hash: null }).where("principal_id", "=", principalId).execute();
  });
}

/** The database compares digests of what was said, so its time tells nothing of the secret. */
async function hasSecret(db: Kysely<Tables>, principalId: string, digest: string, now: string): Promise<boolean> {
  const query = db.selectFrom("credentials").select("credential_id").where("principal_id", "=", principalId);
  return (await query.where("secret_hash", "=", digest).where("expires_at", ">", now).executeTakeFirst()) !== undefined;
}

/** Secrets are 256 random bits, so a plain digest cannot be searched; see docs/decisions/tokens.md. */
function hash(secret: string): string {
  return createHash("sha256").update(secret, "utf8").digest("hex");
}
