// The tables of alerts: what waits for a receiver, the messages made of it, how many found a full queue, and the trigger that queues.

/** Told when an alert was queued. */
export const alertTopic = "alerts";
/** Items that wait for one receiver; what comes beyond is counted and told in its next message. */
export const queuedMax = 2000;

/**
 * alert_items: one row a receiver and event, written with the event. alert_messages: one row a message; its id is what receivers know
 * repetitions by. A receiver has one open message at most, so hubs cannot make two of the same items.
 */
export const alertStatements: readonly string[] = [
  `create table alert_messages (
    message_id uuid primary key, target_key text not null, target_id text not null, channel text not null, vault_key text not null,
    state text not null default 'waiting', alert_count int not null default 0, left_out bigint not null default 0,
    attempt_count int not null default 0, next_at timestamptz not null default clock_timestamp(), owner uuid, lease_until timestamptz,
    made_at timestamptz(3) not null default clock_timestamp(), ended_at timestamptz, outcome jsonb)`,
  `create unique index alert_messages_open on alert_messages (target_key) where state = 'waiting'`,
  `create index alert_messages_by_vault on alert_messages (vault_key, made_at desc, message_id desc)`,
  `create index alert_messages_by_target on alert_messages (target_key, made_at desc)`,
  `create index alert_messages_ended on alert_messages (ended_at) where ended_at is not null`,
  `create table alert_items (
    target_key text not null, target_id text not null, channel text not null, vault_key text not null, event_id uuid not null,
    queued_at timestamptz not null default clock_timestamp(), message_id uuid references alert_messages on delete cascade,
    primary key (target_key, event_id))`,
  `create index alert_items_waiting on alert_items (target_key, queued_at) where message_id is null`,
  `create index alert_items_by_message on alert_items (message_id) where message_id is not null`,
  `create table alert_overflow (target_key text primary key, left_out bigint not null)`,
  // A trigger, so that whoever stores an event need not know of alerts, and so that its plans are made once a session.
  `create function queue_alerts() returns trigger language plpgsql as $$
    declare receiver record; way text; wanted boolean;
    begin
      for receiver in select key, id, type, properties as p from resources where parent_key = new.vault_key
          and type in ('microsoft.recoveryservices/vaults/replicationalertsettings', 'watari.alerts/webhooks') order by key loop
        if receiver.type = 'watari.alerts/webhooks' then
          way := 'webhook';
          wanted := receiver.p->>'enabled' = 'true'
            and (receiver.p->'severities' = '[]' or receiver.p->'severities' ? new.severity)
            and (receiver.p->'eventTypes' = '[]' or receiver.p->'eventTypes' ? new.kind)
            and (receiver.p->'eventCodes' = '[]' or receiver.p->'eventCodes' ? new.code);
        else
          way := 'email';
          -- Who was told that something critical is wrong is told when it is over.
          wanted := (receiver.p->'customEmailAddresses' <> '[]' or lower(receiver.p->>'sendToOwners') in ('send', 'true'))
            and (new.severity = 'Critical' or (new.dedup_key like 'health:%:cleared' and exists (select 1 from events e where
              e.vault_key = new.vault_key and e.dedup_key = regexp_replace(new.dedup_key, 'cleared$', 'raised') and e.severity = 'Critical')));
        end if;
        continue when wanted is not true;
        if (select count(*) from (select 1 from alert_items i where i.target_key = receiver.key and i.message_id is null
            limit ${queuedMax}) queued) < ${queuedMax} then
          insert into alert_items (target_key, target_id, channel, vault_key, event_id)
            values (receiver.key, receiver.id, way, new.vault_key, new.event_id);
          perform pg_notify('watari', '${alertTopic}');
        else
          insert into alert_overflow (target_key, left_out) values (receiver.key, 1)
            on conflict (target_key) do update set left_out = alert_overflow.left_out + 1;
        end if;
      end loop;
      return null;
    end $$`,
  `create trigger events_queue_alerts after insert on events for each row execute function queue_alerts()`,
];
