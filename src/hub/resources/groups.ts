// Subscriptions and resource groups: what contains every other resource.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { resourceGroupType, subscriptionType } from "../api/resource-id.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import { presentResource, type ResourceStore } from "../db/resources.ts";
import type { Kysely } from "kysely";
import type { Tables } from "../db/tables.ts";
import type { JobOrder } from "../jobs/job-engine.ts";
import { listTagged, tagGrammar } from "../db/tagged-resources.ts";
import { beginGroupRemoval } from "./group-removal.ts";
import { refuseFields } from "./refused-fields.ts";

const evidenceMax = 20;
const namePattern = /^[\p{L}\p{N}._()-]{0,89}[\p{L}\p{N}_()-]$/u;

export interface GroupDependencies {
  readonly db: Kysely<Tables>;
  readonly resources: ResourceStore;
  /** Begins a job; absent in a hub without jobs, where only empty groups can be deleted. */
  readonly submit?: ((order: JobOrder, db: Kysely<Tables>) => Promise<string>) | undefined;
}

export function groupTypes(dependencies: GroupDependencies): readonly ResourceType[] {
  return [
    defineResource({
      type: subscriptionType,
      within: "subscription",
      properties: z.looseObject({}),
      onPut: "refuse",
      onDelete: "refuse",
    }),
    groupResource(dependencies),
  ];
}

function groupResource({ db, resources, submit }: GroupDependencies): ResourceType {
  return defineResource({
    type: resourceGroupType,
    within: "subscription",
    /** What clients read and send back; the hub alone decides it. */
    properties: z.strictObject({ provisioningState: z.string().max(40).optional() }),
    canPatch: true,
    longWrites: ["DELETE"],
    filter: tagGrammar(["tagName", "tagValue", "name", "location"]),
    source: {
      get: async ({ id }) => {
        const group = await resources.find(id);
        return group === undefined ? undefined : presentResource(group, resourceGroupType);
      },
      list: async ({ id }, page) => {
        const rows = await listTagged(db, { under: id.key, type: resourceGroupType, ...page });
        return { items: rows.items.map((row) => presentResource(row, resourceGroupType)), next: rows.next };
      },
    },
    onPut: async (call, { location, envelope, existing }) => {
      if (location === undefined)
        throw new Fault("InputInvalid", "could not create the resource group: location is missing", { evidence: { missing: "location" } });
      if (!namePattern.test(call.id.name))
        throw new Fault("InputInvalid", "could not create the resource group: its name has a wrong form", {
          evidence: { name: call.id.name },
          causes: ["a name has at most 90 letters, digits, dots, hyphens, underscores and parentheses, and does not end with a dot"],
        });
      refuseFields(`the resource group ${call.id.name}`, envelope, { managedBy: "no service here manages groups of others" });
      if (existing?.provisioningState === "Deleting")
        throw new Fault("StateConflict", `could not change the resource group ${call.id.name}: it is being deleted`, { retry: "later" });
      return { kind: "done", properties: {} };
    },
    // Each resource of the group is deleted by its own rules.
    onDelete: async (call, group) => {
      if (call.query["forcedeletiontypes"] !== undefined)
        throw new Fault("InputInvalid", "could not delete the resource group: nothing is deleted by force here", {
          evidence: { forceDeletionTypes: call.query["forcedeletiontypes"].slice(0, 200) },
          action: "leave forceDeletionTypes out",
        });
      const below = await db
        .selectFrom("resources")
        .select("id")
        .where("parent_key", "=", group.id.key)
        .orderBy("key")
        .limit(evidenceMax)
        .execute();
      if (below.length === 0) return { kind: "done" };
      if (submit !== undefined) return { kind: "accepted", operationId: await beginGroupRemoval({ db, submit }, group, call.caller) };
      throw new Fault("StateConflict", `could not delete the resource group ${group.id.name}: it is not empty`, {
        evidence: { contains: below.map((row) => row.id) },
        causes: ["resources of the group still exist"],
        action: "delete the resources named in the evidence first",
        retry: "never",
      });
    },
  });
}
