// A hub's database filled as after years: protected items, their states and points, jobs that failed and so are events. Made by SQL alone.
// As a program: `node bench/hub-state.ts [items] [events]` fills a hub of its own and shows how long it takes to start.

import assert from "node:assert/strict";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql, type Kysely } from "kysely";
import { systemClock } from "../src/base/clock.ts";
import { silentLog } from "../src/base/log.ts";
import { systemRandom } from "../src/base/random.ts";
import { parseMachineId } from "../src/contract/ids.ts";
import { openApplianceCatalogue } from "../src/hub/db/appliances.ts";
import { openPlainConnection } from "../src/hub/db/database.ts";
import { openPointCatalogue } from "../src/hub/db/points.ts";
import { startPrivateCluster } from "../src/hub/db/private-cluster.ts";
import type { Tables } from "../src/hub/db/tables.ts";
import { extensions } from "../src/hub/extensions.ts";
import { parseHubConfig } from "../src/hub/hub-config.ts";
import { parseItem } from "../src/hub/replication/item.ts";
import { startHub } from "../src/hub/main.ts";

export interface HubStateWish {
  readonly itemCount: number;
  readonly eventCount: number;
  /** Resource group that holds the vault; both are made when they are not there. */
  readonly groupId: string;
  readonly vaultName: string;
}

const itemsPerAppliance = 250;
const pointsPerItem = 4;
const diskBytes = 40 * 2 ** 30;

/** Into a migrated database. Ids follow from their numbers, so that a bench can name any of them. */
export async function generateHubState(db: Kysely<Tables>, wish: HubStateWish): Promise<void> {
  const { itemCount, eventCount, groupId, vaultName } = wish;
  const vaultId = `${groupId}/providers/Microsoft.RecoveryServices/vaults/${vaultName}`;
  await db.transaction().execute(async (transaction) => {
    await saveParents(transaction, groupId, vaultId);
    await saveAppliances(transaction, vaultId, Math.ceil(itemCount / itemsPerAppliance));
    await saveItems(transaction, vaultId, itemCount);
    await saveJobs(transaction, vaultId, { itemCount, eventCount });
    await saveEvents(transaction, vaultId);
  });
  for (const table of ["resources", "appliances", "machine_states", "points", "jobs", "operations", "events"])
    await sql`vacuum analyze ${sql.table(table)}`.execute(db);
}

/** UUID of the n-th thing of a kind, as the SQL below makes it. */
const uuidOf = (kind: string, number: string) => `md5('${kind}' || ${number})::uuid`;
const applianceOf = (number: string) => uuidOf("appliance", `(${number} / ${itemsPerAppliance})`);

const itemPath = (vault: string, number: string) =>
  `${vault} || '/replicationFabrics/' || ${applianceOf(number)} || '/replicationProtectionContainers/cloud_' || ${applianceOf(number)}
   || '/replicationProtectedItems/' || ${uuidOf("infrastructure", number)}`;

async function saveParents(db: Kysely<Tables>, groupId: string, vaultId: string): Promise<void> {
  const rows = [
    { id: groupId, type: "microsoft.resources/resourcegroups" },
    { id: vaultId, type: "microsoft.recoveryservices/vaults" },
  ];
  for (const { id, type } of rows)
    await sql`insert into resources (key, id, type, name, parent_key, location, envelope, properties, provisioning_state, etag, created_at, updated_at)
      values (lower(${id}), ${id}, ${type}, ${id.split("/").at(-1)}, lower(${groupId}), 'lab1', '{}', '{}', 'Succeeded', '"e"', now(), now())
      on conflict do nothing`.execute(db);
}

async function saveAppliances(db: Kysely<Tables>, vaultId: string, count: number): Promise<void> {
  await sql`insert into appliances (appliance_id, vault_key, name, version, certificate_digest, registered_at, last_seen_at)
    select ${sql.raw(uuidOf("appliance", "n"))}, lower(${vaultId}), 'site-' || n, '0.1.0', md5('digest' || n), now(), now()
    from generate_series(0, ${count - 1}::int) n on conflict do nothing`.execute(db);
}

