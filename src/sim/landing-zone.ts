// What an operator makes before the first machine moves: group, network, storage account, vault and their private doors.

import { z } from "zod";
import type { Random } from "../base/random.ts";
import type { ArmClient } from "../cli/arm-client.ts";
import { openPrivateDoor, type NamedAddress } from "../cli/private-endpoint.ts";

export interface ZoneNames {
  readonly network: string;
  readonly subnet: string;
  readonly account: string;
  readonly vault: string;
}

/** Built-in role "Storage Blob Data Contributor". */
const blobDataContributorRoleId = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";

const accountShape = z.object({ properties: z.object({ primaryEndpoints: z.object({ blob: z.url() }) }) });
const vaultShape = z.object({ id: z.string(), identity: z.object({ principalId: z.string() }) });

export interface LandingZone {
  readonly vaultId: string;
  /** Private names of the vault and its storage account. */
  readonly names: readonly NamedAddress[];
}

/** In the client's resource group. Safe to repeat but for the role, which is granted once more. */
export async function createLandingZone(
  arm: ArmClient,
  wish: { readonly names: ZoneNames; readonly cidr: string; readonly random: Random },
): Promise<LandingZone> {
  const { groupPath, location } = arm;
  const { cidr, random } = wish;
  const { network, subnet, account, vault } = wish.names;
  const publicNetworkAccess = "Disabled";
  await arm.change("PUT", groupPath, { location });
  await arm.change("PUT", `${groupPath}/providers/Microsoft.Network/virtualNetworks/${network}`, {
    location,
    properties: { addressSpace: { addressPrefixes: [cidr] }, subnets: [{ name: subnet, properties: { addressPrefix: cidr } }] },
  });
  const storageId = `${groupPath}/providers/Microsoft.Storage/storageAccounts/${account}`;
  const stored = accountShape.parse(
    await arm.change("PUT", storageId, { location, kind: "StorageV2", sku: { name: "Standard_LRS" }, properties: { publicNetworkAccess } }),
  );
  // Every name of the hub ends with what the account's own name ends with.
  const domain = new URL(stored.properties.primaryEndpoints.blob).hostname.slice(`${account}.blob.`.length);
  const place = { network, subnet };
  const blob = { ...place, name: `${account}-pe`, resourceId: storageId, groupId: "blob", zone: `privatelink.blob.${domain}` } as const;
  const blobNames = await openPrivateDoor(arm, blob);
  const vaultId = `${groupPath}/providers/Microsoft.RecoveryServices/vaults/${vault}`;
  const created = vaultShape.parse(
    await arm.change("PUT", vaultId, {
      location,
      identity: { type: "SystemAssigned" },
      sku: { name: "Standard" },
      properties: { publicNetworkAccess, watariStorageAccountId: storageId },
    }),
  );
  await arm.change("PUT", `${storageId}/providers/Microsoft.Authorization/roleAssignments/${random.uuid()}`, {
    properties: {
      principalId: created.identity.principalId,
      roleDefinitionId: `/providers/Microsoft.Authorization/roleDefinitions/${blobDataContributorRoleId}`,
      principalType: "ServicePrincipal",
    },
  });
  const zone = `privatelink.siterecovery.${domain}`;
  const door = { ...place, name: `${vault}-pe`, resourceId: vaultId, groupId: "AzureSiteRecovery", zone } as const;
  const vaultNames = await openPrivateDoor(arm, door);
  return { vaultId, names: [...blobNames, ...vaultNames] };
}
