// Sends what waits in the outbox: makes messages of items, takes them under a lease, tries each a bounded number of times.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { toReport } from "../../contract/errors.ts";
import {
  alertsOfMessage,
  claimMessage,
  makeMessages,
  pruneMessages,
  settleMessage,
  type AlertChannel,
  type AlertMessage,
  type GroupingLimits,
  type MessageEnd,
  type MessageLease,
} from "../db/alert-outbox.ts";
import type { Database } from "../db/database.ts";
import type { HubEvent } from "../db/events.ts";
import { inSpan, noTraces, type Traces } from "../telemetry/traces.ts";
import { failedDelivery, type Delivery } from "./delivery.ts";
import { alertTopic } from "./schema.ts";

export interface OutboxLimits {
  readonly grouping: Readonly<Record<AlertChannel, GroupingLimits>>;
  /** Between two looks when nothing rings. */
  readonly pollMs: number;
  /** Of one attempt, from the name's look-up to the receiver's answer. */
  readonly sendMsMax: number;
  /** Longer than an attempt: another hub takes a message only when its hub is gone. */
  readonly leaseMs: number;
  /** Messages on their way at once. */
  readonly placesMax: number;
  readonly attemptsMax: number;
  readonly firstWaitMs: number;
  readonly waitMsMax: number;
  readonly sentDays: number;
  readonly deadDays: number;
  /** Messages kept of a vault. */
  readonly perVaultMax: number;
}

/** Twenty attempts take about twelve hours. */
export const outboxLimits: OutboxLimits = {
  grouping: {
    email: { groupMs: 10_000, intervalMs: 300_000, alertsMax: 2000 },
    webhook: { groupMs: 1000, intervalMs: 1000, alertsMax: 100 },
  },
  pollMs: 2000,
  sendMsMax: 30_000,
  leaseMs: 60_000,
  placesMax: 8,
  attemptsMax: 20,
  firstWaitMs: 10_000,
  waitMsMax: 3600_000,
  sentDays: 7,
  deadDays: 30,
  perVaultMax: 20_000,
};

export type SendMessage = (message: AlertMessage, alerts: readonly HubEvent[], signal: AbortSignal) => Promise<Delivery>;

export interface OutboxDependencies {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limits: OutboxLimits;
  readonly send: SendMessage;
  readonly traces?: Traces;
  /** For trials: told at each edge of an attempt. */
  readonly onMoment?: (moment: "claimed" | "sent" | "settled") => void;
}

const pruneIntervalMs = 3600_000;
const prunedMax = 1000;