async function saveItems(db: Kysely<Tables>, vaultId: string, count: number): Promise<void> {
  const vault = `'${vaultId}'`;
  const facts = `jsonb_build_object('hostname', 'machine-' || n, 'smbiosUuid', ${uuidOf("smbios", "n")}, 'osMachineId', md5('os' || n),
    'bootId', ${uuidOf("boot", "n")}, 'osName', 'Debian GNU/Linux 12', 'kernelRelease', '6.1.0', 'cpuCount', 2, 'memoryBytes', 4294967296,
    'firmware', 'bios', 'addresses', '[]'::jsonb, 'nics', '[]'::jsonb, 'disks', jsonb_build_array(jsonb_build_object('diskId', 'sda',
    'deviceName', 'sda', 'sizeBytes', ${diskBytes}::bigint, 'identifiedBy', 'serial', 'isBoot', true, 'excluded', '[]'::jsonb)))`;
  const state = `jsonb_build_object('phase', 'delta', 'disks', '[]'::jsonb, 'readBytes', 0, 'sentBytes', 0, 'residentBytes', 0,
    'cpuSeconds', 0, 'pointCount', ${pointsPerItem})`;
  const point = `jsonb_build_object('pointId', md5('point' || n || '/' || p)::uuid, 'machineId', ${uuidOf("machine", "n")},
    'timeMs', 1700000000000 + p * 300000, 'sealedAt', '2026-01-01T00:00:00.000Z', 'consistency', 'crash', 'readBytes', 0, 'sentBytes', 0,
    'storedBytes', 0, 'frozenMs', 1, 'mode', 'delta', 'disks', jsonb_build_array(jsonb_build_object('diskId', 'sda',
    'sizeBytes', ${diskBytes}::bigint, 'root', repeat('ab', 32), 'isBoot', true)))`;
  await sql`insert into resources (key, id, type, name, parent_key, envelope, properties, provisioning_state, etag, created_at, updated_at)
    select lower(id), id, 'microsoft.recoveryservices/vaults/replicationfabrics/replicationprotectioncontainers/replicationprotecteditems',
      name, lower(regexp_replace(id, '/replicationProtectedItems/[^/]*$', '')), '{}',
      jsonb_build_object('infrastructureId', name, 'applianceId', appliance, 'machineName', 'machine-' || n, 'smbiosUuid', smbios, 'runAsAccountId', 'root',
        'policyName', 'default', 'machineId', machine, 'protectionState', 'Protected', 'testFailoverState', 'None', 'facts', facts),
      'Succeeded', '"' || machine || '"', now(), now()
    from (select n, ${sql.raw(itemPath(vault, "n"))} as id, ${sql.raw(uuidOf("infrastructure", "n"))}::text as name,
      ${sql.raw(applianceOf("n"))}::text as appliance, ${sql.raw(uuidOf("smbios", "n"))}::text as smbios, ${sql.raw(uuidOf("machine", "n"))}::text as machine,
      ${sql.raw(facts)} as facts
      from generate_series(1, ${count}::int) n) item
    on conflict do nothing`.execute(db);
  await sql`insert into machine_states (vault_key, machine_id, appliance_id, last_seen_at, report)
    select lower(${vaultId}), ${sql.raw(uuidOf("machine", "n"))}, ${sql.raw(applianceOf("n"))}, now(),
      jsonb_build_object('machineId', ${sql.raw(uuidOf("machine", "n"))}, 'infrastructureId', ${sql.raw(uuidOf("infrastructure", "n"))},
        'agentVersion', '0.1.0', 'facts', ${sql.raw(facts)}, 'state', ${sql.raw(state)}, 'lastSeenAt', to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
    from generate_series(1, ${count}::int) n on conflict do nothing`.execute(db);
  await sql`insert into points (vault_key, machine_id, point_id, time_ms, consistency, report)
    select lower(${vaultId}), ${sql.raw(uuidOf("machine", "n"))}, md5('point' || n || '/' || p)::uuid, 1700000000000 + p * 300000, 'crash', ${sql.raw(point)}
    from generate_series(1, ${count}::int) n, generate_series(1, ${pointsPerItem}) p on conflict do nothing`.execute(db);
}

async function saveJobs(
  db: Kysely<Tables>,
  vaultId: string,
  { itemCount, eventCount }: { readonly itemCount: number; readonly eventCount: number },
): Promise<void> {
  const fault = {
    id: "ProbeFailed",
    message: "the landed machine did not answer",
    causes: [],
    action: "look",
    evidence: {},
    retry: "later",
  };
  await sql`insert into jobs (job_id, kind, title, scope, target_id, target_name, lock_key, actor, parameters, state, fault, created_at, started_at, ended_at)
    select ${sql.raw(uuidOf("job", "n"))}, 'TestFailover', 'test the migration', lower(${vaultId}),
      ${sql.raw(itemPath(`'${vaultId}'`, `(1 + n % ${itemCount})`))}, 'machine-' || (1 + n % ${itemCount}::int), 'generated-' || n, 'bench', '{}', 'failed',
      ${JSON.stringify(fault)}::jsonb, at, at, at + interval '1 minute'
    from (select n, now() - n * interval '7 seconds' as at from generate_series(1, ${eventCount}::int) n) job on conflict do nothing`.execute(
    db,
  );
}

