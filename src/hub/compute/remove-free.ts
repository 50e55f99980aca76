// Disks and interfaces go, and machines are made of them, in turn: no machine is made of what is being removed.

import { lockKey } from "../db/locks.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Queryable } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";

/** Held by whoever makes a machine or removes a part that it could be made of. */
export async function lockMadeMachines(db: Queryable): Promise<void> {
  await lockKey(db, "made machines");
}

/** Removes the row unless a machine has it; answers that machine. */
export async function removeFree(
  { database }: HubServices,
  id: ResourceId,
  ownerOf: (db: Queryable, id: ResourceId) => Promise<string | undefined>,
): Promise<string | undefined> {
  return await database.db.transaction().execute(async (db) => {
    await lockMadeMachines(db);
    const owner = await ownerOf(db, id);
    if (owner === undefined) await db.deleteFrom("resources").where("key", "=", id.key).execute();
    return owner;
  });
}
