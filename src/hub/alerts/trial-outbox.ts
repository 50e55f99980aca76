// For tests: an outbox whose every message is one plain HTTP request to a port, and vaults with receivers for its alerts.

import { sql } from "kysely";
import { request } from "undici";
import { systemRandom } from "../../base/random.ts";
import type { Database } from "../db/database.ts";
import { openEventStore, type NewEvent } from "../db/events.ts";
import { systemClock } from "../../base/clock.ts";
import { notSent } from "./delivery.ts";
import { outboxLimits, type OutboxLimits, type SendMessage } from "./outbox.ts";

export const trialLimits: OutboxLimits = {
  ...outboxLimits,
  grouping: {
    email: { groupMs: 30, intervalMs: 50, alertsMax: 2000 },
    webhook: { groupMs: 0, intervalMs: 0, alertsMax: 100 },
  },
  ...{ pollMs: 20, leaseMs: 60_000, sendMsMax: 30_000, firstWaitMs: 20, waitMsMax: 40 },
};

export const trialVault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v1";

/** Answers of 500 and more may pass. */
export function trialSend(port: number): SendMessage {
  return async (message, alerts, signal) => {
    const body = JSON.stringify({ id: message.messageId, leftOut: message.leftOut, events: alerts.map(({ eventId }) => eventId) });
    const answer = await request(`http://127.0.0.1:${port}/`, { method: "POST", body, signal });
    await answer.body.dump();
    if (answer.statusCode < 300) return { kind: "sent", evidence: { status: answer.statusCode } };
    return {
      kind: "failed",
      fault: notSent("the trial", { status: answer.statusCode }, answer.statusCode >= 500 ? "later" : "never"),
    };
  };
}

export async function putReceiver(database: Database, channel: "email" | "webhook", more: object = {}): Promise<string> {
  const [id, type, properties] =
    channel === "email"
      ? [
          `${trialVault}/replicationAlertSettings/defaultAlertSetting`,
          "microsoft.recoveryservices/vaults/replicationalertsettings",
          { sendToOwners: "DoNotSend", customEmailAddresses: ["night@example.test"], locale: "", ...more },
        ]
      : [
          `${trialVault}/providers/Watari.Alerts/webhooks/hook`,
          "watari.alerts/webhooks",
          { enabled: true, severities: [], eventTypes: [], eventCodes: [], ...more },
        ];
  for (const [key, kind, values] of [
    [trialVault, "microsoft.recoveryservices/vaults", {}],
    [id, type, properties],
  ] as const)
    await sql`insert into resources (key, id, type, name, parent_key, envelope, properties, provisioning_state, etag, created_at, updated_at)
      values (${key.toLowerCase()}, ${key}, ${kind}, ${key.split("/").at(-1)}, ${key === trialVault ? "" : trialVault.toLowerCase()}, '{}',
        ${JSON.stringify(values)}::jsonb, 'Succeeded', 'e', now(), now()) on conflict do nothing`.execute(database.db);
  return id;
}

export function trialEvent(more: Partial<NewEvent> = {}): NewEvent {
  return {
    ...{
      vaultKey: trialVault.toLowerCase(),
      dedupKey: systemRandom.uuid(),
      code: "AgentSilent",
      kind: "AgentHealth",
      severity: "Critical",
    },
    ...{ description: "d", affected: { id: `${trialVault}/x/web-01`, name: "web-01" }, component: "Agent" },
    ...more,
  };
}

export async function recordEvents(database: Database, events: readonly NewEvent[]): Promise<void> {
  const store = openEventStore({ db: database.db, clock: systemClock, random: systemRandom });
  await database.db.transaction().execute(async (transaction) => {
    for (const event of events) await store.record(event, transaction);
  });
}
