// How a machine lands, as clients say it at enable and by PATCH: every documented field is used, kept and answered, or refused with the reason.

import { z } from "zod";
import { ArmFault } from "../api/arm-errors.ts";
import type { JsonObject } from "../db/resources.ts";
import { refuseFields } from "../resources/refused-fields.ts";
import { launchActionsShape } from "./launch-actions.ts";
import { itemLaunchInput, itemLaunchShape, requireAddressing } from "./launch-settings.ts";
import { provider } from "./names.ts";

const idText = z.string().max(2048);
const word = z.string().max(200);
const tags = z.record(z.string().max(512), z.string().max(256));
const partName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$/, "a name has 1 to 80 letters, digits, dots, underscores and hyphens");
const instanceType = z.literal(provider, `the provider must be ${provider}`);

const diskInput = z.strictObject({
  diskId: z.string().max(255),
  logStorageAccountId: idText.optional(),
  diskType: word.optional(),
  diskEncryptionSetId: idText.optional(),
});

/** InMageAzureV2EnableProtectionInput, and `address`, which is ours: where SSH reaches the guest. */
export const enableDetailsShape = z.strictObject({
  instanceType,
  runAsAccountId: z.string().max(64),
  address: z.string().max(253).optional(),
  masterTargetId: word.optional(),
  processServerId: word.optional(),
  storageAccountId: idText.optional(),
  logStorageAccountId: idText.optional(),
  multiVmGroupId: word.optional(),
  multiVmGroupName: word.optional(),
  disksToInclude: z.array(diskInput).max(64).optional(),
  targetAzureNetworkId: idText.optional(),
  targetAzureSubnetId: idText.optional(),
  enableRdpOnTargetOption: word.optional(),
  targetAzureVmName: z.string().max(60).optional(),
  targetAzureV1ResourceGroupId: idText.optional(),
  targetAzureV2ResourceGroupId: idText.optional(),
  diskType: word.optional(),
  targetAvailabilitySetId: idText.optional(),
  targetAvailabilityZone: word.optional(),
  targetProximityPlacementGroupId: idText.optional(),
  licenseType: word.optional(),
  sqlServerLicenseType: word.optional(),
  targetVmSize: z.string().max(100).optional(),
  diskEncryptionSetId: idText.optional(),
  targetVmTags: tags.optional(),
  seedManagedDiskTags: tags.optional(),
  targetManagedDiskTags: tags.optional(),
  targetNicTags: tags.optional(),
});
export type EnableDetails = z.infer<typeof enableDetailsShape>;

const addressInput = z.strictObject({
  ipConfigName: partName.optional(),
  isPrimary: z.boolean().optional(),
  isSeletedForFailover: z.boolean().optional(),
  recoverySubnetName: word.optional(),
  recoveryStaticIPAddress: word.optional(),
  recoveryPublicIPAddressId: idText.optional(),
  recoveryLBBackendAddressPoolIds: z.array(idText).max(64).optional(),
  tfoSubnetName: word.optional(),
  tfoStaticIPAddress: word.optional(),
  tfoPublicIPAddressId: idText.optional(),
  tfoLBBackendAddressPoolIds: z.array(idText).max(64).optional(),
});

const nicInput = z.strictObject({
  nicId: z.string().max(255),
  ipConfigs: z.array(addressInput).max(16).optional(),
  selectionType: z.enum(["NotSelected", "SelectedByDefault", "SelectedByUser", "SelectedByUserOverride"]).optional(),
  recoveryNetworkSecurityGroupId: idText.optional(),
  enableAcceleratedNetworkingOnRecovery: z.boolean().optional(),
  tfoNetworkSecurityGroupId: idText.optional(),
  enableAcceleratedNetworkingOnTfo: z.boolean().optional(),
  recoveryNicName: partName.optional(),
  recoveryNicResourceGroupName: word.optional(),
  reuseExistingNic: z.boolean().optional(),
  tfoNicName: partName.optional(),
  tfoNicResourceGroupName: word.optional(),
  tfoReuseExistingNic: z.boolean().optional(),
  targetNicName: partName.optional(),
});

