// Watari.Alerts/deliveries on a vault: the messages of its alerts, sent, waiting and given up, with what was seen at the last attempt.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import { findMessage, listMessages, reviveMessage, type AlertMessage, type MessagePlace } from "../db/alert-outbox.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";

const deliveryType = "Watari.Alerts/deliveries";
const placeShape = z.object({ madeAt: z.iso.datetime(), messageId: z.guid() });

export function deliveryResource({ database }: Pick<HubServices, "database">): ResourceType {
  const { db } = database;
  return defineResource({
    type: deliveryType,
    within: "anything",
    properties: z.record(z.string(), z.unknown()),
    onPut: "refuse",
    onDelete: "refuse",
    source: {
      get: async ({ id }) => {
        const message = z.guid().safeParse(id.name).success ? await findMessage(db, id.parentKey, id.name.toLowerCase()) : undefined;
        return message === undefined ? undefined : present(parseResourceId(id.parentText), message);
      },
      list: async ({ id }, { after, countMax }) => {
        const page = await listMessages(db, id.key, { countMax, after: parsePlace(after) });
        const last = page.at(-1);
        return {
          items: page.map((message) => present(id, message)),
          next: page.length === countMax && last !== undefined ? `${last.madeAt} ${last.messageId}` : undefined,
        };
      },
    },
    actions: {
      resend: defineAction({
        body: z.strictObject({}),
        run: async ({ id }) => {
          const revived = await reviveMessage(db, id.name.toLowerCase());
          if (revived === "revived") return { kind: "done" };
          throw new Fault(
            "StateConflict",
            revived === "busy"
              ? `could not send ${id.name} again: another message to the same receiver is on its way`
              : `could not send ${id.name} again: it was not given up`,
            { evidence: { deliveryId: id.text }, retry: revived === "busy" ? "later" : "never" },
          );
        },
      }),
    },
  });
}

function parsePlace(after: string | undefined): MessagePlace | undefined {
  if (after === undefined) return undefined;
  const [madeAt, messageId] = after.split(" ");
  return placeShape.parse({ madeAt, messageId });
}

const states = { waiting: "Waiting", sent: "Sent", dead: "GivenUp" } as const;

function present(scope: ResourceId, message: AlertMessage): JsonObject {
  const { messageId, state, channel, targetId, alertCount, leftOut, attemptCount, madeAt, nextAt, endedAt, outcome } = message;
  return {
    id: `${scope.text}/providers/${deliveryType}/${messageId}`,
    name: messageId,
    type: deliveryType,
    properties: {
      state: states[state],
      channel,
      receiverId: targetId,
      alertCount,
      leftOut,
      attemptCount,
      createdAt: madeAt,
      ...(state === "waiting" ? { nextAttemptAt: nextAt } : {}),
      ...(endedAt === undefined ? {} : { endedAt }),
      ...outcome,
    },
  };
}
