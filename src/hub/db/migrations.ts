// The numbered changes of the database, each run once, in order, in its own transaction. Add at the end; never edit one that shipped.

import { sql, type Kysely } from "kysely";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { alertStatements } from "../alerts/schema.ts";
import { healthStatements } from "../health/schema.ts";
import { jobFileStatements } from "./job-files.ts";
import { jobControlStatements, jobStatements, jobTraceStatements } from "../jobs/schema.ts";
import { peopleStatements } from "./people-schema.ts";
import type { Tables } from "./tables.ts";
import { vaultKeyStatements } from "./vault-keys.ts";

interface Migration {
  readonly number: number;
  readonly name: string;
  readonly statements: readonly string[];
}

const migrations: readonly Migration[] = [
  {
    number: 1,
    name: "resources, operations, audit, secrets, principals",
    statements: [
      `create table resources (
        key text primary key, id text not null, type text not null, name text not null, parent_key text not null,
        location text, envelope jsonb not null, properties jsonb not null, provisioning_state text not null, etag text not null,
        created_at timestamptz not null, updated_at timestamptz not null)`,
      `create index resources_by_parent on resources (parent_key, type, key)`,
      `create index resources_by_type on resources (type, key text_pattern_ops)`,
      `create index role_assignments_by_principal on resources ((properties->>'principalId'))
        where type = 'microsoft.authorization/roleassignments'`,
      `create table settings (name text primary key, value text not null)`,
      `create table operations (
        operation_id uuid primary key, resource_id text not null, action text not null, status text not null,
        percent double precision not null, fault jsonb, result jsonb, started_at timestamptz not null, ended_at timestamptz)`,
      `create index operations_in_progress on operations (started_at) where status = 'InProgress'`,
      `create table audit (
        sequence bigint generated always as identity primary key, at timestamptz not null, principal_id text not null,
        action text not null, resource_id text not null, correlation_id text not null, outcome text not null)`,
      `create table secrets (owner_key text not null, name text not null, sealed bytea not null, primary key (owner_key, name))`,
      `create table principals (
        principal_id uuid primary key, client_id uuid not null unique, kind text not null, name text not null,
        secret_hash text, created_at timestamptz not null)`,
    ],
  },
  {
    number: 2,
    name: "private addresses",
    statements: [
      `create table private_addresses (
        subnet_key text not null, address text not null, endpoint_key text not null, member text not null,
        primary key (subnet_key, address), unique (endpoint_key, member))`,
    ],
  },
  {
    number: 3,
    name: "appliances, registration keys, orders, points, machine states",
    statements: [
      `create table registration_keys (
        key_id uuid primary key, vault_key text not null, sealed bytea, expires_at timestamptz not null,
        used_at timestamptz, appliance_id uuid)`,
      `create table appliances (
        appliance_id uuid primary key, vault_key text not null, name text not null, version text not null,
        certificate_digest text not null, registered_at timestamptz not null, last_seen_at timestamptz not null,
        telemetry jsonb, inventory jsonb, inventory_at timestamptz)`,
      `create index appliances_by_vault on appliances (vault_key)`,
      `create table orders (
        order_id uuid primary key, sequence bigint generated always as identity, appliance_id uuid not null,
        kind text not null, body jsonb not null, state text not null, percent double precision not null,
        progress_text text not null, result jsonb, created_at timestamptz not null, given_at timestamptz, ended_at timestamptz)`,
      `create index orders_queued on orders (appliance_id, sequence) where state = 'queued'`,
      `create table points (
        vault_key text not null, machine_id uuid not null, point_id uuid not null, time_ms bigint not null,
        consistency text not null, report jsonb not null, primary key (vault_key, point_id))`,
      `create index points_by_machine on points (vault_key, machine_id, time_ms desc, point_id desc)`,
      `create table machine_states (
        vault_key text not null, machine_id uuid not null, appliance_id uuid not null, last_seen_at timestamptz not null,
        report jsonb not null, primary key (vault_key, machine_id))`,
    ],
  },
  { number: 4, name: "jobs, steps, log", statements: jobStatements },
  { number: 5, name: "job holds, restarts, fencing numbers", statements: jobControlStatements },
  {
    number: 6,
    name: "hubs of the database, places of landed machines",
    statements: [
      `create table hubs (
        hub_id uuid primary key, host text not null, schema int not null, started_at timestamptz not null default clock_timestamp(),
        seen_at timestamptz not null default clock_timestamp())`,
    ],
  },
  {
    number: 7,
    name: "orders name their job, questions to the collector",
    statements: [
      `alter table orders add column job_id uuid`,
      `create table collections (
        collection_id uuid primary key, mode text not null, asked_at timestamptz not null default clock_timestamp(), host text, answer jsonb)`,
      `create index resources_machine_ids on resources ((properties->>'machineId')) where type like '%/replicationprotecteditems'`,
    ],
  },
  {
    number: 8,
    name: "jobs of landed machines belong to a place",
    statements: [
      `alter table jobs add column place text`,
      `create index resources_landed_by_item on resources (lower(properties->>'itemId')) where type = 'microsoft.compute/virtualmachines'`,
    ],
  },
  {
    number: 9,
    name: "names, endpoints and records by index",
    statements: [
      `create index resources_by_name on resources (type, lower(name))`,
      `create index endpoints_by_target on resources
        (type, lower(properties->'privateLinkServiceConnections'->0->'properties'->>'privateLinkServiceId'))
        where type = 'microsoft.network/privateendpoints'`,
      `create index records_by_creator on resources (type, lower(properties->'metadata'->>'creator'))
        where type = 'microsoft.network/privatednszones/a'`,
      `create index vaults_by_id on resources (type, lower(properties->>'watariVaultId'))
        where type = 'microsoft.recoveryservices/vaults'`,
    ],
  },
  {
    number: 10,
    name: "events",
    statements: [
      // Milliseconds, as they are answered: a page begins exactly where the one before ended.
      `create table events (
        event_id uuid primary key, vault_key text not null, at timestamptz(3) not null, dedup_key text not null, code text not null,
        kind text not null, severity text not null, description text not null, affected_id text not null, affected_name text not null,
        fabric_id text, component text not null, fault jsonb, job jsonb, unique (vault_key, dedup_key))`,
      `create index events_by_time on events (vault_key, at desc, event_id desc)`,
      `create index events_by_age on events (at)`,
    ],
  },
  { number: 11, name: "health errors", statements: healthStatements },
  {
    number: 12,
    name: "audit entries, added only",
    statements: [
      `alter table audit rename to audit_unchained`,
      `create table audit_entries (
        sequence bigint primary key, entry text not null, previous_hash text not null, hash text not null)`,
      `create function refuse_audit_change() returns trigger language plpgsql as
        $$ begin raise exception 'entries of the audit trail are never changed nor removed'; end $$`,
      ...["audit_entries", "audit_unchained"].map(
        (table) => `create trigger ${table}_stay before update or delete or truncate on ${table}
          for each statement execute function refuse_audit_change()`,
      ),
    ],
  },
  {
    number: 13,
    name: "figures of jobs by their end",
    statements: [
      `create index jobs_by_end on jobs (ended_at) where ended_at is not null`,
      `create index job_steps_by_end on job_steps (ended_at) where ended_at is not null`,
    ],
  },
  {
    number: 14,
    name: "credentials of service principals",
    statements: [
      `create table credentials (
        credential_id uuid primary key, principal_id uuid not null references principals on delete cascade, kind text not null,
        secret_hash text, certificate_pem text, sha1 text, sha256 text, expires_at timestamptz not null, created_at timestamptz not null)`,
      `create index credentials_by_principal on credentials (principal_id)`,
      `create table assertions (digest text primary key, bound_to text not null, expires_at timestamptz not null)`,
      `create index assertions_by_end on assertions (expires_at)`,
    ],
  },
  { number: 15, name: "people, groups and sessions", statements: peopleStatements },
  { number: 16, name: "removals under a condition", statements: [`alter table resources add column removal_until timestamptz`] },
  {
    number: 17,
    name: "certificates and protocol versions of appliances",
    statements: [
      `alter table appliances add column next_certificate_digest text, add column certificate_ends_at timestamptz(3),
        add column protocol_version integer`,
    ],
  },
  { number: 18, name: "alerts", statements: alertStatements },
  { number: 19, name: "traces of jobs", statements: jobTraceStatements },
  {
    number: 20,
    name: "ended operations and events that tell little, by age",
    statements: [
      `create index operations_by_end on operations (ended_at) where ended_at is not null`,
      `create index events_info_by_age on events (at) where severity = 'Info'`,
    ],
  },
  {
    number: 21,
    name: "items by policy",
    statements: [
      `create index items_by_policy on resources (type, lower(properties->>'policyName')) where properties->>'policyName' is not null`,
    ],
  },
  {
    number: 22,
    name: "events by what they happened to",
    statements: [`create index events_by_affected on events (lower(affected_name), at desc, event_id desc)`],
  },
  {
    number: 23,
    name: "points of groups of machines",
    statements: [
      `create index points_by_group on points (vault_key, (report->'group'->>'groupPointId')) where report->'group'->>'groupPointId' is not null`,
    ],
  },
  { number: 24, name: "generations of vault keys", statements: vaultKeyStatements },
  { number: 25, name: "files of jobs, verified points", statements: jobFileStatements },
];

