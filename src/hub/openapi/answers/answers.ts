// What every type, action and operation of the management API answers: the documents of docs/api and the check of each answer are made of it.

import { z } from "zod";
import { isWritable } from "../../api/arm-write.ts";
import type { ResourceType } from "../../api/resource-type.ts";
import { storedAsSent } from "../stored-as-sent.ts";
import { alertAnswers } from "./alert-answers.ts";
import { anything, fault, number, row, text, time, type TypeAnswers } from "./answer-parts.ts";
import { computeAnswers } from "./compute-answers.ts";
import { itemAnswers } from "./item-answers.ts";
import { jobAnswers } from "./job-answers.ts";
import { networkAnswers } from "./network-answers.ts";
import { operation, platformAnswers, provider } from "./platform-answers.ts";
import { siteAnswers } from "./site-answers.ts";
import { migrateAnswers, storageAnswers } from "./storage-answers.ts";
import { vaultAnswers } from "./vault-answers.ts";

const tables = [
  ...[platformAnswers, networkAnswers, storageAnswers, migrateAnswers, computeAnswers, alertAnswers],
  ...[vaultAnswers, siteAnswers, itemAnswers, jobAnswers],
];
export const describedAnswers: ReadonlyMap<string, TypeAnswers> = new Map(tables.flatMap((table) => Object.entries(table)));

/** Undefined for a type that nobody described: a test of the table holds that none of the hub's is. */
export function answersOf(type: ResourceType): TypeAnswers | undefined {
  return type.absent === undefined ? describedAnswers.get(type.type) : { resource: z.never() };
}

/** Where members that nobody described may stand: what a client sent, stored and answered as it was. */
export function keptOf(type: ResourceType): "nothing" | "beside" | "everything" {
  if (storedAsSent.has(type.type)) return "everything";
  return type.isBare === true || type.absent !== undefined || !isWritable(type) ? "nothing" : "beside";
}

const problem = z.strictObject({ code: text, message: text, target: text.optional() });
const armError = z.strictObject({
  code: text,
  message: text,
  target: text.optional(),
  details: z.array(problem),
  additionalInfo: z.array(z.strictObject({ type: z.literal("WatariFault"), info: fault })),
});
export const errorAnswer = z.strictObject({ error: armError });

/** At the address of Azure-AsyncOperation; `properties` is what the address of Location answers in the end. */
export const operationStatus = z.strictObject({
  id: text,
  name: text,
  status: z.enum(["InProgress", "Succeeded", "Failed", "Canceled"]),
  startTime: time,
  endTime: time.optional(),
  percentComplete: number,
  properties: anything.optional(),
  error: armError.optional(),
});

const page = (item: z.ZodType): z.ZodType => z.strictObject({ value: z.array(item) });
const subscription = row(z.strictObject({}), { subscriptionId: text, tenantId: text, displayName: text, state: text });

/** What is asked outside of subscriptions, by its route. */
export const tenantAnswers: Readonly<Record<string, z.ZodType>> = {
  "/subscriptions": page(subscription),
  "/tenants": page(z.strictObject({ id: text, tenantId: text, displayName: text, tenantCategory: text })),
  "/providers": page(provider),
  "/providers/:namespace": provider,
  "/providers/:namespace/operations": page(operation),
};
