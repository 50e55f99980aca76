// A webhook's body: one CloudEvents 1.0 event in structured JSON, whose data lists one or more alerts of a vault.

import type { AlertMessage } from "../db/alert-outbox.ts";
import type { HubEvent } from "../db/events.ts";
import type { JsonObject } from "../db/resources.ts";
import { adviceOf } from "./advice.ts";

export const cloudEventContentType = "application/cloudevents+json; charset=utf-8";
/** Told apart by receivers; a change that they could trip over gets another one. */
const alertsEventType = "watari.alerts.v1";
export const testEventType = "watari.alerts.test.v1";

/** The same bytes for the same message, however often it is sent: all of it was stored before. */
export function toCloudEvent(
  message: Pick<AlertMessage, "messageId" | "madeAt" | "leftOut"> & { readonly vaultId: string },
  alerts: readonly HubEvent[],
  type: string = alertsEventType,
): string {
  const [only] = alerts;
  return JSON.stringify({
    specversion: "1.0",
    id: message.messageId,
    source: message.vaultId,
    type,
    ...(alerts.length === 1 && only !== undefined ? { subject: only.affected.id } : {}),
    time: message.madeAt,
    datacontenttype: "application/json",
    data: { count: alerts.length, leftOut: message.leftOut, alerts: alerts.map((alert) => toAlert(alert, message.vaultId)) },
  });
}

/** Field names are those of replicationEvents, where there is one. */
function toAlert(event: HubEvent, vaultId: string): JsonObject {
  const { causes, action } = adviceOf(event);
  return {
    eventId: `${vaultId}/replicationEvents/${event.eventId}`,
    eventCode: event.code,
    eventType: event.kind,
    severity: event.severity,
    description: event.description,
    timeOfOccurrence: event.at,
    affectedObjectFriendlyName: event.affected.name,
    affectedObjectId: event.affected.id,
    ...(event.fabricId === undefined ? {} : { fabricId: event.fabricId }),
    ...(event.job === undefined ? {} : { jobId: `${vaultId}/replicationJobs/${event.job.jobId}` }),
    ...(event.fault === undefined ? {} : { faultId: event.fault.id }),
    possibleCauses: causes,
    recommendedAction: action,
  };
}
