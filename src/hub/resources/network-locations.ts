// What is asked of Microsoft.Network about a place: what private endpoints can lead to, and how much there is of what.

import { z } from "zod";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { JsonObject, ResourceStore } from "../db/resources.ts";
import { endpointType, zoneType } from "../private-link/endpoint-plan.ts";
import { projectType, storageAccountType, vaultType } from "../private-link/link-target.ts";
import { locationType } from "./plain-types.ts";

const namespace = "Microsoft.Network";
/** Azure's usual bounds for one region. */
const counted = [
  { type: `${namespace}/virtualNetworks`, name: "VirtualNetworks", limit: 1000 },
  { type: endpointType, name: "PrivateEndpoints", limit: 64_000 },
  { type: zoneType, name: "PrivateDnsZones", limit: 1000 },
];
const countMax = 65_000;
const targets = [
  { type: vaultType, displayName: "Recovery Services vaults" },
  { type: storageAccountType, displayName: "Storage accounts" },
  { type: projectType, displayName: "Migration projects" },
];

export function networkLocationTypes({ resources }: { readonly resources: ResourceStore }): readonly ResourceType[] {
  const readOnly = { within: "parent", properties: z.looseObject({}), onPut: "refuse", onDelete: "refuse" } as const;
  const none = async (): Promise<undefined> => undefined;
  return [
    locationType(namespace),
    defineResource({
      ...readOnly,
      type: `${namespace}/locations/usages`,
      source: { get: none, list: async ({ id }) => ({ items: await usagesOf(resources, id.text, id.subscriptionId), next: undefined }) },
    }),
    defineResource({
      ...readOnly,
      type: `${namespace}/locations/availablePrivateEndpointTypes`,
      source: { get: none, list: async ({ id }) => ({ items: targets.map((target) => showTarget(id.text, target)), next: undefined }) },
    }),
  ];
}

async function usagesOf(resources: ResourceStore, location: string, subscriptionId: string): Promise<readonly JsonObject[]> {
  const under = `/subscriptions/${subscriptionId}`;
  return await Promise.all(
    counted.map(async ({ type, name, limit }) => ({
      id: `${location}/usages/${name}`,
      name: { value: name, localizedValue: name },
      unit: "Count",
      currentValue: (await resources.list({ under, isDeep: true, type, countMax })).length,
      limit,
    })),
  );
}

function showTarget(location: string, { type, displayName }: (typeof targets)[number]): JsonObject {
  const name = type.replaceAll("/", ".");
  return {
    id: `${location}/availablePrivateEndpointTypes/${name}`,
    name,
    type: `${namespace}/AvailablePrivateEndpointTypes`,
    resourceName: type,
    displayName,
  };
}
