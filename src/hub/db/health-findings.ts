// What is wrong now, as queries: each answers vault_key, entity_id, entity_name, fabric_id and message of what breaks a health rule.

import { sql, type Kysely } from "kysely";
import type { Findings } from "./health-errors.ts";
import type { Tables } from "./tables.ts";

const itemType = "microsoft.recoveryservices/vaults/replicationfabrics/replicationprotectioncontainers/replicationprotecteditems";
const machineType = "microsoft.compute/virtualmachines";
const vaultOfItem = sql`substring(i.key from '^(.*?/microsoft\\.recoveryservices/vaults/[^/]+)/')`;
const fabricOfItem = sql`substring(i.id from '(?i)^(.*?/replicationFabrics/[^/]+)/')`;
const fabricOfAppliance = sql`coalesce(v.id, a.vault_key) || '/replicationFabrics/' || a.appliance_id`;

/** Appliances that were last heard of before `since`. */
export function silentAppliances(since: string): Findings {
  return sql`select a.vault_key, ${fabricOfAppliance} as entity_id, a.name as entity_name, ${fabricOfAppliance} as fabric_id,
      'the appliance ' || a.name || ' has not been heard of' as message
    from appliances a left join resources v on v.key = a.vault_key where a.last_seen_at < ${since}::timestamptz`;
}

/** Appliances that slow their agents down, with their own words. */
export function appliancesWithoutCache(): Findings {
  return sql`select a.vault_key, ${fabricOfAppliance} as entity_id, a.name as entity_name, ${fabricOfAppliance} as fabric_id,
      'the appliance ' || a.name || ': ' || (told->>'message') as message
    from appliances a left join resources v on v.key = a.vault_key
    cross join lateral jsonb_array_elements(a.telemetry->'healthErrors') told where told->>'id' = 'CacheSpaceLow'`;
}

/** Appliances whose certificate ends before `until`; of one that registered before the hub kept it, the end follows from the registration. */
export function endingCertificates(until: string, lifeDays: number): Findings {
  return sql`select a.vault_key, ${fabricOfAppliance} as entity_id, a.name as entity_name, ${fabricOfAppliance} as fabric_id,
      'the certificate of the appliance ' || a.name || ' ends soon' as message
    from appliances a left join resources v on v.key = a.vault_key 
    where coalesce(a.certificate_ends_at, a.registered_at + ${lifeDays} * interval '1 day') < ${until}::timestamptz`;
}

/** Items that replicate and whose agent was last heard of before `since`. */
export function silentAgents(since: string): Findings {
  return sql`select m.vault_key, i.id as entity_id, i.properties->>'machineName' as entity_name, ${fabricOfItem} as fabric_id,
      'the agent of ' || (i.properties->>'machineName') || ' has not been heard of' as message
    from resources i join machine_states m on m.vault_key = ${vaultOfItem} and m.machine_id = (i.properties->>'machineId')::uuid
    where i.type = ${itemType} and i.properties->>'protectionState' in ('InitialReplicationInProgress', 'Protected')
      and m.last_seen_at < ${since}::timestamptz`;
}

/** Protected items whose newest point is older than `factor` intervals of their policy, and older than `floorMs`. */
export function overduePoints(nowMs: number, allowed: { readonly factor: number; readonly floorMs: number }): Findings {
  const intervalSeconds = sql`coalesce((p.properties->'settings'->>'pointIntervalSeconds')::float8,
    (p.properties->'settings'->>'crashConsistentFrequencyInMinutes')::float8 * 60, 300)`;
  return sql`select s.vault_key, i.id as entity_id, i.properties->>'machineName' as entity_name, ${fabricOfItem} as fabric_id,
      (i.properties->>'machineName') || ' has had no new recovery point for longer than its policy allows' as message
    from resources i
    cross join lateral (select ${vaultOfItem} as vault_key) s
    left join resources p on p.key = s.vault_key || '/replicationpolicies/' || lower(i.properties->>'policyName')
    left join lateral (select time_ms from points q where q.vault_key = s.vault_key and q.machine_id = (i.properties->>'machineId')::uuid
      order by q.time_ms desc, q.point_id desc limit 1) newest on true
    where i.type = ${itemType} and i.properties->>'protectionState' = 'Protected'
      and coalesce(newest.time_ms, extract(epoch from i.updated_at) * 1000)
        < ${nowMs}::float8 - greatest(${allowed.floorMs}::float8, ${intervalSeconds} * 1000 * ${allowed.factor}::float8)`;
}

/** The same of application-consistent points, of items whose policy asks for them; `factor` counts its minutes. */
export function overdueApplicationPoints(nowMs: number, allowed: { readonly factor: number }): Findings {
  const minutes = sql`(p.properties->'settings'->>'appConsistentFrequencyInMinutes')::float8`;
  return sql`select s.vault_key, i.id as entity_id, i.properties->>'machineName' as entity_name, ${fabricOfItem} as fabric_id,
      (i.properties->>'machineName') || ' has had no application-consistent recovery point for longer than its policy allows' as message
    from resources i
    cross join lateral (select ${vaultOfItem} as vault_key) s
    join resources p on p.key = s.vault_key || '/replicationpolicies/' || lower(i.properties->>'policyName') and ${minutes} > 0
    left join lateral (select time_ms from points q where q.vault_key = s.vault_key and q.machine_id = (i.properties->>'machineId')::uuid
      and q.consistency = 'application' order by q.time_ms desc, q.point_id desc limit 1) newest on true
    where i.type = ${itemType} and i.properties->>'protectionState' = 'Protected'
      and coalesce(newest.time_ms, extract(epoch from i.updated_at) * 1000) < ${nowMs}::float8 - ${minutes} * 60000 * ${allowed.factor}::float8`;
}

