// Events of a vault as ARM clients see them.

import { z } from "zod";
import type { FaultReport } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { EventPlace, EventWish, HubEvent } from "../db/events.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { affectedTypeOf } from "./affected-type.ts";
import { eventType, provider, vaultOf } from "./names.ts";
import { queryGrammar, queryValues, type QueryValues } from "./query-filter.ts";

const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** The fields of the SDK's EventQueryParameter. */
const grammar = queryGrammar({
  texts: {
    eventCode: "eventCode",
    severity: "severity",
    eventType: "eventType",
    fabricName: "fabricId",
    affectedObjectFriendlyName: "affectedObjectFriendlyName",
    affectedObjectCorrelationId: "affectedObjectCorrelationId",
  },
  time: "timeOfOccurrence",
});

export function eventResource({ events }: HubServices): ResourceType {
  return defineResource({
    type: eventType,
    within: "parent",
    properties: z.record(z.string(), z.unknown()),
    filter: grammar,
    source: {
      get: async ({ id }) => {
        const name = id.name.toLowerCase();
        const event = uuidPattern.test(name) ? await events.find(vaultOf(id).key, name) : undefined;
        return event === undefined ? undefined : present(vaultOf(id), event);
      },
      list: async ({ id, query }, { after, countMax, filter }) => {
        const vault = vaultOf(id);
        const page = await events.list(vault.key, {
          countMax,
          after: parsePlace(after),
          wish: parseWish(queryValues(filter, query["$filter"])),
        });
        const { next } = page;
        return {
          items: page.events.map((event) => present(vault, event)),
          next: next === undefined ? undefined : `${next.at} ${next.eventId}`,
        };
      },
    },
  });
}

function parseWish(given: QueryValues): EventWish {
  const { eventCode, severity, eventType: kind, fabricName, affectedObjectFriendlyName, affectedObjectCorrelationId } = given;
  const { startTime, endTime } = given;
  return {
    ...(eventCode === undefined ? {} : { code: eventCode }),
    ...(severity === undefined ? {} : { severity }),
    ...(kind === undefined ? {} : { kind }),
    ...(fabricName === undefined ? {} : { fabric: fabricName }),
    ...(affectedObjectFriendlyName === undefined ? {} : { affectedName: affectedObjectFriendlyName }),
    ...(affectedObjectCorrelationId === undefined ? {} : { affectedId: affectedObjectCorrelationId }),
    ...(startTime === undefined ? {} : { startAt: startTime }),
    ...(endTime === undefined ? {} : { endAt: endTime }),
  };
}

/** What the router gave out as the next page; anything else is told as a token that is not of this list. */
const placeShape = z.object({ at: z.iso.datetime(), eventId: z.guid() });

function parsePlace(after: string | undefined): EventPlace | undefined {
  if (after === undefined) return undefined;
  const [at, eventId] = after.split(" ");
  return placeShape.parse({ at, eventId });
}

function present(vault: ResourceId, event: HubEvent): JsonObject {
  const { fault, job, affected } = event;
  return {
    id: `${vault.text}/replicationEvents/${event.eventId}`,
    name: event.eventId,
    type: eventType,
    properties: {
      eventCode: event.code,
      description: event.description,
      eventType: event.kind,
      affectedObjectFriendlyName: affected.name,
      affectedObjectCorrelationId: affected.id,
      severity: event.severity,
      timeOfOccurrence: event.at,
      ...(event.fabricId === undefined ? {} : { fabricId: event.fabricId }),
      providerSpecificDetails: {
        instanceType: provider,
        eventType: event.kind,
        category: event.kind,
        component: event.component,
        correctiveAction: fault?.action ?? "",
        details: fault === undefined ? event.description : fault.causes.join("; "),
        summary: event.description,
        siteName: event.fabricId?.split("/").at(-1) ?? "",
      },
      ...(job === undefined
        ? {}
        : {
            eventSpecificDetails: {
              instanceType: "JobStatus",
              jobId: `${vault.text}/replicationJobs/${job.jobId}`,
              jobFriendlyName: job.title,
              jobStatus: job.state,
              affectedObjectType: affectedTypeOf(affected.id),
            },
          }),
      healthErrors: fault === undefined ? [] : [toHealthError(fault, event)],
    },
  };
}

function toHealthError(fault: FaultReport, { kind, severity, at, affected }: HubEvent): JsonObject {
  return {
    errorSource: kind,
    errorType: kind,
    errorLevel: severity,
    errorCategory: kind,
    errorCode: fault.id,
    errorId: fault.id,
    summaryMessage: fault.message,
    errorMessage: fault.message,
    possibleCauses: fault.causes.join("; "),
    recommendedAction: fault.action,
    creationTimeUtc: at,
    entityId: affected.id,
    customerResolvability: "Allowed",
    innerHealthErrors: [],
  };
}