/** What this program knows. */
export const newestSchema = migrations.at(-1)?.number ?? 0;
/** A hub that was not seen for this long is gone. */
export const hubForgottenMs = 20_000;
const olderHubsPollMs = 500;

/** Any number that no other program of this database takes: two hubs that start together migrate one after the other. */
const migrationLock = 7_212_101;

/** Brings the schema to this program's version. A newer schema than this program knows is refused. */
export async function migrate(
  db: Kysely<Tables>,
  work: { readonly log: Log; readonly clock: Clock; readonly hubs: "one" | "several" },
): Promise<void> {
  const { log, clock, hubs } = work;
  await db.connection().execute(async (connection) => {
    await sql`select pg_advisory_lock(${migrationLock})`.execute(connection);
    try {
      await sql`create table if not exists schema_migrations (number int primary key, name text not null, applied_at timestamptz not null default now())`.execute(
        connection,
      );
      const applied = await sql<{ number: number }>`select number from schema_migrations order by number`.execute(connection);
      const present = applied.rows.at(-1)?.number ?? 0;
      const newest = newestSchema;
      if (present > newest)
        throw new Fault("StateConflict", "could not open the database: a newer version of the hub has used it", {
          evidence: { schema: present, known: newest },
          action: "run the newer version of the hub",
          retry: "never",
        });
      if (present < newest && hubs === "several") await waitForOlderHubs(connection, newest, clock);
      for (const migration of migrations) if (migration.number > present) await apply(connection, migration, log);
    } finally {
      await sql`select pg_advisory_unlock(${migrationLock})`.execute(connection);
    }
  });
}

