// The outbox of alerts: items become messages, a hub takes a message under a lease, and what came of it is kept. Times are the database's.

import { sql, type Kysely, type RawBuilder } from "kysely";
import type { Random } from "../../base/random.ts";
import { toEvent, type EventRow, type HubEvent } from "./events.ts";
import type { JsonObject } from "./resources.ts";
import type { Tables } from "./tables.ts";

export type AlertChannel = "email" | "webhook";
export type AlertMessageState = "waiting" | "sent" | "dead";

/** How items of one channel become messages. */
export interface GroupingLimits {
  /** The first item waits this long for others. */
  readonly groupMs: number;
  /** Between two messages to one receiver. */
  readonly intervalMs: number;
  /** Alerts in one message. */
  readonly alertsMax: number;
}

export interface AlertMessage {
  /** The same however often it is sent. */
  readonly messageId: string;
  readonly targetId: string;
  readonly channel: AlertChannel;
  readonly vaultKey: string;
  readonly state: AlertMessageState;
  readonly alertCount: number;
  /** Alerts that found the queue full before it was made. */
  readonly leftOut: number;
  readonly attemptCount: number;
  readonly madeAt: string;
  readonly nextAt: string;
  readonly endedAt: string | undefined;
  /** What was seen at the last attempt. */
  readonly outcome: JsonObject | undefined;
}

/** One hub's hold on a message; an older attempt than the newest can write nothing. */
export interface MessageLease {
  readonly messageId: string;
  readonly owner: string;
  readonly attemptCount: number;
}

/** A wait that no rule of ours gives comes from a clock that jumped back: it counts as over. */
const waitMsMax = 2 * 3600_000;

/** Makes a message for every receiver whose items have waited long enough; answers how many. Several hubs may do it at once. */
export async function makeMessages(
  db: Kysely<Tables>,
  { random, grouping }: { readonly random: Random; readonly grouping: Readonly<Record<AlertChannel, GroupingLimits>> },
): Promise<number> {
  let made = 0;
  for (const channel of ["email", "webhook"] as const) {
    const { groupMs, intervalMs, alertsMax } = grouping[channel];
    const ready = await sql<{ target_key: string }>`
      select target_key from (select target_key, min(queued_at) as first_at from alert_items
        where message_id is null and channel = ${channel} group by target_key) waiting
      where ${isOver(sql`first_at + ${groupMs} * interval '1 ms'`)}
        and not exists (select 1 from alert_messages m where m.target_key = waiting.target_key
          and (m.state = 'waiting' or not ${isOver(sql`m.made_at + ${intervalMs} * interval '1 ms'`)}))`.execute(db);
    for (const { target_key: targetKey } of ready.rows) {
      const messageId = random.uuid();
      made += await db.transaction().execute(async (transaction) => await makeMessage(transaction, { targetKey, messageId, alertsMax }));
    }
  }
  return made;
}

/** The unique index on open messages is what keeps two hubs from making one each. */
async function makeMessage(
  db: Kysely<Tables>,
  wanted: { readonly targetKey: string; readonly messageId: string; readonly alertsMax: number },
): Promise<number> {
  const { targetKey, messageId, alertsMax } = wanted;
  const inserted = await sql`insert into alert_messages (message_id, target_key, target_id, channel, vault_key)
    select ${messageId}, target_key, target_id, channel, vault_key from alert_items
    where target_key = ${targetKey} and message_id is null order by queued_at limit 1
    on conflict (target_key) where state = 'waiting' do nothing returning 1`.execute(db);
  if (inserted.rows.length === 0) return 0;
  await sql`with taken as (update alert_items set message_id = ${messageId} where target_key = ${targetKey} and event_id in (
      select event_id from alert_items where target_key = ${targetKey} and message_id is null order by queued_at, event_id limit ${alertsMax})
      returning 1),
    passed as (delete from alert_overflow where target_key = ${targetKey} returning left_out)
    update alert_messages set alert_count = (select count(*) from taken), left_out = coalesce((select left_out from passed), 0)
    where message_id = ${messageId}`.execute(db);
  return 1;
}

/** Takes the message that is due for longest; no other hub takes it while the lease lasts. */
export async function claimMessage(
  db: Kysely<Tables>,
  { owner, leaseMs }: { readonly owner: string; readonly leaseMs: number },
): Promise<{ readonly message: AlertMessage; readonly lease: MessageLease } | undefined> {
  const claimed = await sql<MessageRow>`update alert_messages set owner = ${owner}, attempt_count = attempt_count + 1,
      lease_until = clock_timestamp() + ${leaseMs} * interval '1 ms'
    where message_id = (select message_id from alert_messages where state = 'waiting' and ${isOver(sql`next_at`)}
      and (lease_until is null or ${isOver(sql`lease_until`)})
      order by next_at for update skip locked limit 1)
    returning *`.execute(db);
  const row = claimed.rows[0];
  if (row === undefined) return undefined;
  return { message: fromRow(row), lease: { messageId: row.message_id, owner, attemptCount: row.attempt_count } };
}

/** What the message tells of, gravest and newest first. Events that were pruned meanwhile are missing. */
export async function alertsOfMessage(db: Kysely<Tables>, messageId: string): Promise<readonly HubEvent[]> {
  const found = await sql<EventRow>`select e.* from alert_items i join events e on e.event_id = i.event_id
    where i.message_id = ${messageId}::uuid
    order by array_position(array['Critical', 'Warning', 'Info'], e.severity), e.at desc, e.event_id`.execute(db);
  return found.rows.map(toEvent);
}

