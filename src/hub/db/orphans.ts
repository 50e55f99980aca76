// Rows that belong to nothing: found by one question each, removed by the same question, so that what came into use meanwhile stays.

import { sql, type Kysely, type RawBuilder } from "kysely";
import type { Tables } from "./tables.ts";

export interface OrphanRow {
  readonly id: string;
  readonly reason: string;
}

/** A kind of row: `where` says which rows of `table` belong to nothing. */
interface RowRule {
  readonly kind: string;
  readonly table: string;
  readonly id: RawBuilder<string>;
  readonly reason: string;
  readonly where: RawBuilder<boolean>;
  /** What to do with them; they are deleted unless told. */
  readonly settle?: RawBuilder<unknown>;
}

const rowsMax = 1000;

const hasOpenJobInVault = (vaultKey: RawBuilder<string>): RawBuilder<boolean> =>
  sql`exists (select 1 from jobs j where j.ended_at is null and j.scope = ${vaultKey})`;
const isOfNoItem = (table: "machine_states" | "points"): RawBuilder<boolean> => sql`not exists (
    select 1 from resources r where r.type like '%/replicationprotecteditems' and r.properties->>'machineId' = ${sql.ref(`${table}.machine_id`)}::text)
  and not ${hasOpenJobInVault(sql.ref(`${table}.vault_key`))}`;

const interrupted = JSON.stringify({
  id: "OrderInterrupted",
  message: "the hub ended while this was under way",
  causes: ["the hub was killed or its host failed"],
  action: "look at the resource and start the operation again",
  evidence: {},
  retry: "later",
});
const withdrawn = JSON.stringify({
  id: "OrderWithdrawn",
  message: "the job that gave the order has ended",
  causes: ["the job that gave the order ended before the appliance fetched it"],
  action: "start the operation again",
  evidence: {},
  retry: "never",
});

const rules: readonly RowRule[] = [
  {
    kind: "order of no appliance",
    table: "orders",
    id: sql`order_id::text`,
    reason: "its appliance is not registered",
    where: sql`not exists (select 1 from appliances a where a.appliance_id = orders.appliance_id)`,
  },
  {
    kind: "order of an ended job",
    table: "orders",
    id: sql`order_id::text`,
    reason: "its job has ended and the appliance has not fetched it",
    where: sql`state = 'queued' and given_at is null and job_id is not null
      and not exists (select 1 from jobs j where j.job_id = orders.job_id and j.ended_at is null)`,
    settle: sql`update orders set state = 'done', ended_at = clock_timestamp(),
      result = jsonb_build_object('outcome', 'failed', 'orderId', order_id::text, 'fault', ${withdrawn}::jsonb)`,
  },
  {
    kind: "operation in progress",
    table: "operations",
    id: sql`operation_id::text`,
    reason: "nobody carries it out",
    where: sql`status = 'InProgress' and (
      exists (select 1 from jobs j where j.job_id = operations.operation_id and j.ended_at is not null)
      or (not exists (select 1 from jobs j where j.job_id = operations.operation_id)
        and operations.started_at < coalesce((select min(h.started_at) from hubs h where h.seen_at > clock_timestamp() - interval '1 minute'),
          clock_timestamp() - interval '1 hour')))`,
    settle: sql`update operations set status = 'Failed', ended_at = clock_timestamp(), fault = ${interrupted}::jsonb`,
  },
  {
    kind: "private address",
    table: "private_addresses",
    id: sql`address`,
    reason: "its endpoint is gone",
    where: sql`not exists (select 1 from resources r where r.key = private_addresses.endpoint_key)`,
  },
  {
    kind: "endpoint interface",
    table: "resources",
    id: sql`id`,
    reason: "its private endpoint is gone",
    where: sql`type = 'microsoft.network/networkinterfaces' and properties->'privateEndpoint'->>'id' is not null
      and not exists (select 1 from resources r where r.key = lower(resources.properties->'privateEndpoint'->>'id'))`,
  },
  {
    kind: "endpoint record",
    table: "resources",
    id: sql`id`,
    reason: "the zone group that made it is gone",
    where: sql`type = 'microsoft.network/privatednszones/a' and properties->'metadata'->>'creator' like '%/privateDnsZoneGroups/%'
      and not exists (select 1 from resources r where r.key = lower(resources.properties->'metadata'->>'creator'))`,
  },
  {
    kind: "secret",
    table: "secrets",
    id: sql`owner_key || '#' || name`,
    reason: "its owner is gone",
    where: sql`owner_key like '/subscriptions/%/providers/%' and not exists (
      select 1 from resources r where (secrets.owner_key = r.key or starts_with(secrets.owner_key, r.key || '/')) and r.key like '%/providers/%')`,
  },
  {
    kind: "registration key",
    table: "registration_keys",
    id: sql`key_id::text`,
    reason: "its vault is gone",
    where: sql`not exists (select 1 from resources r where r.key = registration_keys.vault_key)`,
  },
  {
    kind: "machine state",
    table: "machine_states",
    id: sql`machine_id::text`,
    reason: "no protected item is this machine",
    where: isOfNoItem("machine_states"),
  },
  {
    kind: "catalogued point",
    table: "points",
    id: sql`point_id::text`,
    reason: "no protected item is its machine",
    where: isOfNoItem("points"),
  },
  {
    kind: "landed machine's row",
    table: "resources",
    id: sql`id`,
    reason: "it was never landed, and no job is landing it",
    where: sql`type = 'microsoft.compute/virtualmachines' and provisioning_state = 'Creating'
      and not exists (select 1 from jobs j where j.ended_at is null and lower(j.target_id) = coalesce(lower(resources.properties->>'itemId'), resources.key))`,
  },
];

