// Names of the replication resource types, and what their path segments stand for.

import { Fault } from "../../contract/errors.ts";
import { parseApplianceId, type ApplianceId } from "../../contract/ids.ts";
import { ancestorOfType, parseResourceId, type ResourceId } from "../api/resource-id.ts";

export const vaultType = "Microsoft.RecoveryServices/vaults";
export const fabricType = `${vaultType}/replicationFabrics`;
export const providerType = `${fabricType}/replicationRecoveryServicesProviders`;
export const containerType = `${fabricType}/replicationProtectionContainers`;
export const itemType = `${containerType}/replicationProtectedItems`;
export const protectableType = `${containerType}/replicationProtectableItems`;
export const mappingType = `${containerType}/replicationProtectionContainerMappings`;
export const networkType = `${fabricType}/replicationNetworks`;
export const vcenterType = `${fabricType}/replicationvCenters`;
export const keyGenerationType = `${vaultType}/watariKeyGenerations`;
export const vaultHealthType = `${vaultType}/replicationVaultHealth`;
export const pointType = `${itemType}/recoveryPoints`;
export const policyType = `${vaultType}/replicationPolicies`;
export const planType = `${vaultType}/replicationRecoveryPlans`;
export const jobType = `${vaultType}/replicationJobs`;
export const eventType = `${vaultType}/replicationEvents`;
export const machineType = "Microsoft.Compute/virtualMachines";

export const provider = "InMageAzureV2";

/** The vault that a resource belongs to; `key` is the scope of jobs and the catalogue's vault. */
export function vaultOf(id: ResourceId): ResourceId {
  return ancestorOfType(id, vaultType);
}

/** A fabric is an appliance, named by its id; its one container is "cloud_" and the same id. */
export function fabricId(vault: ResourceId, applianceId: ApplianceId): ResourceId {
  return parseResourceId(`${vault.text}/replicationFabrics/${applianceId}`);
}

export function containerId(vault: ResourceId, applianceId: ApplianceId): ResourceId {
  return parseResourceId(`${fabricId(vault, applianceId).text}/replicationProtectionContainers/${containerName(applianceId)}`);
}

export function containerName(applianceId: ApplianceId): string {
  return `cloud_${applianceId}`;
}

/** The appliance of anything at or under a fabric. */
export function applianceOf(id: ResourceId): ApplianceId {
  const name = ancestorOfType(id, fabricType).name.toLowerCase();
  try {
    return parseApplianceId(name);
  } catch (error) {
    throw new Fault("NotFound", `could not find the fabric ${name}`, { evidence: { resourceId: id.text }, cause: error });
  }
}

/** The id of the landed machine that stands beside the vault: same subscription, same resource group. */
export function landedId(vault: ResourceId, name: string): ResourceId {
  return parseResourceId(`${vault.parentText}/providers/${machineType}/${name}`);
}

/** A name for the target, from a source's: [a-z0-9-]{1,60}. */
export function toLandedName(name: string, suffix: string): string {
  const plain = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, "-")
    .replaceAll(/^-+|-+$/g, "");
  return `${(plain === "" ? "machine" : plain).slice(0, 60 - suffix.length)}${suffix}`;
}
