// Figures for monitoring: counts and quantiles, each one bounded query; none names a machine.

import { sql, type Kysely } from "kysely";
import type { Tables } from "./tables.ts";

export interface Figure {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface HubFigures {
  /** Jobs that are open or ended within a day, by kind and state. */
  readonly jobs: readonly Figure[];
  /** Quantiles of the steps that ended within an hour, by kind and step. */
  readonly stepSeconds: readonly Figure[];
  readonly appliances: readonly Figure[];
  readonly ordersQueued: number;
  /** Protected items by protection state and health. */
  readonly items: readonly Figure[];
  /** Age of the newest recovery point of protected items, quantiles by vault. */
  readonly lagSeconds: readonly Figure[];
  /** How long writers stood still for the newest recovery point of protected items, quantiles by vault. */
  readonly pauseSeconds: readonly Figure[];
  /** Machines by what their replication does and by the rung of change tracking. */
  readonly modes: readonly Figure[];
  /** Machines by the stage that the others wait for. */
  readonly slowestStages: readonly Figure[];
  /** Sums by vault: bytes that no point has, bytes a second that change, machines whose changes come faster than they are moved. */
  readonly backlogBytes: readonly Figure[];
  readonly churnBytes: readonly Figure[];
  readonly fallingBehind: readonly Figure[];
  readonly healthErrors: readonly Figure[];
  /** Events of the last hour, by severity. */
  readonly events: readonly Figure[];
  /** Alerts that wait to become a message, by channel. */
  readonly alertsQueued: readonly Figure[];
  /** Messages of alerts that wait, or ended within a day, by channel and state. */
  readonly alertMessages: readonly Figure[];
  /** Age of the oldest message or alert that waits, by channel. */
  readonly alertAgeSeconds: readonly Figure[];
}

export interface FigureLimits {
  readonly now: string;
  /** Appliances that were last heard of before it are lost. */
  readonly lostBefore: string;
  readonly criticalCodes: readonly string[];
  /** Label values that one figure may have: rows beyond are left out. */
  readonly rowsMax: number;
}

const itemType = "microsoft.recoveryservices/vaults/replicationfabrics/replicationprotectioncontainers/replicationprotecteditems";
const quantiles = [0.5, 0.95, 0.99, 1] as const;

export async function readFigures(db: Kysely<Tables>, limits: FigureLimits): Promise<HubFigures> {
  const [queued] = await counted(db, sql`select count(*) as value from orders where state = 'queued'`);
  return {
    jobs: await counted(db, jobs(limits)),
    stepSeconds: await spread(db, steps(limits)),
    appliances: await counted(db, appliances(limits)),
    ordersQueued: queued?.value ?? 0,
    items: await counted(db, items(limits)),
    lagSeconds: await spread(db, newestPoints(limits, sql`extract(epoch from ${limits.now}::timestamptz) - newest.time_ms / 1000.0`)),
    pauseSeconds: await spread(db, newestPoints(limits, sql`(newest.report->>'frozenMs')::float8 / 1000`)),
    ...(await flows(db, limits)),
    healthErrors: await counted(db, sql`select code, count(*) as value from health_errors where cleared_at is null group by code`),
    events: await counted(
      db,
      sql`select severity, count(*) as value from events where at > ${limits.now}::timestamptz - interval '1 hour' group by severity`,
    ),
    alertsQueued: await counted(db, sql`select channel, count(*) as value from alert_items where message_id is null group by channel`),
    alertMessages: await counted(
      db,
      sql`select channel, state, count(*) as value from alert_messages
        where state = 'waiting' or ended_at > ${limits.now}::timestamptz - interval '1 day' group by channel, state`,
    ),
    alertAgeSeconds: await counted(
      db,
      sql`select channel, extract(epoch from clock_timestamp() - min(since)) as value from (
        select channel, made_at as since from alert_messages where state = 'waiting'
        union all select channel, queued_at from alert_items where message_id is null) waiting group by channel`,
    ),
  };
}

type Query = ReturnType<typeof sql>;

function jobs({ now, rowsMax }: FigureLimits): Query {
  return sql`select kind, state, count(*) as value from (
      select kind, state from jobs where ended_at is null
      union all select kind, state from jobs where ended_at > ${now}::timestamptz - interval '1 day') seen
    group by kind, state order by kind, state limit ${rowsMax}`;
}

function steps({ now, rowsMax }: FigureLimits): Query {
  return sql`select j.kind, s.name as step, ${spreadOf(sql`extract(epoch from s.ended_at - s.started_at)`)} as values
    from job_steps s join jobs j using (job_id) where s.ended_at > ${now}::timestamptz - interval '1 hour' and s.started_at is not null
    group by j.kind, s.name order by j.kind, s.name limit ${rowsMax}`;
}

function appliances({ lostBefore }: FigureLimits): Query {
  return sql`select state, count(appliance_id) as value from (values ('online'), ('lost')) known(state)
    left join appliances on state = case when last_seen_at < ${lostBefore}::timestamptz then 'lost' else 'online' end group by state`;
}

function items({ criticalCodes, rowsMax }: FigureLimits): Query {
  return sql`with ill as (select entity_key, bool_or(code = any(${criticalCodes}::text[])) as is_critical
      from health_errors where cleared_at is null group by entity_key)
    select i.properties->>'protectionState' as state,
      case when ill.is_critical then 'Critical' when ill.entity_key is not null then 'Warning' else 'Normal' end as health, count(*) as value
    from resources i left join ill on ill.entity_key = i.key where i.type = ${itemType} group by 1, 2 order by 1, 2 limit ${rowsMax}`;
}

/** Quantiles of what `seconds` says of each protected item's newest point, called `newest`. */
function newestPoints({ rowsMax }: FigureLimits, seconds: Query): Query {
  return sql`select k.vault, ${spreadOf(seconds)} as values from resources i
    cross join lateral (select substring(i.key from '^(.*?/microsoft\\.recoveryservices/vaults/[^/]+)/') as vault) k
    cross join lateral (select time_ms, report from points q where q.vault_key = k.vault and q.machine_id = (i.properties->>'machineId')::uuid
      order by q.time_ms desc, q.point_id desc limit 1) newest
    where i.type = ${itemType} and i.properties->>'protectionState' = 'Protected' group by k.vault order by k.vault limit ${rowsMax}`;
}

const flow = sql`report->'flow'`;

/** Of what appliances tell of their machines. */
async function flows(
  db: Kysely<Tables>,
  { rowsMax }: FigureLimits,
): Promise<Pick<HubFigures, "modes" | "slowestStages" | "backlogBytes" | "churnBytes" | "fallingBehind">> {
  const sums = await sql<Record<"vault" | "backlog" | "churn" | "behind", string>>`select vault_key as vault,
      coalesce(sum((${flow}->>'backlogBytes')::float8), 0) as backlog, coalesce(sum((${flow}->>'churnBytesPerSecond')::float8), 0) as churn,
      count(*) filter (where (${flow}->>'isFallingBehind')::boolean) as behind
    from machine_states where report ? 'flow' group by vault_key order by vault_key limit ${rowsMax}`.execute(db);
  const of = (name: "backlog" | "churn" | "behind"): readonly Figure[] =>
    sums.rows.map((row) => ({ labels: { vault: row.vault }, value: Number(row[name]) }));
  return {
    modes: await counted(
      db,
      sql`select ${flow}->'mode'->>'phase' as phase, coalesce(${flow}->'mode'->>'rung', '') as rung, count(*) as value from machine_states
        where report ? 'flow' group by 1, 2 order by 1, 2 limit ${rowsMax}`,
    ),
    slowestStages: await counted(
      db,
      sql`select ${flow}->>'slowestStage' as stage, count(*) as value from machine_states where ${flow} ? 'slowestStage' group by 1 order by 1`,
    ),
    backlogBytes: of("backlog"),
    churnBytes: of("churn"),
    fallingBehind: of("behind"),
  };
}

function spreadOf(value: Query): Query {
  return sql`percentile_cont(${[...quantiles]}::float8[]) within group (order by (${value})::float8)`;
}

type Row = Readonly<Record<string, string | number | null>>;

async function counted(db: Kysely<Tables>, query: Query): Promise<readonly Figure[]> {
  const found = await sql<Row>`${query}`.execute(db);
  return found.rows.map(({ value, ...labels }) => ({ labels: texts(labels), value: Number(value) }));
}

/** One figure for each quantile of each row. */
async function spread(db: Kysely<Tables>, query: Query): Promise<readonly Figure[]> {
  const found = await sql<Row & { readonly values: readonly number[] }>`${query}`.execute(db);
  return found.rows.flatMap(({ values, ...labels }) =>
    quantiles.map((quantile, index) => ({ labels: { ...texts(labels), quantile: String(quantile) }, value: Number(values[index]) })),
  );
}

function texts(labels: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, typeof value === "string" ? value : ""]));
}