export type MessageEnd =
  | { readonly state: "sent" | "dead"; readonly outcome: JsonObject }
  | { readonly state: "waiting"; readonly outcome: JsonObject; readonly waitMs: number };

/** Stores what came of an attempt; false when another hub has the message by now. What a message told of is kept until it is sent. */
export async function settleMessage(db: Kysely<Tables>, lease: MessageLease, end: MessageEnd): Promise<boolean> {
  const waitMs = end.state === "waiting" ? end.waitMs : 0;
  const settled =
    await sql`with settled as (update alert_messages set state = ${end.state}, outcome = ${JSON.stringify(end.outcome)}::jsonb,
        owner = null, lease_until = null, next_at = clock_timestamp() + ${waitMs} * interval '1 ms',
        ended_at = ${end.state === "waiting" ? sql`null` : sql`clock_timestamp()`}
      where message_id = ${lease.messageId}::uuid and owner = ${lease.owner}::uuid and attempt_count = ${lease.attemptCount}
        and state = 'waiting' returning message_id, state),
    forgotten as (delete from alert_items i using settled s where i.message_id = s.message_id and s.state = 'sent')
    select 1 from settled`.execute(db);
  return settled.rows.length === 1;
}

export interface MessagePlace {
  readonly madeAt: string;
  readonly messageId: string;
}

/** Of one vault, newest first. */
export async function listMessages(
  db: Kysely<Tables>,
  vaultKey: string,
  { countMax, after }: { readonly countMax: number; readonly after?: MessagePlace | undefined },
): Promise<readonly AlertMessage[]> {
  const bound = after === undefined ? sql`true` : sql`(made_at, message_id) < (${after.madeAt}::timestamptz, ${after.messageId}::uuid)`;
  const found = await sql<MessageRow>`select * from alert_messages where vault_key = ${vaultKey} and ${bound}
    order by made_at desc, message_id desc limit ${countMax}`.execute(db);
  return found.rows.map(fromRow);
}

export async function findMessage(db: Kysely<Tables>, vaultKey: string, messageId: string): Promise<AlertMessage | undefined> {
  const found = await sql<MessageRow>`select * from alert_messages
    where message_id = ${messageId}::uuid and vault_key = ${vaultKey}`.execute(db);
  return found.rows[0] === undefined ? undefined : fromRow(found.rows[0]);
}

/** Gives a dead message all its attempts again; "busy" while its receiver has another open one. */
export async function reviveMessage(db: Kysely<Tables>, messageId: string): Promise<"revived" | "busy" | "notDead"> {
  try {
    const revived = await sql`with revived as (update alert_messages set state = 'waiting', attempt_count = 0, ended_at = null,
        next_at = clock_timestamp() where message_id = ${messageId}::uuid and state = 'dead' returning 1)
      select pg_notify('watari', 'alerts') from revived`.execute(db);
    return revived.rows.length === 1 ? "revived" : "notDead";
  } catch (error) {
    // The index that allows one open message a receiver.
    if (error instanceof Error && "code" in error && error.code === uniqueViolation) return "busy";
    throw error;
  }
}

const uniqueViolation = "23505";

/** Forgets what ended long ago, and everything of receivers that are gone, a bounded number at a time. */
export async function pruneMessages(
  db: Kysely<Tables>,
  limits: { readonly sentDays: number; readonly deadDays: number; readonly perVaultMax: number; readonly countMax: number },
): Promise<number> {
  const { sentDays, deadDays, perVaultMax, countMax } = limits;
  const removed = await sql`delete from alert_messages where message_id in (select m.message_id
    from (select *, row_number() over (partition by vault_key order by made_at desc, message_id) as place from alert_messages) m
    where m.ended_at < clock_timestamp() - (case m.state when 'dead' then ${deadDays}::int else ${sentDays}::int end) * interval '1 day'
      or (m.ended_at is not null and m.place > ${perVaultMax})
      or not exists (select 1 from resources r where r.key = m.target_key) limit ${countMax}) returning 1`.execute(db);
  await sql`delete from alert_items i where i.message_id is null and not exists (select 1 from resources r where r.key = i.target_key)`.execute(
    db,
  );
  await sql`delete from alert_overflow o where not exists (select 1 from resources r where r.key = o.target_key)`.execute(db);
  return removed.rows.length;
}

/** Whether a time of the database has come. */
function isOver(time: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(${time} <= clock_timestamp() or ${time} > clock_timestamp() + ${waitMsMax} * interval '1 ms')`;
}

interface MessageRow {
  message_id: string;
  target_id: string;
  channel: AlertChannel;
  vault_key: string;
  state: AlertMessageState;
  alert_count: number;
  left_out: string;
  attempt_count: number;
  made_at: string;
  next_at: string;
  ended_at: string | null;
  outcome: JsonObject | null;
}

function fromRow(row: MessageRow): AlertMessage {
  return {
    messageId: row.message_id,
    targetId: row.target_id,
    channel: row.channel,
    vaultKey: row.vault_key,
    state: row.state,
    alertCount: row.alert_count,
    leftOut: Number(row.left_out),
    attemptCount: row.attempt_count,
    madeAt: row.made_at,
    nextAt: row.next_at,
    endedAt: row.ended_at ?? undefined,
    outcome: row.outcome ?? undefined,
  };
}