export interface RowOrphans {
  readonly kind: string;
  find(): Promise<readonly OrphanRow[]>;
  /** Only the rows named that still belong to nothing. Answers how many. */
  remove(ids: readonly string[]): Promise<number>;
}

export function rowOrphans(db: Kysely<Tables>): readonly RowOrphans[] {
  return rules.map(({ kind, table, id, reason, where, settle }) => ({
    kind,
    find: async () => {
      const found = await sql<{ id: string }>`select ${id} as id from ${sql.table(table)} where ${where} limit ${rowsMax}`.execute(db);
      return found.rows.map((row) => ({ id: row.id, reason }));
    },
    remove: async (ids) => {
      const act = settle ?? sql`delete from ${sql.table(table)}`;
      const done = await sql`${act} where ${where} and ${id} = any(${[...ids]})`.execute(db);
      return Number(done.numAffectedRows ?? 0);
    },
  }));
}

/** Names of landed machines that the database knows or that a job may be landing now. */
export async function landedNames(db: Kysely<Tables>): Promise<ReadonlySet<string>> {
  const found = await sql<{ name: string }>`select properties->'launch'->>'name' as name from resources
    where type = 'microsoft.compute/virtualmachines'`.execute(db);
  return new Set(found.rows.map((row) => row.name));
}

/** Folders that export jobs began to write and gave up; one that another export filled is not among them. */
export async function givenUpExports(
  db: Kysely<Tables>,
): Promise<readonly { readonly folder: string; readonly format: string; readonly count: number }[]> {
  const found = await sql<{ folder: string; format: string; count: number }>`
    with exports as (
      select j.job_id, j.state, j.ended_at, j.parameters->>'format' as format, s.evidence->>'folder' as folder,
        coalesce((s.evidence->>'diskCount')::int, 0) as count
      from jobs j join job_steps s on s.job_id = j.job_id and s.evidence ? 'folder' where j.kind = 'ExportPoint')
    select distinct folder, format, count from exports e where state in ('failed', 'cancelled')
      and not exists (select 1 from exports other where other.folder = e.folder and (other.state = 'succeeded' or other.ended_at is null))
    limit ${rowsMax}`.execute(db);
  return found.rows;
}