/** A hub that runs with an older schema would write what the newer one forbids; one that was killed is forgotten after a while. */
async function waitForOlderHubs(db: Kysely<Tables>, schema: number, clock: Clock): Promise<void> {
  const table = await sql<{ name: string | null }>`select to_regclass('hubs')::text as name`.execute(db);
  if (table.rows[0]?.name === null) return;
  const endMs = clock.monotonicMs() + 1.5 * hubForgottenMs;
  for (;;) {
    const older = await sql<{ host: string }>`select host from hubs
      where schema < ${schema} and seen_at > clock_timestamp() - ${hubForgottenMs} * interval '1 ms'`.execute(db);
    if (older.rows.length === 0) return;
    if (clock.monotonicMs() > endMs)
      throw new Fault("StateConflict", "could not bring the database to this version: hubs of an older version use it", {
        evidence: { hosts: older.rows.map((row) => row.host), schema },
        action: "stop the older hubs, start this one, then start the others with this version",
        retry: "later",
      });
    await clock.sleep(olderHubsPollMs);
  }
}

async function apply(db: Kysely<Tables>, migration: Migration, log: Log): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    for (const statement of migration.statements) await sql.raw(statement).execute(transaction);
    await sql`insert into schema_migrations (number, name) values (${migration.number}, ${migration.name})`.execute(transaction);
  });
  log.info("database migrated", { number: migration.number, name: migration.name });
}
