// Which protected item of a vault a machine is.

import { sql, type Kysely } from "kysely";
import type { MachineId } from "../../contract/ids.ts";
import type { Tables } from "./tables.ts";

export type ItemLookup = (
  vaultKey: string,
  machineId: MachineId,
) => Promise<{ readonly id: string; readonly machineName: string } | undefined>;

export function openItemLookup({ db }: { readonly db: Kysely<Tables> }): ItemLookup {
  return async (vaultKey, machineId) => {
    const found = await sql<{ id: string; name: string }>`select id, coalesce(properties->>'machineName', name) as name from resources
      where type like '%/replicationprotecteditems' and properties->>'machineId' = ${machineId} and starts_with(key, ${`${vaultKey}/`})
      limit 1`.execute(db);
    const [row] = found.rows;
    return row === undefined ? undefined : { id: row.id, machineName: row.name };
  };
}
