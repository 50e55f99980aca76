// What webhooks, the mail server, deliveries and the alert setting of a vault answer. Their secrets are never among it.

import { z } from "zod";
import { mailServerAnswerShape, webhookAnswerShape } from "../../alerts/alert-shapes.ts";
import { anything, fault, row, seen, text, texts, time, whole, type AnswerTable } from "./answer-parts.ts";

const tried = z.strictObject({ outcome: z.enum(["sent", "failed"]), evidence: anything, fault: fault.optional() });

export const alertAnswers: AnswerTable = {
  "Watari.Alerts/webhooks": {
    resource: row(z.strictObject(webhookAnswerShape.shape)),
    actions: { test: tried, rotateSecret: z.strictObject({ signingSecret: text }) },
  },
  "Watari.Alerts/mailServers": { resource: row(z.strictObject(mailServerAnswerShape.shape)), actions: { test: tried } },
  "Watari.Alerts/deliveries": {
    resource: seen(
      z.strictObject({
        state: z.enum(["Waiting", "Sent", "GivenUp"]),
        channel: text,
        receiverId: text,
        alertCount: whole,
        leftOut: whole,
        attemptCount: whole,
        createdAt: time,
        nextAttemptAt: time.optional(),
        endedAt: time.optional(),
        /** Of the last attempt. */
        evidence: anything.optional(),
        fault: fault.optional(),
        accepted: texts.optional(),
      }),
    ),
    actions: { resend: "nothing" },
  },
  "Microsoft.RecoveryServices/vaults/replicationAlertSettings": {
    resource: seen(z.strictObject({ sendToOwners: text, customEmailAddresses: texts, locale: text })),
  },
};
