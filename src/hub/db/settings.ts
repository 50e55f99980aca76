// Values that the hub chose once for itself: tenant and subscription.

import type { Kysely } from "kysely";
import type { Tables } from "./tables.ts";

/** Answers the stored value; stores what `make` gives when there is none. */
export async function settingOf(db: Kysely<Tables>, name: string, make: () => string): Promise<string> {
  await db
    .insertInto("settings")
    .values({ name, value: make() })
    .onConflict((conflict) => conflict.column("name").doNothing())
    .execute();
  return (await db.selectFrom("settings").select("value").where("name", "=", name).executeTakeFirstOrThrow()).value;
}

export async function findSetting(db: Kysely<Tables>, name: string): Promise<string | undefined> {
  return (await db.selectFrom("settings").select("value").where("name", "=", name).executeTakeFirst())?.value;
}
