// The table of health errors, and the triggers that ring for the reconciler when what it judges by has changed.

/** Told when a role, a private endpoint or an appliance's coming back may raise or clear a health error. */
export const healthTopic = "health";

/** Who changes such a row need not know of health: the database tells it, at the commit, once a transaction. */
export const healthStatements: readonly string[] = [
  `create table health_errors (
    error_id uuid primary key default gen_random_uuid(), vault_key text not null, entity_key text not null, entity_id text not null,
    entity_name text not null, fabric_id text, code text not null, message text not null, raised_at timestamptz not null, cleared_at timestamptz)`,
  `create unique index health_errors_open on health_errors (entity_key, code) where cleared_at is null`,
  `create index health_errors_open_by_vault on health_errors (vault_key, code) where cleared_at is null`,
  `create index health_errors_open_by_code on health_errors (code) where cleared_at is null`,
  `create index health_errors_cleared on health_errors (cleared_at) where cleared_at is not null`,
  `create function ring_health() returns trigger language plpgsql as $$ begin perform pg_notify('watari', '${healthTopic}'); return null; end $$`,
  `create trigger resources_ring_health after insert or update on resources for each row
    when (new.type in ('microsoft.authorization/roleassignments', 'microsoft.network/privateendpoints')) execute function ring_health()`,
  `create trigger resources_gone_ring_health after delete on resources for each row
    when (old.type in ('microsoft.authorization/roleassignments', 'microsoft.network/privateendpoints')) execute function ring_health()`,
  `create trigger appliances_ring_health after update of last_seen_at on appliances for each row
    when (new.last_seen_at - old.last_seen_at > interval '2 minutes') execute function ring_health()`,
];