/** UpdateReplicationProtectedItemInput. */
export const changeShape = z.strictObject({
  recoveryAzureVMName: z.string().max(60).optional(),
  recoveryAzureVMSize: z.string().max(100).optional(),
  selectedRecoveryAzureNetworkId: idText.optional(),
  selectedTfoAzureNetworkId: idText.optional(),
  selectedSourceNicId: z.string().max(255).optional(),
  enableRdpOnTargetOption: word.optional(),
  vmNics: z.array(nicInput).max(64).optional(),
  licenseType: word.optional(),
  recoveryAvailabilitySetId: idText.optional(),
  providerSpecificDetails: z
    .strictObject({
      instanceType,
      recoveryAzureV1ResourceGroupId: idText.optional(),
      recoveryAzureV2ResourceGroupId: idText.optional(),
      useManagedDisks: word.optional(),
      targetProximityPlacementGroupId: idText.optional(),
      targetAvailabilityZone: word.optional(),
      targetVmTags: tags.optional(),
      targetManagedDiskTags: tags.optional(),
      targetNicTags: tags.optional(),
      sqlServerLicenseType: word.optional(),
      /** Ours. They replace those that were set before. */
      postLaunchActions: launchActionsShape.optional(),
      ...itemLaunchInput,
      vmDisks: z
        .array(z.strictObject({ diskId: z.string().max(255), targetDiskName: partName.optional() }))
        .max(64)
        .optional(),
    })
    .optional(),
});
export type ItemChange = z.infer<typeof changeShape>;

/** What is kept of both with the item. */
export const settingsShape = z.object({
  sourceNicId: z.string().optional(),
  subnetName: z.string().optional(),
  nics: z.array(nicInput).default([]),
  diskNames: z.record(z.string(), z.string()).default({}),
  diskTypes: z.record(z.string(), z.string()).default({}),
  vmTags: tags.optional(),
  diskTags: tags.optional(),
  nicTags: tags.optional(),
  /** What the machine is asked in this order once it has landed, in tests and rehearsals too. */
  postLaunchActions: launchActionsShape.default([]),
  ...itemLaunchShape,
  /** By the name under which Azure answers it; it has no effect here. */
  answered: z.record(z.string(), z.unknown()).default({}),
});
export type ItemSettings = z.infer<typeof settingsShape>;

const oneHost = "machines land on the one host of this hub, which has no fault domains";
const notEncrypted = "disks of landed machines are not encrypted by the hub; encrypt the file system of the landing folder";
const noGateways = "landing networks have no public addresses, load balancers and security groups";
const ownAddress = "a guest keeps its own network configuration; reserve the address for its card in the network's DHCP";
const newNics = "interfaces come and go with their machine, beside it";

const enableRefusals = {
  targetAzureV1ResourceGroupId: "there are no classic resource groups",
  targetAvailabilitySetId: oneHost,
  targetAvailabilityZone: oneHost,
  targetProximityPlacementGroupId: oneHost,
  diskEncryptionSetId: notEncrypted,
};
const changeRefusals = { recoveryAvailabilitySetId: oneHost };
const providerRefusals = {
  recoveryAzureV1ResourceGroupId: "there are no classic resource groups",
  targetProximityPlacementGroupId: oneHost,
  targetAvailabilityZone: oneHost,
};
const nicRefusals = {
  recoveryNetworkSecurityGroupId: noGateways,
  tfoNetworkSecurityGroupId: noGateways,
  reuseExistingNic: newNics,
  tfoReuseExistingNic: newNics,
};
const addressRefusals = {
  recoveryStaticIPAddress: ownAddress,
  tfoStaticIPAddress: ownAddress,
  recoveryPublicIPAddressId: noGateways,
  tfoPublicIPAddressId: noGateways,
  recoveryLBBackendAddressPoolIds: noGateways,
  tfoLBBackendAddressPoolIds: noGateways,
};

/** What the fields are held against. */
export interface SettingsPlace {
  readonly applianceId: string;
  /** Id of the vault's resource group: landed machines stand beside the vault. */
  readonly groupId: string;
  /** Ids of the machine's disks and cards, as far as they are known. */
  readonly diskIds: readonly string[];
  readonly nicIds: readonly string[];
}

