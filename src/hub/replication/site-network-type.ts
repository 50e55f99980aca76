// Networks of a site: those that the machines of an appliance's vCenters are plugged into.

import { createHash } from "node:crypto";
import { z } from "zod";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { fabricId, networkType, vaultOf } from "./names.ts";
import { appliancesOf } from "./site-appliances.ts";

export function siteNetworkResource(services: HubServices): ResourceType {
  const networksAt = async (id: ResourceId): Promise<readonly JsonObject[]> => {
    const appliances = await appliancesOf(services, id);
    return (await Promise.all(appliances.map(async (appliance) => await networksOf(services, vaultOf(id), appliance)))).flat();
  };
  return defineResource({
    type: networkType,
    within: "parent",
    isListedUnderAncestors: true,
    properties: z.record(z.string(), z.unknown()),
    source: {
      get: async ({ id }) => (await networksAt(id)).find((network) => network["name"] === id.name.toLowerCase()),
      list: async ({ id }) => ({ items: await networksAt(id), next: undefined }),
    },
  });
}

async function networksOf(services: HubServices, vault: ResourceId, { applianceId }: Appliance): Promise<readonly JsonObject[]> {
  const inventory = await services.appliances.inventory(applianceId);
  const names = new Set(inventory?.machines.flatMap(({ nics }) => nics.map(({ network }) => network)) ?? []);
  return [...names].toSorted().map((friendlyName) => {
    // vCenters allow names that no resource may have.
    const name = createHash("sha256").update(friendlyName).digest("hex").slice(0, 32);
    return {
      id: `${fabricId(vault, applianceId).text}/replicationNetworks/${name}`,
      name,
      type: networkType,
      properties: { fabricType: "VMware", friendlyName, networkType: "VmNetwork", subnets: [] },
    };
  });
}
