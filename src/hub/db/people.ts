// People: who signed in through the identity provider, known by issuer and subject; names may change, those two never do.

import type { Kysely, Selectable } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { lockKey } from "./locks.ts";
import type { PeopleTables } from "./people-schema.ts";
import type { Tables } from "./tables.ts";

export interface Person {
  readonly principalId: string;
  readonly name: string;
  readonly userName: string;
  readonly issuer: string;
  readonly subject: string;
  readonly lastSignInAt: string;
  readonly disabledAt: string | undefined;
}

export interface People {
  find(principalId: string): Promise<Person | undefined>;
  /** In the order of their ids, after this one. */
  list(after: string | undefined, countMax: number): Promise<readonly Person[]>;
  /** Makes the person at the first sign-in, and keeps the names of the newest one. */
  signedIn(proof: {
    readonly issuer: string;
    readonly subject: string;
    readonly name: string;
    readonly userName: string;
  }): Promise<Person & { readonly isNew: boolean }>;
  /** A person who is disabled cannot sign in, and the sessions end at once. */
  disable(principalId: string): Promise<void>;
  enable(principalId: string): Promise<void>;
}

type Row = Selectable<PeopleTables["people"]> & { readonly name: string };

export function openPeople({ db, clock, random }: { readonly db: Kysely<Tables>; readonly clock: Clock; readonly random: Random }): People {
  const joined = (within: Kysely<Tables>) =>
    within
      .selectFrom("people")
      .innerJoin("principals", "principals.principal_id", "people.principal_id")
      .selectAll("people")
      .select("principals.name");
  const now = (): string => toTimestamp(clock.nowMs());
  return {
    find: async (principalId) => {
      const row = await joined(db).where("people.principal_id", "=", principalId).executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
    list: async (after, countMax) => {
      const query = joined(db).orderBy("people.principal_id").limit(countMax);
      return (await (after === undefined ? query : query.where("people.principal_id", ">", after)).execute()).map(fromRow);
    },
    signedIn: async ({ issuer, subject, name, userName }) =>
      await db.transaction().execute(async (transaction) => {
        await lockKey(transaction, `person ${issuer} ${subject}`);
        const mine = joined(transaction).where("issuer", "=", issuer).where("subject", "=", subject);
        const present = await mine.executeTakeFirst();
        const principalId = present?.principal_id ?? random.uuid();
        const seen = { user_name: userName, last_sign_in_at: now() };
        if (present === undefined) {
          const made = { principal_id: principalId, client_id: random.uuid(), kind: "person" as const, name, secret_hash: null };
          await transaction
            .insertInto("principals")
            .values({ ...made, created_at: now() })
            .execute();
          await transaction
            .insertInto("people")
            .values({ principal_id: principalId, issuer, subject, ...seen, disabled_at: null })
            .execute();
        } else {
          await transaction.updateTable("principals").set({ name }).where("principal_id", "=", principalId).execute();
          await transaction.updateTable("people").set(seen).where("principal_id", "=", principalId).execute();
        }
        return { ...fromRow(await mine.executeTakeFirstOrThrow()), isNew: present === undefined };
      }),
    disable: async (principalId) => {
      await db.transaction().execute(async (transaction) => {
        const person = transaction.updateTable("people").set({ disabled_at: now() }).where("principal_id", "=", principalId);
        await person.where("disabled_at", "is", null).execute();
        const sessions = transaction.updateTable("sessions").set({ ended_at: now(), end_reason: "the person was disabled" });
        await sessions.where("principal_id", "=", principalId).where("ended_at", "is", null).execute();
      });
    },
    enable: async (principalId) => {
      await db.updateTable("people").set({ disabled_at: null }).where("principal_id", "=", principalId).execute();
    },
  };
}

function fromRow(row: Row): Person {
  return {
    principalId: row.principal_id,
    name: row.name,
    userName: row.user_name,
    issuer: row.issuer,
    subject: row.subject,
    lastSignInAt: row.last_sign_in_at,
    disabledAt: row.disabled_at ?? undefined,
  };
}
