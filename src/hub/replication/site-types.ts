// The on-site resource types: an appliance is a fabric with one container; what its vCenters show can be protected.

import { z } from "zod";
import type { DiscoveredMachine } from "../../contract/appliance-protocol.ts";
import type { ApplianceId } from "../../contract/ids.ts";
import { defineResource, type ArmCall, type ResourceSource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { findItemsOf } from "./item.ts";
import {
  applianceOf,
  containerId,
  containerName,
  containerType,
  fabricId,
  fabricType,
  itemType,
  protectableType,
  provider,
  vaultOf,
} from "./names.ts";

const mebibyte = 1 << 20;
const anything = z.record(z.string(), z.unknown());

export function siteTypes(services: HubServices): readonly ResourceType[] {
  const readOnly = { within: "parent", properties: anything } as const;
  return [
    defineResource({ ...readOnly, type: fabricType, source: fabrics(services) }),
    defineResource({ ...readOnly, type: containerType, isListedUnderAncestors: true, source: containers(services) }),
    defineResource({ ...readOnly, type: protectableType, source: protectables(services) }),
  ];
}

/** The appliances at or under which a call looks: one for anything inside a fabric, else all of the vault. */
async function appliancesOf(services: HubServices, id: ResourceId): Promise<readonly Appliance[]> {
  const vault = vaultOf(id);
  const all = await services.appliances.inVault(vault.key);
  if (!id.key.startsWith(`${vault.key}/replicationfabrics/`)) return all;
  const applianceId = applianceOf(id);
  return all.filter((appliance) => appliance.applianceId === applianceId);
}

/** Appliances of one vault are few; their lists are answered whole. */
function sourceOf(
  services: HubServices,
  show: (vault: ResourceId, appliance: Appliance) => Promise<JsonObject>,
  nameOf: (appliance: Appliance) => string,
): ResourceSource {
  return {
    get: async ({ id }) => {
      const [appliance] = await appliancesOf(services, id);
      if (appliance === undefined || nameOf(appliance).toLowerCase() !== id.name.toLowerCase()) return undefined;
      return await show(vaultOf(id), appliance);
    },
    list: async ({ id }) => {
      const found = await appliancesOf(services, id);
      return { items: await Promise.all(found.map(async (each) => await show(vaultOf(id), each))), next: undefined };
    },
  };
}

function fabrics(services: HubServices): ResourceSource {
  const show = async (vault: ResourceId, appliance: Appliance): Promise<JsonObject> => {
    const inventory = await services.appliances.inventory(appliance.applianceId);
    const errors = appliance.telemetry?.healthErrors ?? [];
    const common = { agentVersion: appliance.version, lastHeartbeat: appliance.lastSeenAt, versionStatus: "Supported" };
    return {
      id: fabricId(vault, appliance.applianceId).text,
      name: appliance.applianceId,
      type: fabricType,
      properties: {
        friendlyName: appliance.name,
        internalIdentifier: appliance.applianceId,
        bcdrState: "Valid",
        health: errors.length > 0 ? "Warning" : "Normal",
        healthErrorDetails: errors.map((fault) => ({ errorCode: fault.id, errorMessage: fault.message, recommendedAction: fault.action })),
        customDetails: {
          instanceType: "VMware",
          hostName: appliance.name,
          ...common,
          processServerCount: "1",
          processServers: [
            {
              id: appliance.applianceId,
              friendlyName: appliance.name,
              osType: "Linux",
              ...common,
              ...(appliance.telemetry === undefined
                ? {}
                : {
                    totalSpaceInBytes: appliance.telemetry.spoolBytesMax,
                    availableSpaceInBytes: appliance.telemetry.spoolBytesMax - appliance.telemetry.spoolBytes,
                  }),
            },
          ],
          masterTargetServers: [],
          runAsAccounts: (inventory?.runAsAccounts ?? []).map(({ accountId, name, kind }) => ({ accountId, accountName: name, kind })),
          vCenters: (inventory?.vcenters ?? []).map(({ vcenterId, name, host, status }) => ({ vcenterId, name, host, status })),
        },
      },
    };
  };
  return sourceOf(services, show, (appliance) => appliance.applianceId);
}

function containers(services: HubServices): ResourceSource {
  const show = async (vault: ResourceId, { applianceId, name }: Appliance): Promise<JsonObject> => {
    const id = containerId(vault, applianceId);
    const items = await services.resources.list({ under: id.text, type: itemType, countMax: 10_000 });
    return {
      id: id.text,
      name: id.name,
      type: containerType,
      properties: {
        friendlyName: id.name,
        fabricFriendlyName: name,
        fabricType: "VMware",
        protectedItemCount: items.length,
        pairingStatus: "Paired",
        role: "Primary",
        fabricSpecificDetails: { instanceType: "VMware" },
      },
    };
  };
  return sourceOf(services, show, (appliance) => containerName(appliance.applianceId));
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
    list: async (call, { after, countMax }) => {
      const machines = (await machinesOf(applianceOf(call.id))).filter((each) => after === undefined || each.infrastructureId > after);
      const page = machines.slice(0, countMax);
      const items = await Promise.all(page.map(async (machine) => await show(call, machine)));
      return { items, next: machines.length > countMax ? page.at(-1)?.infrastructureId : undefined };
    },
  };
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
        discoveryType: "vCenter",
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