/** What each of those jobs told when it failed. */
async function saveEvents(db: Kysely<Tables>, vaultId: string): Promise<void> {
  await sql`insert into events (event_id, vault_key, at, dedup_key, code, kind, severity, description, affected_id, affected_name, fabric_id,
      component, fault, job)
    select md5('event' || job_id)::uuid, scope, ended_at, 'job:' || job_id, kind || 'Failed', 'JobStatus', 'Critical', fault->>'message', target_id,
      target_name, substring(target_id from '^.*/replicationFabrics/[^/]+'), 'Hub', fault,
      jsonb_build_object('jobId', job_id, 'title', title, 'state', 'Failed')
    from jobs where scope = lower(${vaultId}) on conflict do nothing`.execute(db);
}

const vaultName = "bench";

/** Of a state that was kept: its appliances and machines were heard of just now, or their silence would be all that the hub has to do. */
export async function freshenHub(stateDir: string): Promise<void> {
  await using cluster = await startPrivateCluster({ stateDir, log: silentLog });
  const { socketFolder, user, database } = cluster;
  await using connection = openPlainConnection({ kind: "socket", socketFolder, user, database }, silentLog);
  await sql`update appliances set last_seen_at = now()`.execute(connection.db);
  await sql`update machine_states set last_seen_at = now(),
    report = jsonb_set(report, '{lastSeenAt}', to_jsonb(to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')))`.execute(
    connection.db,
  );
  await sql`delete from health_errors`.execute(connection.db);
  for (const table of ["appliances", "machine_states", "health_errors", "resources"])
    await sql`vacuum analyze ${sql.table(table)}`.execute(connection.db);
  await sql`checkpoint`.execute(connection.db);
}

/** Makes a hub's state folder and cluster, as a stopped hub of that size leaves them. Answers the vault's id. */
export async function fillHub(wish: {
  readonly stateDir: string;
  readonly itemCount: number;
  readonly eventCount: number;
}): Promise<string> {
  const { stateDir, itemCount, eventCount } = wish;
  await startOnce(stateDir);
  await using cluster = await startPrivateCluster({ stateDir, log: silentLog });
  const { socketFolder, user, database } = cluster;
  await using connection = openPlainConnection({ kind: "socket", socketFolder, user, database }, silentLog);
  const { value } = await connection.db
    .selectFrom("settings")
    .select("value")
    .where("name", "=", "subscriptionId")
    .executeTakeFirstOrThrow();
  const group = `/subscriptions/${value}/resourceGroups/bench`;
  const startedMs = systemClock.monotonicMs();
  await generateHubState(connection.db, { itemCount, eventCount, groupId: group, vaultName });
  await proveReadable(connection.db, group);
  const seconds = (systemClock.monotonicMs() - startedMs) / 1000;
  process.stderr.write(`filled in ${seconds.toFixed(1)} s: ${itemCount} items, ${eventCount} events\n`);
  return `${group}/providers/Microsoft.RecoveryServices/vaults/${vaultName}`;
}

/** Seconds to be ready for calls. */
async function startOnce(stateDir: string): Promise<number> {
  const config = parseHubConfig({ domain: "watari.test", stateDir, publicAddresses: ["127.0.0.1"], managementPort: 0 });
  const startedMs = systemClock.monotonicMs();
  await using hub = await startHub(config, { clock: systemClock, random: systemRandom, log: silentLog, extensions });
  return hub.port > 0 ? (systemClock.monotonicMs() - startedMs) / 1000 : Number.NaN;
}

async function measureStarts(itemCount: number, eventCount: number): Promise<void> {
  const stateDir = await mkdtemp(join(tmpdir(), "wb-state-"));
  await chmod(stateDir, 0o711);
  try {
    await fillHub({ stateDir, itemCount, eventCount });
    for (let round = 1; round <= 3; round++) process.stdout.write(`start ${round}: ${(await startOnce(stateDir)).toFixed(2)} s\n`);
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
}

/** What was made by SQL is what the hub itself would have stored: its own readers accept one of each. */
async function proveReadable(db: Kysely<Tables>, groupId: string): Promise<void> {
  const found = await sql<{
    machineId: string;
    properties: Record<string, unknown>;
  }>`select properties->>'machineId' as "machineId", properties
    from resources where type like '%/replicationprotecteditems' order by key limit 1`.execute(db);
  const vaultKey = `${groupId}/providers/Microsoft.RecoveryServices/vaults/bench`.toLowerCase();
  const machineId = parseMachineId(found.rows[0]?.machineId ?? "");
  parseItem(found.rows[0]?.properties ?? {});
  const machine = await openApplianceCatalogue({ db, clock: systemClock }).machine(vaultKey, machineId);
  const points = await openPointCatalogue({ db }).list(vaultKey, machineId, { countMax: 10 });
  assert.ok(machine !== undefined && points.length === pointsPerItem);
}

if (import.meta.main) await measureStarts(Number(process.argv[2] ?? 10_000), Number(process.argv[3] ?? 1_000_000));