/** Of an enable input. Fault InputInvalid for what is not so here. */
export function settingsOfEnable(details: EnableDetails, place: SettingsPlace): ItemSettings {
  refuseFields("how the machine lands", details, enableRefusals, "properties.providerSpecificDetails");
  const disks = details.disksToInclude ?? [];
  for (const [index, disk] of disks.entries()) {
    const at = `properties.providerSpecificDetails.disksToInclude.${index}`;
    refuseFields("a disk", disk, { diskEncryptionSetId: notEncrypted }, at);
    if (asks(disk.logStorageAccountId) && disk.logStorageAccountId !== details.logStorageAccountId)
      refuse(`${at}.logStorageAccountId`, "a machine's disks have their log in one place", { given: disk.logStorageAccountId });
  }
  requireAllDisks(disks, place);
  requireGuestAsItIs(details.enableRdpOnTargetOption, "properties.providerSpecificDetails.enableRdpOnTargetOption");
  requireGroup(details.targetAzureV2ResourceGroupId, place, "properties.providerSpecificDetails.targetAzureV2ResourceGroupId");
  if (asks(details.processServerId) && details.processServerId?.toLowerCase() !== place.applianceId.toLowerCase())
    refuse("properties.providerSpecificDetails.processServerId", "it is not the process server of this fabric", {
      given: details.processServerId,
      processServers: [place.applianceId],
    });
  return {
    nics: [],
    postLaunchActions: [],
    nicAddressing: [],
    tfoNicAddressing: [],
    unlockKeyCount: 0,
    diskNames: {},
    diskTypes: Object.fromEntries(
      disks.flatMap(({ diskId, diskType = details.diskType }) => (diskType === undefined ? [] : [[diskId, diskType]])),
    ),
    ...(asks(details.targetAzureSubnetId) ? { subnetName: details.targetAzureSubnetId?.split("/").at(-1) ?? "" } : {}),
    ...given({ vmTags: details.targetVmTags, diskTags: details.targetManagedDiskTags, nicTags: details.targetNicTags }),
    answered: given({
      masterTargetId: details.masterTargetId,
      recoveryAzureStorageAccount: details.storageAccountId,
      recoveryAzureLogStorageAccountId: details.logStorageAccountId,
      enableRdpOnTargetOption: details.enableRdpOnTargetOption,
      licenseType: details.licenseType,
      sqlServerLicenseType: details.sqlServerLicenseType,
      seedManagedDiskTags: details.seedManagedDiskTags,
      replicaDiskType: details.diskType,
    }),
  };
}

/** Of a change: cards that it names are replaced, others keep what they had. */
export function changeSettings(present: ItemSettings, change: ItemChange, place: SettingsPlace): ItemSettings {
  const details = change.providerSpecificDetails;
  refuseFields("the change", change, changeRefusals, "properties");
  refuseFields("the change", details ?? {}, providerRefusals, "properties.providerSpecificDetails");
  requireGuestAsItIs(change.enableRdpOnTargetOption, "properties.enableRdpOnTargetOption");
  requireGroup(details?.recoveryAzureV2ResourceGroupId, place, "properties.providerSpecificDetails.recoveryAzureV2ResourceGroupId");
  const managed = details?.useManagedDisks;
  if (asks(managed) && managed?.toLowerCase() !== "true")
    refuse("properties.providerSpecificDetails.useManagedDisks", "disks of landed machines are always managed", { given: managed });
  for (const [index, nic] of (change.vmNics ?? []).entries()) requireNic(nic, place, `properties.vmNics.${index}`);
  if (asks(change.selectedSourceNicId)) requireKnown(change.selectedSourceNicId ?? "", place.nicIds, "properties.selectedSourceNicId");
  for (const [index, { diskId }] of (details?.vmDisks ?? []).entries())
    requireKnown(diskId, place.diskIds, `properties.providerSpecificDetails.vmDisks.${index}.diskId`);
  const nics = mergeNics(present.nics, change.vmNics ?? []);
  if (place.nicIds.length > 0 && place.nicIds.every((id) => nics.some((nic) => nic.nicId === id && nic.selectionType === "NotSelected")))
    refuse("properties.vmNics", "a machine lands with one card at least", { cards: place.nicIds });
  const names = Object.fromEntries(
    (details?.vmDisks ?? []).flatMap((disk) => (disk.targetDiskName === undefined ? [] : [[disk.diskId, disk.targetDiskName]])),
  );
  return {
    ...present,
    nics,
    postLaunchActions: details?.postLaunchActions ?? present.postLaunchActions,
    ...changeLaunch({ ...present, nics }, details ?? { instanceType: provider }, place),
    diskNames: { ...present.diskNames, ...names },
    ...(asks(change.selectedSourceNicId) ? { sourceNicId: change.selectedSourceNicId } : {}),
    ...given({ vmTags: details?.targetVmTags, diskTags: details?.targetManagedDiskTags, nicTags: details?.targetNicTags }),
    answered: {
      ...present.answered,
      ...given({
        enableRdpOnTargetOption: change.enableRdpOnTargetOption,
        licenseType: change.licenseType,
        sqlServerLicenseType: details?.sqlServerLicenseType,
      }),
    },
  };
}

