// Protected items: enable by PUT, compute and network by PATCH, the actions of a migration by POST, purge by DELETE.

import { z } from "zod";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import { actionsOf, disable } from "./item-actions.ts";
import { enable, enableShape } from "./item-enable.ts";
import { changeShape } from "./item-settings.ts";
import { update } from "./item-update.ts";
import { itemType } from "./names.ts";
import { presentItem, presentItems } from "./present-item.ts";
import type { ReplicationFront } from "./world.ts";

/** Stored properties after a PATCH are the item's own; a PUT brings an EnableProtectionInput. */
const storedOrEnable = z.record(z.string(), z.unknown());

export function itemResource(front: ReplicationFront): ResourceType {
  return defineResource({
    type: itemType,
    longWrites: ["PUT", "PATCH", "DELETE"],
    isBare: true,
    within: "parent",
    isListedUnderAncestors: true,
    canPatch: true,
    properties: storedOrEnable,
    inputs: { put: enableShape, patch: changeShape },
    onPut: async (call, desired) => await enable(front, call, desired),
    onPatch: async (call, desired, patch) => await update(front, call, desired, patch),
    onDelete: async (call, resource) => await disable(front, call, resource, { reason: "NotSpecified", isPurge: true }),
    present: async (resource) => await presentItem(front.services, resource),
    // As the appliance last told them is how they are shown; the stored ones are of use before it has told any.
    unlisted: ["facts"],
    presentMany: async (resources) => await presentItems(front.services, resources),
    actions: actionsOf(front),
  });
}
