// Events of a vault: what happened, each occurrence once, newest first, kept for a bounded time and in a bounded number.

import { sql, type Kysely, type RawBuilder } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { FaultReport } from "../../contract/errors.ts";
import type { Tables } from "./tables.ts";

export type EventKind = "VmHealth" | "ServerHealth" | "AgentHealth" | "JobStatus";
export type EventSeverity = "Critical" | "Warning" | "Info";

export interface NewEvent {
  /** Lower-case resource id of the vault. */
  readonly vaultKey: string;
  /** Names one occurrence: the same key in the same vault again writes nothing. "job:<job id>", "<fault>:<entity>:<raise serial>". */
  readonly dedupKey: string;
  /** What happened, for programs: "TestFailoverFailed", the id of a fault. */
  readonly code: string;
  readonly kind: EventKind;
  readonly severity: EventSeverity;
  /** What happened, for people; public. */
  readonly description: string;
  /** ARM id and name of what it happened to. */
  readonly affected: { readonly id: string; readonly name: string };
  /** ARM id of the fabric, where there is one. */
  readonly fabricId?: string;
  /** The part that it happened in: "Agent", "Appliance", "Hub". */
  readonly component: string;
  readonly fault?: FaultReport;
  /** Of JobStatus events; state as clients read it. */
  readonly job?: { readonly jobId: string; readonly title: string; readonly state: string };
  /** RFC 3339, kept to the millisecond; now unless told. */
  readonly at?: string;
}

export interface HubEvent extends Omit<NewEvent, "dedupKey" | "at"> {
  readonly eventId: string;
  readonly at: string;
}

/** What all events of an answer have; texts are compared without case. */
export interface EventWish {
  readonly code?: string;
  readonly severity?: string;
  readonly kind?: string;
  /** Name or ARM id. */
  readonly fabric?: string;
  readonly affectedName?: string;
  readonly affectedId?: string;
  readonly startAt?: string;
  readonly endAt?: string;
}

export interface EventPlace {
  readonly at: string;
  readonly eventId: string;
}

export interface EventPage {
  readonly events: readonly HubEvent[];
  /** Where the next page begins; a page may hold fewer events than asked for, or none, and still have a next one. */
  readonly next: EventPlace | undefined;
}

export interface EventStore {
  /** Durable on return, or with the commit of `transaction`, and with it the alerts of who asked for it. Answers whether the occurrence is new. */
  record(event: NewEvent, transaction?: Kysely<Tables>): Promise<boolean>;
  find(vaultKey: string, eventId: string): Promise<HubEvent | undefined>;
  /** Newest first. Looks at no more than a fixed number of events, whatever the wish. */
  list(
    vaultKey: string,
    page: { readonly countMax: number; readonly after?: EventPlace | undefined; readonly wish?: EventWish },
  ): Promise<EventPage>;
  /** Removes what is too old or too much, in small transactions; answers how many. Several hubs may do it at once. */
  prune(signal?: AbortSignal): Promise<number>;
}

export interface EventLimits {
  readonly ageDaysMax: number;
  /** Of events of severity Info: they are most, and tell least. */
  readonly infoAgeDaysMax: number;
  readonly perVaultMax: number;
  /** Events looked at for one page with a wish. */
  readonly scanMax: number;
  /** Events removed by one transaction. */
  readonly pruneBatch: number;
}

const limitsDefault: EventLimits = { ageDaysMax: 180, infoAgeDaysMax: 60, perVaultMax: 2_000_000, scanMax: 10_000, pruneBatch: 1000 };

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits?: Partial<EventLimits>;
}

export function openEventStore({ db, clock, random, ...given }: Dependencies): EventStore {
  const limits = { ...limitsDefault, ...given.limits };
  return {
    record: async (event, transaction = db) =>
      await insert(transaction, event, { eventId: random.uuid(), at: event.at ?? toTimestamp(clock.nowMs()) }),
    find: async (vaultKey, eventId) => {
      const found = await sql<EventRow>`select * from events where event_id = ${eventId}::uuid and vault_key = ${vaultKey}`.execute(db);
      return found.rows[0] === undefined ? undefined : toEvent(found.rows[0]);
    },
    list: async (vaultKey, page) => await list(db, vaultKey, { ...page, scanMax: limits.scanMax }),
    prune: async (signal) => await prune(db, { limits, nowMs: clock.nowMs(), signal }),
  };
}

async function insert(db: Kysely<Tables>, event: NewEvent, { eventId, at }: EventPlace): Promise<boolean> {
  const inserted = await sql`
    insert into events (event_id, vault_key, at, dedup_key, code, kind, severity, description, affected_id, affected_name, fabric_id, component, fault, job)
    values (${eventId}, ${event.vaultKey}, ${at}, ${event.dedupKey}, ${event.code}, ${event.kind}, ${event.severity},
      ${event.description.slice(0, descriptionCharactersMax)}, ${event.affected.id}, ${event.affected.name}, ${event.fabricId ?? null},
      ${event.component}, ${toJson(event.fault)}::jsonb, ${toJson(event.job)}::jsonb)
    on conflict (vault_key, dedup_key) do nothing returning event_id`.execute(db);
  return inserted.rows.length === 1;
}

const descriptionCharactersMax = 4000;

