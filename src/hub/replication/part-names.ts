// Names that clients chose for the disks and cards of a machine: free in its resource group, and found again once it has landed.

import { sql } from "kysely";
import { Fault } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Queryable } from "../jobs/job.ts";
import type { ItemSettings } from "./item-settings.ts";
import { itemType, machineType, vaultOf } from "./names.ts";

export interface NicNames {
  readonly landed: string | undefined;
  readonly test: string | undefined;
}

export function nicNamesOf(nic: ItemSettings["nics"][number]): NicNames {
  return { landed: nic.targetNicName ?? nic.recoveryNicName, test: nic.tfoNicName };
}

/** Fault InputInvalid for a name that another machine's part has or will have, or that is chosen twice. */
export async function requireNames(db: Queryable, item: ResourceId, { nics, diskNames }: ItemSettings): Promise<void> {
  const cards = nics.flatMap((nic) => Object.values(nicNamesOf(nic))).filter((name) => name !== undefined);
  const names = [...cards, ...Object.values(diskNames)];
  const keys = names.map((name) => name.toLowerCase());
  const twice = names.find((_name, index) => keys.indexOf(keys[index] ?? "") !== index);
  if (twice !== undefined) refuseName(twice, item.text);
  if (names.length === 0) return;
  const group = vaultOf(item).parentKey;
  const stored = await sql<{ id: string }>`select id from resources where parent_key = ${group} and lower(name) = any(${keys}::text[])
    and type in ('microsoft.network/networkinterfaces', 'microsoft.compute/disks') limit 1`.execute(db);
  if (stored.rows[0] !== undefined) refuseName(names.join(", "), stored.rows[0].id);
  const others = await sql<{ id: string; settings: ItemSettings | null }>`select id, properties->'settings' as settings from resources
    where type = ${itemType.toLowerCase()} and starts_with(key, ${`${group}/`}) and key <> ${item.key}
      and (jsonb_array_length(coalesce(properties->'settings'->'nics', '[]')) > 0
        or coalesce(properties->'settings'->'diskNames', '{}') <> '{}')`.execute(db);
  for (const other of others.rows) {
    const taken = [
      ...(other.settings?.nics ?? []).flatMap((nic) => Object.values(nicNamesOf(nic))),
      ...Object.values(other.settings?.diskNames ?? {}),
    ];
    const same = taken.find((name) => name !== undefined && keys.includes(name.toLowerCase()));
    if (same !== undefined) refuseName(same, other.id);
  }
}

function refuseName(name: string, takenBy: string): never {
  throw new Fault("InputInvalid", `could not name a disk or a card ${name}: the name is taken`, {
    evidence: { name, takenBy },
    action: "choose a name that no other disk or card of the resource group has",
  });
}

/** The landed machine with a part of the name that was chosen for it. */
export async function findMachineWithPart(db: Queryable, part: ResourceId): Promise<string | undefined> {
  const found = await sql<{
    id: string;
  }>`select id from resources where type = ${machineType.toLowerCase()} and parent_key = ${part.parentKey}
    and exists (select 1 from jsonb_array_elements((properties->'launch'->'nics') || (properties->'launch'->'disks')) as each
      where lower(each->>'name') = ${part.name.toLowerCase()}) limit 1`.execute(db);
  return found.rows[0]?.id;
}
