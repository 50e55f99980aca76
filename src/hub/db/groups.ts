// Groups: who holds roles together. Members are principals of this hub, and people whose provider names the group's claim value.

import type { Kysely, Selectable } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { lockKey } from "./locks.ts";
import type { PeopleTables } from "./people-schema.ts";
import type { Tables } from "./tables.ts";

export interface Group {
  readonly groupId: string;
  readonly name: string;
  /** What the identity provider writes into a member's groups claim; undefined for a group of this hub alone. */
  readonly claimValue: string | undefined;
}

export interface Groups {
  find(groupId: string): Promise<Group | undefined>;
  /** In the order of their ids, after this one. */
  list(after: string | undefined, countMax: number): Promise<readonly Group[]>;
  /** Makes it or changes its name and claim value; Fault StateConflict when another group has the claim value. */
  save(group: Group): Promise<void>;
  remove(groupId: string): Promise<void>;
  /** Principals of this hub that were added here; those of the provider are known only at their sign-in. */
  members(groupId: string): Promise<readonly string[]>;
  /** false when it was a member already. */
  addMember(groupId: string, principalId: string): Promise<boolean>;
  /** false when it was none. */
  removeMember(groupId: string, principalId: string): Promise<boolean>;
  /** Ids of the groups of the principal: added here, and by what the provider said at the newest sign-in. */
  groupsOf(principalId: string): Promise<readonly string[]>;
}

const groupsMax = 2000;
const membersMax = 2000;

export function openGroups({ db, clock }: { readonly db: Kysely<Tables>; readonly clock: Clock }): Groups {
  return {
    find: async (groupId) => {
      const row = await db.selectFrom("groups").selectAll().where("group_id", "=", groupId).executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
    list: async (after, countMax) => {
      const query = db.selectFrom("groups").selectAll().orderBy("group_id").limit(countMax);
      return (await (after === undefined ? query : query.where("group_id", ">", after)).execute()).map(fromRow);
    },
    save: async ({ groupId, name, claimValue = null }) => {
      await db.transaction().execute(async (transaction) => {
        await lockKey(transaction, "groups");
        if (claimValue !== null) await refuseSecond(transaction, groupId, claimValue);
        await refuseBeyond(transaction, groupId);
        const made = { group_id: groupId, name, claim_value: claimValue, created_at: toTimestamp(clock.nowMs()) };
        await transaction
          .insertInto("groups")
          .values(made)
          .onConflict((conflict) => conflict.column("group_id").doUpdateSet({ name, claim_value: claimValue }))
          .execute();
      });
    },
    remove: async (groupId) => {
      await db.deleteFrom("groups").where("group_id", "=", groupId).execute();
    },
    members: async (groupId) => {
      const query = db.selectFrom("group_members").select("principal_id").where("group_id", "=", groupId).orderBy("principal_id");
      return (await query.limit(membersMax).execute()).map((row) => row.principal_id);
    },
    addMember: async (groupId, principalId) =>
      await db.transaction().execute(async (transaction) => {
        await lockKey(transaction, `group ${groupId}`);
        const query = transaction.selectFrom("group_members").select(({ fn }) => fn.countAll<string>().as("count"));
        const present = await query.where("group_id", "=", groupId).executeTakeFirstOrThrow();
        if (Number(present.count) >= membersMax)
          throw new Fault("LimitReached", "could not add the member: the group has as many as it may", { evidence: { membersMax } });
        const insert = transaction.insertInto("group_members").values({ group_id: groupId, principal_id: principalId });
        return (
          (
            await insert
              .onConflict((conflict) => conflict.doNothing())
              .returning("group_id")
              .execute()
          ).length > 0
        );
      }),
    removeMember: async (groupId, principalId) => {
      const query = db.deleteFrom("group_members").where("group_id", "=", groupId).where("principal_id", "=", principalId);
      return (await query.returning("group_id").execute()).length > 0;
    },
    groupsOf: async (principalId) => {
      const added = await db.selectFrom("group_members").select("group_id").where("principal_id", "=", principalId).execute();
      const newest = db.selectFrom("sessions").select("claimed_groups").where("principal_id", "=", principalId);
      const claimed = (await newest.orderBy("started_at", "desc").limit(1).executeTakeFirst())?.claimed_groups ?? [];
      const named =
        claimed.length === 0
          ? []
          : await db
              .selectFrom("groups")
              .select("group_id")
              .where("claim_value", "in", [...claimed])
              .execute();
      return [...new Set([...added, ...named].map((row) => row.group_id))];
    },
  };
}

async function refuseSecond(db: Kysely<Tables>, groupId: string, claimValue: string): Promise<void> {
  const other = await db.selectFrom("groups").select("group_id").where("claim_value", "=", claimValue).executeTakeFirst();
  if (other === undefined || other.group_id === groupId) return;
  throw new Fault("StateConflict", "could not keep the group: another group stands for this claim value", {
    evidence: { claimValue, groupId: other.group_id },
    retry: "never",
  });
}

async function refuseBeyond(db: Kysely<Tables>, groupId: string): Promise<void> {
  const query = db.selectFrom("groups").select(({ fn }) => fn.countAll<string>().as("count"));
  const others = await query.where("group_id", "!=", groupId).executeTakeFirstOrThrow();
  if (Number(others.count) >= groupsMax)
    throw new Fault("LimitReached", "could not make the group: the hub has as many as it may", { evidence: { groupsMax } });
}

function fromRow(row: Selectable<PeopleTables["groups"]>): Group {
  return { groupId: row.group_id, name: row.name, claimValue: row.claim_value ?? undefined };
}
