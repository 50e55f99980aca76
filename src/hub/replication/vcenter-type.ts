// vCenters as an appliance tells them. They are added on the appliance, because their credentials never leave it.

import { z } from "zod";
import type { Inventory } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { fabricId, vaultOf, vcenterType } from "./names.ts";
import { appliancesOf, toHealthError } from "./site-appliances.ts";

export function vcenterResource(services: HubServices): ResourceType {
  const vcentersAt = async (id: ResourceId): Promise<readonly JsonObject[]> => {
    const appliances = await appliancesOf(services, id);
    return (await Promise.all(appliances.map(async (appliance) => await vcentersOf(services, vaultOf(id), appliance)))).flat();
  };
  const refuse = (doing: string, { name }: ResourceId): never => {
    throw new Fault("OperationNotSupported", `could not ${doing} the vCenter ${name} from here: its credential is on the appliance alone`, {
      action: "use `watari appliance vcenter` on the appliance, then look anew (POST checkConsistency on the fabric)",
    });
  };
  return defineResource({
    type: vcenterType,
    within: "parent",
    isListedUnderAncestors: true,
    canPatch: true,
    properties: z.record(z.string(), z.unknown()),
    source: {
      get: async ({ id }) => (await vcentersAt(id)).find((vcenter) => String(vcenter["name"]).toLowerCase() === id.name.toLowerCase()),
      list: async ({ id }) => ({ items: await vcentersAt(id), next: undefined }),
    },
    onPut: async ({ id }) => refuse("add", id),
    onPatch: async ({ id }) => refuse("change", id),
    onDelete: async ({ id }) => refuse("remove", id),
  });
}

async function vcentersOf(services: HubServices, vault: ResourceId, { applianceId }: Appliance): Promise<readonly JsonObject[]> {
  const inventory = await services.appliances.inventory(applianceId);
  const fabric = fabricId(vault, applianceId);
  return (inventory?.vcenters ?? []).map((vcenter) => ({
    id: `${fabric.text}/replicationvCenters/${vcenter.vcenterId}`,
    name: vcenter.vcenterId,
    type: vcenterType,
    properties: showVcenter(vcenter, fabric.name),
  }));
}

function showVcenter(vcenter: Inventory["vcenters"][number], fabricName: string): JsonObject {
  return {
    friendlyName: vcenter.name,
    internalId: vcenter.vcenterId,
    infrastructureId: vcenter.vcenterId,
    ...(vcenter.lastDiscoveredAt === undefined ? {} : { lastHeartbeat: vcenter.lastDiscoveredAt }),
    discoveryStatus: vcenter.status === "connected" ? "Completed" : "Failed",
    processServerId: fabricName,
    ipAddress: vcenter.host,
    port: String(vcenter.port),
    runAsAccountId: vcenter.runAsAccountId,
    fabricArmResourceName: fabricName,
    healthErrors: vcenter.fault === undefined ? [] : [toHealthError(vcenter.fault, "Critical")],
  };
}
