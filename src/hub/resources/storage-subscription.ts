// What is asked of Microsoft.Storage outside an account: free names, kinds of accounts, how many there are.

import { z } from "zod";
import { defineCall, defineResource, type ResourceType } from "../api/resource-type.ts";
import type { JsonObject, ResourceStore } from "../db/resources.ts";
import { storageAccountType } from "../private-link/link-target.ts";
import { fixedList, locationType } from "./plain-types.ts";
import { accountNamePattern, findNamed } from "./account-keys.ts";

/** Azure's usual bound for one region; more is a matter of asking there, and of nothing here. */
const accountsMax = 250;
const accountsCountMax = 10_000;

/** All keep blobs once, in the hub's folder; the names are those that clients choose from. */
const skuNames = ["Standard_LRS", "Standard_ZRS", "Standard_GRS", "Standard_RAGRS", "Premium_LRS"];

export function storageSubscriptionTypes({ resources }: { readonly resources: ResourceStore }): readonly ResourceType[] {
  return [
    locationType("Microsoft.Storage"),
    defineResource({
      type: "Microsoft.Storage/locations/usages",
      within: "parent",
      properties: z.looseObject({}),
      onPut: "refuse",
      onDelete: "refuse",
      source: {
        get: async () => undefined,
        list: async ({ id }) => ({ items: [await usageOf(resources, id.subscriptionId)], next: undefined }),
      },
    }),
    fixedList("Microsoft.Storage/skus", async () => skuNames.map(showSku)),
    defineResource({
      type: "Microsoft.Storage/checkNameAvailability",
      within: "subscription",
      properties: z.looseObject({}),
      onPut: "refuse",
      onDelete: "refuse",
      source: { get: async () => undefined, list: async () => ({ items: [], next: undefined }) },
      onCall: defineCall({
        body: z.strictObject({ name: z.string().max(260), type: z.string().max(200).optional() }),
        isRead: true,
        run: async (_call, { name }) => ({ kind: "done", body: await answerName(resources, name) }),
      }),
    }),
  ];
}

async function answerName(resources: ResourceStore, name: string): Promise<JsonObject> {
  if (!accountNamePattern.test(name)) {
    const message = "an account's name has 3 to 24 lower-case letters and digits";
    return { nameAvailable: false, reason: "AccountNameInvalid", message };
  }
  if ((await findNamed(resources, name)) === undefined) return { nameAvailable: true };
  return { nameAvailable: false, reason: "AlreadyExists", message: `the storage account ${name} is already taken` };
}

async function usageOf(resources: ResourceStore, subscriptionId: string): Promise<JsonObject> {
  const under = `/subscriptions/${subscriptionId}`;
  const accounts = await resources.list({ under, isDeep: true, type: storageAccountType, countMax: accountsCountMax });
  return {
    name: { value: "StorageAccounts", localizedValue: "Storage Accounts" },
    unit: "Count",
    currentValue: accounts.length,
    limit: accountsMax,
  };
}

function showSku(name: string): JsonObject {
  const tier = name.startsWith("Premium") ? "Premium" : "Standard";
  return { name, tier, resourceType: "storageAccounts", kind: "StorageV2", locations: [], capabilities: [], restrictions: [] };
}