/** What a target was seen to have: everything that landed there before `seenAt` and is not among `names` is gone. */
export interface SeenTarget {
  readonly place: string | undefined;
  readonly names: readonly string[];
  readonly seenAt: string;
}

/** Items with a landed machine that its target does not have, while no job is at work on the item. */
export function goneMachines({ place, names, seenAt }: SeenTarget): Findings {
  return sql`select distinct on (i.key) ${vaultOfItem} as vault_key, i.id as entity_id, i.properties->>'machineName' as entity_name,
      ${fabricOfItem} as fabric_id, 'the landed machine ' || (m.properties->'launch'->>'name') || ' is not on its host any more' as message
    from resources m join resources i on i.key = lower(m.properties->>'itemId')
    where m.type = ${machineType} and m.provisioning_state = 'Succeeded' and m.updated_at < ${seenAt}::timestamptz and ${isAt(place)}
      and not (m.properties->'launch'->>'name' = any(${names}::text[]))
      and not exists (select 1 from jobs j where j.ended_at is null and lower(j.target_id) = i.key)
    order by i.key`;
}

/** Raised errors that the hub of `place` may clear: of items with no landed machine at another place. */
export function isJudgedAt(place: string | undefined): Findings {
  return sql`not exists (select 1 from resources m where m.type = ${machineType} and lower(m.properties->>'itemId') = h.entity_key
    and not ${isAt(place)})`;
}

function isAt(place: string | undefined): Findings {
  return place === undefined ? sql`true` : sql`coalesce(m.properties->>'place', ${place}) = ${place}`;
}

/** Private endpoints that lead to a vault, or to the storage account of one, and are not approved. */
export function unapprovedEndpoints(): Findings {
  const connections = sql`jsonb_array_elements(coalesce(e.properties->'privateLinkServiceConnections', '[]')
    || coalesce(e.properties->'manualPrivateLinkServiceConnections', '[]')) c(body)`;
  const target = sql`lower(c.body->'properties'->>'privateLinkServiceId')`;
  return sql`select distinct on (e.key) v.key as vault_key, e.id as entity_id, e.name as entity_name, null::text as fabric_id,
      'the connection of the private endpoint ' || e.name || ' is '
        || lower(c.body->'properties'->'privateLinkServiceConnectionState'->>'status') as message
    from resources e cross join lateral ${connections}
    join resources v on v.type = 'microsoft.recoveryservices/vaults' and ${target} in (v.key, lower(v.properties->>'watariStorageAccountId'))
    where e.type = 'microsoft.network/privateendpoints'
      and c.body->'properties'->'privateLinkServiceConnectionState'->>'status' in ('Pending', 'Rejected', 'Disconnected')
    order by e.key, v.key`;
}

/** Jobs that no hub has worked on since `since` and that do not wait for a person. */
export function stuckJobs(since: string): Findings {
  return sql`select j.scope as vault_key, coalesce(v.id, j.scope) || '/replicationJobs/' || j.job_id as entity_id, j.target_name as entity_name,
      null::text as fabric_id, 'no hub works on the job ' || j.title || ' of ' || j.target_name as message
    from jobs j left join resources v on v.key = j.scope
    where j.ended_at is null and j.state <> 'suspended' and coalesce(j.lease_until, j.created_at) < ${since}::timestamptz`;
}

/** Messages that have failed more often than a short disturbance explains, and those that were given up within a day. */
const failedAttempts = 3;

/** Vaults with such messages. */
export function undeliveredAlerts(): Findings {
  return sql`select m.vault_key, v.id as entity_id, v.name as entity_name, null::text as fabric_id,
      'alerts of the vault ' || v.name || ' are not delivered to ' || min(regexp_replace(m.target_id, '^.*/', '')) as message
    from alert_messages m join resources v on v.key = m.vault_key
    where (m.state = 'waiting' and m.attempt_count >= ${failedAttempts} and m.outcome is not null)
      or (m.state = 'dead' and m.ended_at > clock_timestamp() - interval '1 day')
    group by m.vault_key, v.id, v.name`;
}

/** Vaults, found wrong by other means. */
export function namedVaults(vaultIds: readonly string[]): Findings {
  return sql`select v.key as vault_key, v.id as entity_id, v.name as entity_name, null::text as fabric_id,
      'the identity of the vault ' || v.name || ' may not write to its storage account' as message
    from resources v where v.key = any(${vaultIds.map((id) => id.toLowerCase())}::text[])`;
}

/** Vaults with an appliance, by id; few. */
export async function vaultsWithAppliances(db: Kysely<Tables>, countMax: number): Promise<readonly string[]> {
  const found = await sql<{ id: string }>`select v.id from resources v
    where v.type = 'microsoft.recoveryservices/vaults' and exists (select 1 from appliances a where a.vault_key = v.key)
    order by v.key limit ${countMax}`.execute(db);
  return found.rows.map(({ id }) => id);
}
