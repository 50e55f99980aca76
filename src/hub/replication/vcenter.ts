// vCenters as the appliances tell them, in Azure's shape.

import type { Inventory } from "../../contract/appliance-protocol.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { fabricId, vaultOf, vcenterType } from "./names.ts";
import { appliancesOf, toHealthError } from "./site-appliances.ts";

export type Vcenter = Inventory["vcenters"][number];

export async function vcentersAt(services: HubServices, id: ResourceId): Promise<readonly JsonObject[]> {
  const appliances = await appliancesOf(services, id);
  return (await Promise.all(appliances.map(async (appliance) => await vcentersOf(services, vaultOf(id), appliance)))).flat();
}

export async function findVcenter(services: HubServices, id: ResourceId): Promise<JsonObject | undefined> {
  return (await vcentersAt(services, id)).find((vcenter) => String(vcenter["name"]).toLowerCase() === id.name.toLowerCase());
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

function showVcenter(vcenter: Vcenter, fabricName: string): JsonObject {
  return {
    friendlyName: vcenter.name,
    internalId: vcenter.vcenterId,
    infrastructureId: vcenter.vcenterId,
    ...(vcenter.lastDiscoveredAt === undefined ? {} : { lastHeartbeat: vcenter.lastDiscoveredAt }),
    discoveryStatus: discoveryStatusOf(vcenter),
    processServerId: fabricName,
    ipAddress: vcenter.host,
    port: String(vcenter.port),
    runAsAccountId: vcenter.runAsAccountId,
    fabricArmResourceName: fabricName,
    healthErrors: vcenter.fault === undefined ? [] : [toHealthError(vcenter.fault, "Critical")],
  };
}

function discoveryStatusOf({ status, lastDiscoveredAt }: Vcenter): string {
  if (status === "failed") return "Failed";
  return lastDiscoveredAt === undefined ? "InProgress" : "Completed";
}
