// Protectable items: the machines that an appliance's vCenters show.

import { z } from "zod";
import { byHandId, type DiscoveredMachine } from "../../contract/appliance-protocol.ts";
import type { ApplianceId } from "../../contract/ids.ts";
import { passesFilter, type Filter, type FilterFields } from "../api/filter.ts";
import { defineResource, type ArmCall, type ResourceSource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { findItemsOf } from "./item.ts";
import { applianceOf, containerId, protectableType, provider, vaultOf } from "./names.ts";

const mebibyte = 1 << 20;

/** `state` as Azure's clients filter by it: All, Protected or Unprotected. */
const filterFields: FilterFields = {
  state: { kind: "text", path: ["properties", "protectionStatus"] },
  friendlyName: { kind: "text", path: ["properties", "friendlyName"] },
};

export function protectableResource(services: HubServices): ResourceType {
  return defineResource({
    type: protectableType,
    within: "parent",
    properties: z.record(z.string(), z.unknown()),
    filter: { fields: filterFields },
    source: protectables(services),
  });
}

function protectables(services: HubServices): ResourceSource {
  const machinesOf = async (applianceId: ApplianceId): Promise<readonly DiscoveredMachine[]> => {
    const machines = (await services.appliances.inventory(applianceId))?.machines ?? [];
    return machines.toSorted((left, right) => (left.infrastructureId < right.infrastructureId ? -1 : 1));
  };
  const show = async (call: ArmCall, machine: DiscoveredMachine): Promise<JsonObject> =>
    await showProtectable(services, containerId(vaultOf(call.id), applianceOf(call.id)), machine);
  return {
    get: async (call) => {
      const machine = (await machinesOf(applianceOf(call.id))).find((each) => each.infrastructureId === call.id.name);
      return machine === undefined ? undefined : await show(call, machine);
    },
    list: async (call, { after, countMax, filter }) => {
      const machines = (await machinesOf(applianceOf(call.id))).filter((each) => after === undefined || each.infrastructureId > after);
      const wanted = filter === undefined ? undefined : withoutAll(filter);
      const items: JsonObject[] = [];
      for (const machine of machines) {
        const item = await show(call, machine);
        if (wanted !== undefined && !passesFilter(wanted, filterFields, item)) continue;
        if (items.length === countMax) return { items, next: String(items.at(-1)?.["name"]) };
        items.push(item);
      }
      return { items, next: undefined };
    },
  };
}

/** "state eq 'All'" passes everything. */
function withoutAll(filter: Filter): Filter {
  if (filter.kind === "and" || filter.kind === "or") return { ...filter, parts: filter.parts.map(withoutAll) };
  const isAll = filter.kind === "compare" && filter.field === "state" && String(filter.value).toLowerCase() === "all";
  return isAll ? { kind: "and", parts: [] } : filter;
}

async function showProtectable(services: HubServices, container: ResourceId, machine: DiscoveredMachine): Promise<JsonObject> {
  const { infrastructureId, smbiosUuid } = machine;
  const items = await findItemsOf(services.database.db, { infrastructureId, smbiosUuid });
  const own = items.find((item) => item.infrastructureId === infrastructureId);
  const problems = [
    ...(own === undefined ? [] : ["AlreadyProtected"]),
    ...(own === undefined && items.length > 0 ? ["MachineCloned"] : []),
    ...(machine.powerState === "poweredOn" ? [] : ["MachineNotRunning"]),
  ];
  return {
    id: `${container.text}/replicationProtectableItems/${infrastructureId}`,
    name: infrastructureId,
    type: protectableType,
    properties: {
      friendlyName: machine.name,
      protectionStatus: own === undefined ? "Unprotected" : "Protected",
      ...(own === undefined ? {} : { replicationProtectedItemId: own.id }),
      protectionReadinessErrors: problems,
      supportedReplicationProviders: [provider],
      customDetails: {
        instanceType: "VMwareVirtualMachine",
        agentInstalled: own === undefined ? "false" : "true",
        osType: /windows/i.test(machine.guestOs) ? "Windows" : "Linux",
        guestOs: machine.guestOs,
        ipAddress: machine.addresses[0] ?? "",
        ipAddresses: machine.addresses,
        poweredOn: machine.powerState === "poweredOn" ? "On" : "Off",
        vCenterInfrastructureId: infrastructureId,
        discoveryType: machine.vcenterId === byHandId ? "ByAddress" : "vCenter",
        cpuCount: machine.cpuCount,
        memoryInMB: Math.round(machine.memoryBytes / mebibyte),
        smbiosUuid,
        diskDetails: machine.disks.map((disk) => ({
          diskId: disk.uuid ?? disk.label,
          diskName: disk.label,
          diskSizeInMB: String(Math.round(disk.sizeBytes / mebibyte)),
          diskType: disk.controller,
        })),
        nics: machine.nics,
        validationErrors: [],
      },
    },
  };
}