async function list(
  db: Kysely<Tables>,
  vaultKey: string,
  page: { readonly countMax: number; readonly scanMax: number; readonly after?: EventPlace | undefined; readonly wish?: EventWish },
): Promise<EventPage> {
  const { countMax, scanMax, after, wish = {} } = page;
  const bounds = [
    sql`vault_key = ${vaultKey}`,
    ...(after === undefined ? [] : [sql`(at, event_id) < (${after.at}::timestamptz, ${after.eventId}::uuid)`]),
    ...(wish.startAt === undefined ? [] : [sql`at >= ${wish.startAt}::timestamptz`]),
    ...(wish.endAt === undefined ? [] : [sql`at <= ${wish.endAt}::timestamptz`]),
    // Has an index: those of one machine are found without a look at those of all others.
    ...(wish.affectedName === undefined ? [] : [sql`lower(affected_name) = lower(${wish.affectedName})`]),
  ];
  const seen = sql`select * from events where ${joined(bounds)} order by at desc, event_id desc limit ${scanMax}`;
  const found = await sql<EventRow>`select * from (${seen}) seen where ${joined(conditionsOf(wish))}
    order by at desc, event_id desc limit ${countMax + 1}`.execute(db);
  const events = found.rows.slice(0, countMax).map(toEvent);
  const last = events.at(-1);
  if (found.rows.length > countMax && last !== undefined) return { events, next: { at: last.at, eventId: last.eventId } };
  const unseen = await sql<{ at: string; event_id: string }>`select at, event_id from events where ${joined(bounds)}
    order by at desc, event_id desc offset ${scanMax - 1} limit 1`.execute(db);
  const edge = unseen.rows[0];
  return { events, next: edge === undefined ? undefined : { at: edge.at, eventId: edge.event_id } };
}

function conditionsOf(wish: EventWish): readonly RawBuilder<unknown>[] {
  const same = (column: string, value: string | undefined): readonly RawBuilder<unknown>[] =>
    value === undefined ? [] : [sql`lower(${sql.ref(column)}) = lower(${value})`];
  const { fabric } = wish;
  return [
    sql`true`,
    ...same("code", wish.code),
    ...same("severity", wish.severity),
    ...same("kind", wish.kind),
    ...same("affected_id", wish.affectedId),
    ...(fabric === undefined ? [] : [sql`lower(${fabric}) in (lower(fabric_id), lower(regexp_replace(fabric_id, '^.*/', '')))`]),
  ];
}

function joined(conditions: readonly RawBuilder<unknown>[]): RawBuilder<unknown> {
  return sql.join(conditions, sql` and `);
}

async function prune(
  db: Kysely<Tables>,
  { limits, nowMs, signal }: { readonly limits: EventLimits; readonly nowMs: number; readonly signal: AbortSignal | undefined },
): Promise<number> {
  const oldest = toTimestamp(nowMs - limits.ageDaysMax * 24 * 3600_000);
  const oldestInfo = toTimestamp(nowMs - limits.infoAgeDaysMax * 24 * 3600_000);
  let removed = await removeAll(db, sql`at < ${oldest}::timestamptz`, limits, signal);
  removed += await removeAll(db, sql`severity = 'Info' and at < ${oldestInfo}::timestamptz`, limits, signal);
  // One step of the index a vault, not one of each event.
  const vaults = await sql<{ key: string }>`with recursive vaults(key) as (
      (select vault_key from events order by vault_key limit 1)
      union all select (select vault_key from events where vault_key > vaults.key order by vault_key limit 1) from vaults where vaults.key is not null)
    select key from vaults where key is not null`.execute(db);
  for (const { key } of vaults.rows) {
    const edges = await sql<{ at: string; event_id: string }>`select at, event_id from events where vault_key = ${key}
      order by at desc, event_id desc offset ${limits.perVaultMax} limit 1`.execute(db);
    const edge = edges.rows[0];
    if (edge === undefined) continue;
    const tooMany = sql`vault_key = ${key} and (at, event_id) <= (${edge.at}::timestamptz, ${edge.event_id}::uuid)`;
    removed += await removeAll(db, tooMany, limits, signal);
  }
  return removed;
}

async function removeAll(
  db: Kysely<Tables>,
  condition: RawBuilder<unknown>,
  { pruneBatch }: EventLimits,
  signal: AbortSignal | undefined,
): Promise<number> {
  for (let removed = 0; ;) {
    signal?.throwIfAborted();
    const batch = await sql`delete from events where event_id in (
      select event_id from events where ${condition} limit ${pruneBatch} for update skip locked) returning 1`.execute(db);
    removed += batch.rows.length;
    if (batch.rows.length < pruneBatch) return removed;
  }
}

/** A row of the table of events. */
export interface EventRow {
  event_id: string;
  vault_key: string;
  at: string;
  code: string;
  kind: EventKind;
  severity: EventSeverity;
  description: string;
  affected_id: string;
  affected_name: string;
  fabric_id: string | null;
  component: string;
  fault: FaultReport | null;
  job: NonNullable<NewEvent["job"]> | null;
}

export function toEvent(row: EventRow): HubEvent {
  return {
    eventId: row.event_id,
    vaultKey: row.vault_key,
    at: row.at,
    code: row.code,
    kind: row.kind,
    severity: row.severity,
    description: row.description,
    affected: { id: row.affected_id, name: row.affected_name },
    component: row.component,
    ...(row.fabric_id === null ? {} : { fabricId: row.fabric_id }),
    ...(row.fault === null ? {} : { fault: row.fault }),
    ...(row.job === null ? {} : { job: row.job }),
  };
}

function toJson(value: object | undefined): string | null {
  return value === undefined ? null : JSON.stringify(value);
}
