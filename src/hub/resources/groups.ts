// Subscriptions and resource groups: what contains every other resource.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { resourceGroupType, subscriptionType } from "../api/resource-id.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceStore } from "../db/resources.ts";
import type { Kysely } from "kysely";
import type { Tables } from "../db/tables.ts";

const evidenceMax = 20;

export function groupTypes(dependencies: { readonly db: Kysely<Tables>; readonly resources: ResourceStore }): readonly ResourceType[] {
  const { db } = dependencies;
  return [
    defineResource({
      type: subscriptionType,
      within: "subscription",
      properties: z.looseObject({}),
      onPut: "refuse",
      onDelete: "refuse",
    }),
    defineResource({
      type: resourceGroupType,
      within: "subscription",
      properties: z.looseObject({}),
      canPatch: true,
      onPut: async (_call, desired) => {
        if (desired.location === undefined)
          throw new Fault("InputInvalid", "could not create the resource group: location is missing", {
            evidence: { missing: "location" },
          });
        return { kind: "done", properties: {} };
      },
      // Removing a group removes what is in it only after each resource was deleted by its own rules.
      onDelete: async (_call, group) => {
        const below = await db
          .selectFrom("resources")
          .select("id")
          .where("parent_key", "=", group.id.key)
          .orderBy("key")
          .limit(evidenceMax)
          .execute();
        if (below.length === 0) return { kind: "done" };
        throw new Fault("StateConflict", `could not delete the resource group ${group.id.name}: it is not empty`, {
          evidence: { contains: below.map((row) => row.id) },
          causes: ["resources of the group still exist"],
          action: "delete the resources named in the evidence first",
          retry: "never",
        });
      },
    }),
  ];
}
