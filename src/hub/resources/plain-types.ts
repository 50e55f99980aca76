// Types that need no store: locations, lists that are fixed, and what Azure has and this hub has none of.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineAction, defineResource, type Absence, type ResourceType } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";

const anything = z.looseObject({});
const none = async (): Promise<undefined> => undefined;

/** Locations are words of the operator: any of them may be asked about, and what is told is the same everywhere. */
export function locationType(namespace: string): ResourceType {
  const type = `${namespace}/locations`;
  return defineResource({
    type,
    within: "subscription",
    properties: anything,
    onPut: "refuse",
    onDelete: "refuse",
    source: {
      get: async ({ id }) => ({ id: id.text, name: id.name, type }),
      list: async () => ({ items: [], next: undefined }),
    },
  });
}

/** A list that can only be read. */
export function fixedList(type: string, list: () => Promise<readonly JsonObject[]>): ResourceType {
  return defineResource({
    type,
    within: "parent",
    properties: anything,
    onPut: "refuse",
    onDelete: "refuse",
    source: { get: none, list: async () => ({ items: await list(), next: undefined }) },
  });
}

/** A kind of Azure's inside another resource, of which there is never one here; `actions` are those that Azure has on it. */
export function absentType(type: string, absent: Absence, actions: readonly string[] = []): ResourceType {
  const run = async (): Promise<never> => await Promise.reject(new Error("assertion failed: an action of an absent type was run"));
  return defineResource({
    type,
    within: "parent",
    isListedUnderAncestors: true,
    properties: anything,
    absent,
    source: { get: none, list: async () => ({ items: [], next: undefined }) },
    actions: Object.fromEntries(actions.map((name) => [name, defineAction({ isRefused: true, body: z.unknown(), run })])),
  });
}

/** A type that Azure has and of which there are none here: lists are empty, and creating one says why. */
export function emptyType(type: string, reason: string): ResourceType {
  return defineResource({
    type,
    within: "resourceGroup",
    properties: anything,
    source: { get: none, list: async () => ({ items: [], next: undefined }) },
    onPut: async (call) => {
      throw new Fault("OperationNotSupported", `could not create ${call.id.name}: ${reason}`, { evidence: { resourceType: type } });
    },
    onDelete: async () => ({ kind: "done" }),
  });
}
