// The local account: one Owner without an identity provider, for the first hour or when the provider is lost. Its secret works once.

import { sql, type Kysely, type Selectable } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { ownerRoleId } from "../auth/builtin-roles.ts";
import { lockKey } from "./locks.ts";
import type { PeopleTables } from "./people-schema.ts";
import { openResourceStore } from "./resources.ts";
import { roleAssignmentType } from "./role-assignments.ts";
import type { Tables } from "./tables.ts";

export interface LocalAccount {
  readonly principalId: string;
  /** firstHour ends with the first Owner of the provider; breakGlass with its time alone. */
  readonly kind: "firstHour" | "breakGlass";
  readonly secretHash: string;
  readonly expiresAt: string;
  readonly usedAt: string | undefined;
  readonly endedAt: string | undefined;
  readonly endReason: string | undefined;
}

export interface LocalAccounts {
  find(): Promise<LocalAccount | undefined>;
  /** Makes it anew, Owner of the subscription; sessions of the one before end. */
  make(wanted: { readonly kind: LocalAccount["kind"]; readonly secretHash: string; readonly expiresAt: string }): Promise<string>;
  /** Uses the secret up; false when it was used, or the account ended. */
  use(): Promise<boolean>;
  /** false when it had ended already. */
  end(reason: string): Promise<boolean>;
  /** The name of a person of the provider who is Owner of the subscription: by assignment or by group. */
  findOwner(): Promise<string | undefined>;
}

export function openLocalAccounts(dependencies: {
  readonly db: Kysely<Tables>;
  readonly clock: Clock;
  readonly random: Random;
  readonly subscriptionId: string;
}): LocalAccounts {
  const { db, clock, random, subscriptionId } = dependencies;
  const now = (): string => toTimestamp(clock.nowMs());
  const scope = `/subscriptions/${subscriptionId}`;
  return {
    find: async () => {
      const row = await db.selectFrom("local_account").selectAll().executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
    make: async ({ kind, secretHash, expiresAt }) => {
      const present = await db.selectFrom("local_account").select("principal_id").executeTakeFirst();
      const principalId = present?.principal_id ?? random.uuid();
      const roleDefinitionId = `/providers/Microsoft.Authorization/roleDefinitions/${ownerRoleId}`;
      // The role first: an account that is there is Owner, whenever this was cut.
      await openResourceStore({ db, clock, random }).save({
        id: parseResourceId(`${scope}/providers/${roleAssignmentType}/${principalId}`),
        properties: { principalId, roleDefinitionId, principalType: "User", scope },
      });
      await db.transaction().execute(async (transaction) => {
        await lockKey(transaction, "local account");
        const principal = { principal_id: principalId, client_id: random.uuid(), kind: "localAccount" as const, name: "local account" };
        await transaction
          .insertInto("principals")
          .values({ ...principal, secret_hash: null, created_at: now() })
          .onConflict((conflict) => conflict.column("principal_id").doNothing())
          .execute();
        const sessions = transaction.updateTable("sessions").set({ ended_at: now(), end_reason: "the local account was made anew" });
        await sessions.where("principal_id", "=", principalId).where("ended_at", "is", null).execute();
        const fresh = { secret_hash: secretHash, kind, made_at: now(), expires_at: expiresAt };
        const row = { ...fresh, principal_id: principalId, used_at: null, ended_at: null, end_reason: null };
        await transaction
          .insertInto("local_account")
          .values({ ...row, only_one: true })
          .onConflict((conflict) => conflict.column("only_one").doUpdateSet(row))
          .execute();
      });
      return principalId;
    },
    use: async () => {
      const query = db.updateTable("local_account").set({ used_at: now() }).where("used_at", "is", null);
      const open = query.where("ended_at", "is", null).where("expires_at", ">", now());
      return (await open.returning("principal_id").execute()).length > 0;
    },
    end: async (reason) => {
      const query = db.updateTable("local_account").set({ ended_at: now(), end_reason: reason }).where("ended_at", "is", null);
      return (await query.returning("principal_id").execute()).length > 0;
    },
    findOwner: async () => await findOwner(db, scope),
  };
}

async function findOwner(db: Kysely<Tables>, scope: string): Promise<string | undefined> {
  const { rows } = await sql<{ name: string }>`select principals.name from people join principals using (principal_id)
    where people.disabled_at is null and exists (
      select 1 from resources where type = ${roleAssignmentType.toLowerCase()} and parent_key = ${scope.toLowerCase()}
        and lower(properties->>'roleDefinitionId') like ${`%/${ownerRoleId}`}
        and (properties->>'principalId' = people.principal_id::text
          or properties->>'principalId' in (select group_id::text from group_members where principal_id = people.principal_id)
          or properties->>'principalId' in (select group_id::text from groups where claim_value = any((
            select claimed_groups from sessions where sessions.principal_id = people.principal_id order by started_at desc limit 1)::text[]))))
    limit 1`.execute(db);
  return rows[0]?.name;
}

function fromRow(row: Selectable<PeopleTables["local_account"]>): LocalAccount {
  return {
    principalId: row.principal_id,
    kind: row.kind,
    secretHash: row.secret_hash,
    expiresAt: row.expires_at,
    usedAt: row.used_at ?? undefined,
    endedAt: row.ended_at ?? undefined,
    endReason: row.end_reason ?? undefined,
  };
}