/** Addresses replace those that were set before, of all cards. */
function changeLaunch(
  present: ItemSettings,
  change: NonNullable<ItemChange["providerSpecificDetails"]>,
  { nicIds }: SettingsPlace,
): Pick<ItemSettings, "hasSerialConsole" | "nicAddressing" | "tfoNicAddressing" | "unlockKeyCount"> {
  const hasSerialConsole = change.hasSerialConsole ?? present.hasSerialConsole;
  const changed = {
    nicAddressing: change.nicAddressing ?? present.nicAddressing,
    tfoNicAddressing: change.tfoNicAddressing ?? present.tfoNicAddressing,
  };
  const cards = { known: nicIds, left: cardsLeftOut(present) };
  for (const name of ["nicAddressing", "tfoNicAddressing"] as const)
    requireAddressing(changed[name], cards, `properties.providerSpecificDetails.${name}`);
  const unlockKeyCount = change.unlockKeys?.length ?? present.unlockKeyCount;
  return { ...changed, unlockKeyCount, ...(hasSerialConsole === undefined ? {} : { hasSerialConsole }) };
}

/** Cards that do not land. */
export function cardsLeftOut({ nics }: Pick<ItemSettings, "nics">): readonly string[] {
  return nics.flatMap(({ nicId, selectionType }) => (selectionType === "NotSelected" ? [nicId] : []));
}

function mergeNics(present: ItemSettings["nics"], change: ItemSettings["nics"]): ItemSettings["nics"] {
  const changed = new Set(change.map(({ nicId }) => nicId));
  return [...present.filter(({ nicId }) => !changed.has(nicId)), ...change];
}

function requireNic(nic: ItemSettings["nics"][number], place: SettingsPlace, at: string): void {
  requireKnown(nic.nicId, place.nicIds, `${at}.nicId`);
  refuseFields("a card", nic, nicRefusals, at);
  const group = place.groupId.split("/").at(-1) ?? "";
  for (const field of ["recoveryNicResourceGroupName", "tfoNicResourceGroupName"] as const) {
    const name = nic[field];
    if (asks(name) && name?.toLowerCase() !== group.toLowerCase()) refuse(`${at}.${field}`, newNics, { given: name, resourceGroup: group });
  }
  for (const [index, address] of (nic.ipConfigs ?? []).entries()) {
    refuseFields("an address", address, addressRefusals, `${at}.ipConfigs.${index}`);
    if (address.isSeletedForFailover === false) refuse(`${at}.ipConfigs.${index}.isSeletedForFailover`, ownAddress, { given: false });
  }
}

function requireAllDisks(disks: EnableDetails["disksToInclude"] & object, place: SettingsPlace): void {
  if (disks.length === 0) return;
  const at = "properties.providerSpecificDetails.disksToInclude";
  for (const [index, { diskId }] of disks.entries()) requireKnown(diskId, place.diskIds, `${at}.${index}.diskId`);
  const missing = place.diskIds.filter((id) => disks.every(({ diskId }) => diskId !== id));
  if (missing.length > 0)
    refuse(at, "a machine begins with all of its disks; leave some out by removeDisks once it is protected", { disksLeftOut: missing });
}

function requireGuestAsItIs(option: string | undefined, at: string): void {
  if (asks(option) && option?.toLowerCase() !== "never")
    refuse(at, "the guest's own SSH and firewall configuration is moved as it is", { given: option });
}

function requireGroup(groupId: string | undefined, place: SettingsPlace, at: string): void {
  if (asks(groupId) && groupId?.toLowerCase() !== place.groupId.toLowerCase())
    refuse(at, "machines land beside their vault, in its resource group", { given: groupId, resourceGroup: place.groupId });
}

function requireKnown(id: string, known: readonly string[], at: string): void {
  if (!known.includes(id))
    refuse(at, known.length === 0 ? "the machine has not told its parts yet" : "the machine has no such part", { given: id, known });
}

function refuse(
  target: string,
  reason: string,
  evidence: Readonly<Record<string, string | boolean | readonly string[] | undefined>>,
): never {
  throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not set ${target}: ${reason}`, {
    evidence: { ...evidence, target },
    target,
  });
}

function asks(value: string | undefined): boolean {
  return value !== undefined && value !== "";
}

/** Without what is undefined. */
function given<Members extends JsonObject>(members: Members): { [Name in keyof Members]?: NonNullable<Members[Name]> } {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as never; // Only members that are there are left.
}
