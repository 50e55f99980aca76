// How a landed machine looks to ARM clients: the machine, its instance view, its disks and its network interfaces.

import type { LandedStatus } from "../../landing/target.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { presentResource, type JsonObject, type Resource, type ResourceStore } from "../db/resources.ts";
import { landedMachineShape, type Landed, type LandedMachine } from "./landed.ts";

export const diskType = "Microsoft.Compute/disks";
export const interfaceType = "Microsoft.Network/networkInterfaces";
/** Machines keep the processors and memory of their source, so there is one size. */
export const sizeName = "Watari";

const gibibyte = 2 ** 30;
const networkType = "Microsoft.Network/virtualNetworks";

export interface SeenMachine {
  readonly resource: Resource;
  readonly landed: LandedMachine;
  readonly status: LandedStatus;
}

export async function seeMachine(
  { target }: { readonly target: { status(name: string): Promise<LandedStatus> } },
  resource: Resource,
): Promise<SeenMachine> {
  const landed = landedMachineShape.parse(resource.properties);
  return { resource, landed, status: await target.status(landed.launch.name) };
}

/** Machine names have no dot, so the name before it is the machine's. */
function diskName(machine: string, disk: Landed["launch"]["disks"][number]): string {
  return disk.name ?? `${machine}.${disk.diskId}`;
}

function interfaceName({ name, nics }: Landed["launch"], index: number): string {
  return nics[index]?.name ?? `${name}.nic-${index}`;
}

function siblingId(machine: ResourceId, type: string, name: string): string {
  return `${machine.parentText}/providers/${type}/${name}`;
}

/** A machine's row as it is answered. */
export async function presentMachine(front: Parameters<typeof seeMachine>[0], resource: Resource): Promise<JsonObject> {
  return presentResource(resource, resource.id.type, showMachine(await seeMachine(front, resource)));
}

export function showMachine(seen: SeenMachine): JsonObject {
  const { landed, status, resource } = seen;
  const { launch } = landed;
  const disk = (each: Landed["launch"]["disks"][number]): JsonObject => ({
    name: diskName(launch.name, each),
    createOption: "Attach",
    deleteOption: landed.purpose === "made" ? "Detach" : "Delete",
    diskSizeGB: Math.ceil(each.sizeBytes / gibibyte),
    managedDisk: { id: siblingId(resource.id, diskType, diskName(launch.name, each)) },
  });
  const boot = launch.disks.find((each) => each.isBoot);
  return {
    vmId: landed.vmId,
    timeCreated: resource.createdAt,
    hardwareProfile: {
      vmSize: landed.purpose === "made" ? landed.vmSize : sizeName,
      vmSizeProperties: { vCPUsAvailable: launch.cpuCount },
    },
    storageProfile: {
      ...(boot === undefined ? {} : { osDisk: { ...disk(boot), osType: "Linux" } }),
      dataDisks: launch.disks.filter((each) => !each.isBoot).map((each, lun) => ({ lun, ...disk(each) })),
    },
    osProfile: { computerName: launch.name },
    networkProfile: {
      networkInterfaces: launch.nics.map((_nic, index) => ({
        id: siblingId(resource.id, interfaceType, interfaceName(launch, index)),
        properties: { primary: index === 0 },
      })),
    },
    ...(landed.purpose === "made" && landed.licenseType !== undefined ? { licenseType: landed.licenseType } : {}),
    diagnosticsProfile: { bootDiagnostics: { enabled: true } },
    instanceView: showInstance(seen),
    watari: {
      purpose: landed.purpose,
      ...(landed.purpose === "made" ? {} : { protectedItemId: landed.itemId, recoveryPointId: landed.pointId }),
      network: launch.network,
      nics: launch.nics,
      memoryBytes: launch.memoryBytes,
      addresses: status.addresses,
      bytesToFill: status.bytesToFill,
      autostart: landed.autostart ?? { isOn: false, order: 100, delaySeconds: 0 },
      serialTail: status.serialTail,
    },
  };
}

