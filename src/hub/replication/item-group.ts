// Which group of machines an item makes its points with: named at enable, one policy for all of its members.

import { createHash } from "node:crypto";
import { sql } from "kysely";
import { Fault } from "../../contract/errors.ts";
import { lockKey } from "../db/locks.ts";
import type { Queryable } from "../jobs/job.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { itemType, vaultOf } from "./names.ts";
import type { EnableDetails } from "./item-settings.ts";
import type { Item } from "./item.ts";
import type { Settings } from "./policy.ts";

type Group = NonNullable<Item["group"]>;

const guidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const groupMembersMax = 16;

/** Undefined: the machine makes its points for itself. A group without an id has one that follows from its name. */
export function groupOfEnable(itemId: ResourceId, details: EnableDetails, policy: Settings): Group | undefined {
  const name = details.multiVmGroupName ?? "";
  const given = details.multiVmGroupId ?? "";
  if (name === "" && given === "") return undefined;
  if (policy.multiVmSyncStatus !== "Enable")
    refuse(
      "multiVmGroupName",
      "the policy makes no points of several machines",
      "set multiVmSyncStatus of the policy to Enable, or leave the group out",
    );
  if (given !== "" && !guidPattern.test(given)) refuse("multiVmGroupId", "it is no GUID", "give a GUID, or the name alone");
  if (name === "") refuse("multiVmGroupName", "a group has a name", "give multiVmGroupName as well");
  return { groupId: given === "" ? idOf(`${vaultOf(itemId).key}\n${name.toLowerCase()}`) : given.toLowerCase(), name };
}

/** Within the transaction that adds the item. */
export async function requireOneGroup(db: Queryable, itemId: ResourceId, item: Item): Promise<void> {
  const { group } = item;
  if (group === undefined) return;
  await lockKey(db, `group:${group.groupId}`);
  const found = await sql<{ policy: string; appliance: string; name: string }>`select properties->>'policyName' as policy,
      properties->>'applianceId' as appliance, properties->'group'->>'name' as name from resources
    where type = ${itemType.toLowerCase()} and starts_with(key, ${`${vaultOf(itemId).key}/`}) and key <> ${itemId.key}
      and properties->'group'->>'groupId' = ${group.groupId} limit ${groupMembersMax}`.execute(db);
  if (found.rows.length >= groupMembersMax)
    refuse("multiVmGroupName", `a group has at most ${groupMembersMax} machines`, "use a recovery plan to move more machines in order");
  for (const { policy, appliance, name } of found.rows) {
    if (name.toLowerCase() !== group.name.toLowerCase())
      refuse("multiVmGroupId", `the group of this id is named ${name}`, "give its name, or another id");
    if (policy.toLowerCase() !== item.policyName.toLowerCase())
      refuse(
        "multiVmGroupName",
        `the group's machines follow the policy ${policy}`,
        "give the same policy: the points of a group have one interval",
      );
    if (appliance !== item.applianceId)
      refuse(
        "multiVmGroupName",
        "the group's machines replicate through another appliance",
        "machines agree on a moment through one appliance only",
      );
  }
}

function refuse(field: string, why: string, action: string): never {
  throw new Fault("InputInvalid", `could not put the machine into a group: ${why}`, {
    evidence: { field: `properties.providerSpecificDetails.${field}` },
    action,
  });
}

function idOf(text: string): string {
  const hex = createHash("sha256").update(text).digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
