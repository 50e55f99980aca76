// What can be asked of a provider: the operations that its clients list, made from the table of routes.

import { z } from "zod";
import { listRoutes } from "../api/arm-router.ts";
import { defineResource, type ResourceType, type TypeTable } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";

const words: Readonly<Record<string, string>> = { read: "read", write: "create or change", delete: "delete", action: "call" };

/** Sorted by name; undefined for a namespace of which the hub has no type. */
export function operationsOf(types: TypeTable, namespace: string): readonly JsonObject[] | undefined {
  const prefix = `${namespace.toLowerCase()}/`;
  const names = new Set(listRoutes(types).flatMap(({ action }) => (action.toLowerCase().startsWith(prefix) ? [action] : [])));
  return names.size === 0 ? undefined : [...names].toSorted().map(showOperation);
}

function showOperation(name: string): JsonObject {
  const [provider = "", ...segments] = name.split("/");
  const verb = segments.at(-1) ?? "";
  const resource = segments.slice(0, -1).join("/");
  const operation = `${words[verb] ?? verb} ${resource}`;
  return { name, isDataAction: false, origin: "user", display: { provider, resource, operation, description: `may ${operation}` } };
}

/** The list as the client of protected items asks for it: under a resource group. */
export function operationListType(types: () => TypeTable): ResourceType {
  const namespace = "Microsoft.RecoveryServices";
  return defineResource({
    type: `${namespace}/operations`,
    within: "resourceGroup",
    properties: z.strictObject({}),
    onPut: "refuse",
    onDelete: "refuse",
    source: {
      get: async () => undefined,
      list: async () => ({ items: operationsOf(types(), namespace) ?? [], next: undefined }),
    },
  });
}