export function showInstance({ landed, status, resource }: SeenMachine): JsonObject {
  const stopped = landed.isDeallocated === true ? "deallocated" : "stopped";
  const power = { running: "running", stopped, gone: "unknown" }[status.power];
  const provisioning = resource.provisioningState.toLowerCase();
  return {
    computerName: landed.launch.name,
    hyperVGeneration: landed.launch.firmware === "efi" ? "V2" : "V1",
    disks: landed.launch.disks.map((disk) => ({ name: diskName(landed.launch.name, disk), statuses: [] })),
    bootDiagnostics: {},
    statuses: [
      { code: `PowerState/${power}`, level: "Info", displayStatus: `VM ${power}` },
      { code: `ProvisioningState/${provisioning}`, level: "Info", displayStatus: `Provisioning ${provisioning}`, time: resource.updatedAt },
    ],
  };
}

/** Those of a machine that was made are resources of their own. */
export function showDisks({ resource, landed }: SeenMachine): readonly JsonObject[] {
  if (landed.purpose === "made") return [];
  return landed.launch.disks.map((disk) => {
    const { diskId, sizeBytes, isBoot } = disk;
    const name = diskName(landed.launch.name, disk);
    return {
      id: siblingId(resource.id, diskType, name),
      name,
      type: diskType,
      location: resource.location ?? "",
      managedBy: resource.id.text,
      ...(landed.tags?.disks === undefined ? {} : { tags: landed.tags.disks }),
      properties: {
        ...(isBoot ? { osType: "Linux", hyperVGeneration: landed.launch.firmware === "efi" ? "V2" : "V1" } : {}),
        creationData: { createOption: "Restore", sourceUniqueId: landed.pointId },
        diskSizeGB: Math.ceil(sizeBytes / gibibyte),
        diskSizeBytes: sizeBytes,
        diskState: "Attached",
        networkAccessPolicy: "DenyAll",
        publicNetworkAccess: "Disabled",
        timeCreated: resource.createdAt,
        uniqueId: `${landed.vmId}.${diskId}`,
        provisioningState: "Succeeded",
      },
    };
  });
}

/** With one card every address that was seen is its; with more, only those of the source are known to be whose. */
export async function showInterfaces(resources: ResourceStore, { resource, landed, status }: SeenMachine): Promise<readonly JsonObject[]> {
  if (landed.purpose === "made") return [];
  const { nics, network } = landed.launch;
  const networkId = network.kind === "named" ? siblingId(resource.id, networkType, network.name) : undefined;
  const isNetworkKnown = networkId !== undefined && (await resources.find(networkId)) !== undefined;
  return nics.map(({ mac, address }, index) => {
    const name = interfaceName(landed.launch, index);
    const id = siblingId(resource.id, interfaceType, name);
    const own = address === undefined ? [] : [address.replace(/\/\d+$/, "")];
    const addresses = nics.length === 1 && status.addresses.length > 0 ? status.addresses : own;
    return {
      id,
      name,
      type: interfaceType,
      location: resource.location ?? "",
      ...(landed.tags?.nics === undefined ? {} : { tags: landed.tags.nics }),
      properties: {
        macAddress: mac.toUpperCase().replaceAll(":", "-"),
        primary: index === 0,
        nicType: "Standard",
        enableIPForwarding: false,
        enableAcceleratedNetworking: false,
        virtualMachine: { id: resource.id.text },
        ipConfigurations: addresses.map((privateIPAddress, at) => ({
          id: `${id}/ipConfigurations/ipconfig${at + 1}`,
          name: `ipconfig${at + 1}`,
          properties: {
            privateIPAddress,
            privateIPAllocationMethod: "Dynamic",
            privateIPAddressVersion: privateIPAddress.includes(":") ? "IPv6" : "IPv4",
            primary: at === 0,
            provisioningState: "Succeeded",
          },
        })),
        ...(isNetworkKnown ? { watariVirtualNetworkId: networkId } : {}),
        provisioningState: "Succeeded",
      },
    };
  });
}

/** The machine that a disk or an interface is named after; undefined when the name is of nothing here. */
export function machineIdOf(part: ResourceId, machineType: string): ResourceId | undefined {
  const dot = part.name.indexOf(".");
  return dot < 1 ? undefined : parseResourceId(siblingId(part, machineType, part.name.slice(0, dot)));
}