/** Works until it is closed; closing gives unfinished messages back to other hubs. */
export function startOutbox(dependencies: OutboxDependencies): AsyncDisposable {
  const { database, clock, log, limits, random } = dependencies;
  const closing = new AbortController();
  const owner = random.uuid();
  const sending = new Set<Promise<void>>();
  let bell = new AbortController();
  let prunedAtMs = clock.monotonicMs();
  const ring = (): void => bell.abort();
  const subscription = database.notifications.subscribe(alertTopic, ring);
  const round = async (): Promise<void> => {
    await makeMessages(database.db, { random, grouping: limits.grouping });
    while (sending.size < limits.placesMax && !closing.signal.aborted) {
      const claimed = await claimMessage(database.db, { owner, leaseMs: limits.leaseMs });
      if (claimed === undefined) break;
      const work = attempt(dependencies, claimed.message, claimed.lease, closing.signal).catch((error: unknown) => {
        // The lease lapses by itself, and the message is then taken again.
        log.warn("alert attempt broke off", { messageId: claimed.lease.messageId, reason: String(error) });
      });
      sending.add(work);
      void work.finally(() => {
        sending.delete(work);
        ring();
      });
    }
    if (clock.monotonicMs() - prunedAtMs < pruneIntervalMs) return;
    prunedAtMs = clock.monotonicMs();
    const wish = { ...limits, countMax: prunedMax };
    while (!closing.signal.aborted && (await pruneMessages(database.db, wish)) === prunedMax);
  };
  const running = (async () => {
    while (!closing.signal.aborted) {
      bell = new AbortController();
      await round().catch((error: unknown) => {
        // The next round tries again.
        log.warn("alerts not looked at", { reason: error instanceof Error ? error.message : String(error) });
      });
      await clock.sleep(limits.pollMs, AbortSignal.any([closing.signal, bell.signal])).catch(() => undefined); // Signals only wake it.
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort(new Error("the hub stops"));
      subscription[Symbol.dispose]();
      await running;
      await Promise.all(sending);
    },
  };
}

async function attempt(dependencies: OutboxDependencies, message: AlertMessage, lease: MessageLease, closing: AbortSignal): Promise<void> {
  const { database, log, limits, onMoment } = dependencies;
  onMoment?.("claimed");
  const alerts = await alertsOfMessage(database.db, message.messageId);
  const signal = AbortSignal.any([closing, AbortSignal.timeout(limits.sendMsMax)]);
  const delivery: Delivery =
    alerts.length === 0
      ? { kind: "sent", evidence: { note: "its events were pruned before it could be sent" } }
      : await sendTraced(dependencies, message, alerts, signal);
  onMoment?.("sent");
  // Cut off by the stop, not by the receiver: whoever takes it next begins without a wait.
  const end = closing.aborted && delivery.kind === "failed" ? giveBack(message) : endOf(dependencies, message, delivery);
  const isOurs = await settleMessage(database.db, lease, end);
  onMoment?.("settled");
  const fields = { messageId: message.messageId, channel: message.channel, target: message.targetId, attempt: message.attemptCount };
  if (!isOurs) return log.warn("alert settled by another hub", fields);
  if (delivery.kind === "sent") return log.info("alert sent", { ...fields, alerts: alerts.length });
  const reason = { fault: delivery.fault.code, reason: delivery.fault.message, evidence: delivery.fault.evidence };
  if (end.state === "dead") log.error("alert given up", { ...fields, ...reason });
  else log.warn("alert not sent", { ...fields, ...reason });
}

async function sendTraced(
  { send, traces = noTraces }: OutboxDependencies,
  message: AlertMessage,
  alerts: readonly HubEvent[],
  signal: AbortSignal,
): Promise<Delivery> {
  const { messageId, channel, attemptCount } = message;
  const attributes = { "watari.delivery_id": messageId, "watari.channel": channel, "watari.attempt": attemptCount };
  const name = `alert ${channel}`;
  return await inSpan(traces, { name, kind: "producer", from: {}, attributes }, async (span) => {
    const delivery = await send(message, alerts, signal).catch((error: unknown) => failedDelivery(error, "the message", {}));
    if (delivery.kind === "failed") span.end(delivery.fault.code);
    return delivery;
  });
}

function giveBack(message: AlertMessage): MessageEnd {
  return { state: "waiting", outcome: message.outcome ?? {}, waitMs: 0 };
}

function endOf({ limits, random }: OutboxDependencies, message: AlertMessage, delivery: Delivery): MessageEnd {
  if (delivery.kind === "sent") return { state: "sent", outcome: { evidence: delivery.evidence } };
  const { fault, accepted = [] } = delivery;
  const outcome = { fault: toReport(fault), accepted: [...acceptedOf(message), ...accepted] };
  if (fault.retry === "never" || message.attemptCount >= limits.attemptsMax) return { state: "dead", outcome };
  return { state: "waiting", outcome, waitMs: Math.max(delivery.waitMs ?? 0, backOff(limits, message.attemptCount, random)) };
}

/** Who got the mail at an earlier attempt. */
export function acceptedOf({ outcome }: Pick<AlertMessage, "outcome">): readonly string[] {
  const accepted = outcome?.["accepted"];
  return Array.isArray(accepted) ? accepted.map(String) : [];
}

/** Doubles from attempt to attempt; the half is drawn by lot, so that receivers that came back are not met by all at once. */
export function backOff(limits: Pick<OutboxLimits, "firstWaitMs" | "waitMsMax">, attemptCount: number, random: Random): number {
  const whole = Math.min(limits.waitMsMax, limits.firstWaitMs * 2 ** Math.min(30, attemptCount - 1));
  const [high = 0, low = 0] = random.bytes(2);
  return Math.round(whole / 2 + (whole / 2) * ((high * 256 + low) / 65_536));
}
