// How a protected item's settings are answered: under the names that Azure's clients read them by.

import type { AgentState, MachineFacts } from "../../contract/agent-control.ts";
import type { JsonObject } from "../db/resources.ts";
import type { Item } from "./item.ts";
import type { ItemSettings } from "./item-settings.ts";

export function presentSettings({ settings, target }: Item): JsonObject {
  const { sourceNicId, vmTags, diskTags, nicTags, answered } = settings;
  return {
    ...answered,
    ...(sourceNicId === undefined ? {} : { selectedSourceNicId: sourceNicId }),
    ...(vmTags === undefined ? {} : { targetVmTags: vmTags }),
    ...(diskTags === undefined ? {} : { targetManagedDiskTags: diskTags }),
    ...(nicTags === undefined ? {} : { targetNicTags: nicTags }),
    ...(target.resourceGroupId === undefined ? {} : { recoveryAzureResourceGroupId: target.resourceGroupId }),
    useManagedDisks: "true",
  };
}

/** How its clone is made ready; of keys only how many there are. */
export function presentLaunch({ settings }: Item): JsonObject {
  const { hasSerialConsole, nicAddressing, tfoNicAddressing, unlockKeyCount } = settings;
  return {
    ...(hasSerialConsole === undefined ? {} : { hasSerialConsole }),
    ...(nicAddressing.length === 0 ? {} : { nicAddressing }),
    ...(tfoNicAddressing.length === 0 ? {} : { tfoNicAddressing }),
    ...(unlockKeyCount === 0 ? {} : { unlockKeyCount }),
  };
}

export function presentNics({ settings, target }: Item, facts: MachineFacts | undefined): readonly JsonObject[] {
  return (facts?.nics ?? []).map(({ name, mac }) => {
    const wish = settings.nics.find(({ nicId }) => nicId === name);
    const { nicId: _nicId, ipConfigs, tfoNicName, tfoNicResourceGroupName, ...others } = wish ?? { nicId: name };
    return {
      selectionType: "SelectedByDefault",
      ...others,
      nicId: name,
      macAddress: mac,
      recoveryVMNetworkId: target.networkId ?? "",
      tfoVMNetworkId: target.testNetworkId ?? "",
      ...(tfoNicName === undefined ? {} : { tfoRecoveryNicName: tfoNicName }),
      ...(tfoNicResourceGroupName === undefined ? {} : { tfoRecoveryNicResourceGroupName: tfoNicResourceGroupName }),
      ipConfigs: presentAddresses(ipConfigs, settings, facts),
    };
  });
}

/** A card has at least one; its address is told only where it is known whose it is. */
function presentAddresses(
  wished: ItemSettings["nics"][number]["ipConfigs"],
  { subnetName }: ItemSettings,
  facts: MachineFacts | undefined,
): readonly JsonObject[] {
  const known = facts?.nics.length === 1 ? facts.addresses[0] : undefined;
  const source = known === undefined ? {} : { staticIPAddress: known };
  const subnet = subnetName === undefined ? {} : { recoverySubnetName: subnetName };
  return (wished ?? [{}]).map(({ ipConfigName = "ipconfig1", ...others }, index) => ({
    name: ipConfigName,
    isPrimary: index === 0,
    isSeletedForFailover: true,
    ipAddressType: "Dynamic",
    recoveryIPAddressType: "Dynamic",
    ...source,
    ...subnet,
    ...others,
  }));
}

/** Each disk as it will land. */
export function presentManagedDisks({ settings }: Item, disks: AgentState["disks"]): readonly JsonObject[] {
  const { diskNames, diskTypes, answered } = settings;
  return disks.map(({ diskId, sizeBytes }) => ({
    diskId,
    diskName: diskId,
    diskCapacityInBytes: sizeBytes,
    replicaDiskType: diskTypes[diskId] ?? answered["replicaDiskType"] ?? "",
    ...(diskNames[diskId] === undefined ? {} : { targetDiskName: diskNames[diskId] }),
  }));
}

/** The same disks in the words of a machine's own list, where a chosen name is told apart. */
export function presentDiskNames({ settings }: Item, facts: MachineFacts | undefined): readonly JsonObject[] {
  return (facts?.disks ?? []).map(({ diskId, sizeBytes, isBoot }) => ({
    diskId,
    vhdName: diskId,
    vhdType: isBoot ? "OperatingSystem" : "DataDisk",
    maxSizeMB: String(Math.round(sizeBytes / 2 ** 20)),
    ...(settings.diskNames[diskId] === undefined
      ? {}
      : { customTargetDiskName: settings.diskNames[diskId], targetDiskName: settings.diskNames[diskId] }),
  }));
}
