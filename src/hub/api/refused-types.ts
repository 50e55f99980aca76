// What Azure has and this hub does not, with the reason: whoever calls it is told so in the same way everywhere.

import { ArmFault } from "./arm-errors.ts";

const account = "Microsoft.Storage/storageAccounts";
const onlyBlobs = "the hub has a blob service and no other";
const oneCopy = "the hub keeps an account's blobs once, in its own folder";
const containers = `${account}/blobServices/containers`;
const notRouted = "the network is the host's own; the hub routes and filters nothing in it";
const noGuest = "the hub has no hands in the guest";
const oneHost = "landed machines run on the one host, as their sources did";
const forGood = "a role is held until its assignment is deleted; there are none for a time";
const noTemplates = "the hub has no templates; resources are made one by one";

/** By the type or action, and all below it. */
const reasons: Readonly<Record<string, string>> = {
  [`${account}/accountMigrations`]: oneCopy,
  [`${account}/startAccountMigration`]: oneCopy,
  [`${account}/failover`]: oneCopy,
  [`${account}/objectReplicationPolicies`]: oneCopy,
  [`${account}/hnsonmigration`]: onlyBlobs,
  [`${account}/aborthnsonmigration`]: onlyBlobs,
  [`${account}/fileServices`]: onlyBlobs,
  [`${account}/queueServices`]: onlyBlobs,
  [`${account}/tableServices`]: onlyBlobs,
  [`${account}/localUsers`]: onlyBlobs,
  [`${account}/dataShares`]: onlyBlobs,
  [`${account}/restoreBlobRanges`]: "a blob that is deleted is gone, and none has versions",
  [`${account}/revokeUserDelegationKeys`]: "signatures are made with the account's keys; regenerate the key",
  [`${account}/managementPolicies`]: "a vault's own retention decides how long packs stay",
  [`${account}/inventoryPolicies`]: "list the blobs; the hub writes no inventories",
  [`${account}/encryptionScopes`]: "packs are encrypted with their vault's key before they are written",
  [`${account}/networkSecurityPerimeterConfigurations`]: "use private endpoints; there are no perimeters",
  [`${account}/advancedPlatformMetrics`]: "the hub's metrics tell of the blob service",
  [`${account}/blobAccessPointConfigurations`]: onlyBlobs,
  [`${account}/testBlobAccessPointConfigurationProposedConnection`]: onlyBlobs,
  [`${account}/connectors`]: onlyBlobs,
  [`${account}/storageTaskAssignments`]: "the hub runs no storage tasks",
  [`${account}/reports`]: "the hub runs no storage tasks",
  [`${containers}/immutabilityPolicies`]: "packs of a vault are immutable by themselves; other blobs are not held",
  [`${containers}/setLegalHold`]: "packs of a vault are immutable by themselves; other blobs are not held",
  [`${containers}/clearLegalHold`]: "packs of a vault are immutable by themselves; other blobs are not held",
  [`${containers}/migrate`]: "packs of a vault are immutable by themselves; other blobs are not held",
  [`${containers}/lease`]: "containers are not leased here",
  "Microsoft.Storage/deletedAccounts": "a deleted account is gone at once",
  "Microsoft.Storage/locations/deletedAccounts": "a deleted account is gone at once",
  "Microsoft.Storage/contextCaches": onlyBlobs,
  "Microsoft.Storage/contextCacheCheckNameAvailability": onlyBlobs,
  "Microsoft.Network/virtualNetworks/ddosProtectionStatus": notRouted,
  "Microsoft.Network/virtualNetworks/moveIpConfigurations": notRouted,
  "Microsoft.Network/virtualNetworks/virtualNetworkPeerings": notRouted,
  "Microsoft.Network/virtualNetworks/subnets/prepareNetworkPolicies": notRouted,
  "Microsoft.Network/virtualNetworks/subnets/unprepareNetworkPolicies": notRouted,
  "Microsoft.Network/networkInterfaces/effectiveNetworkSecurityGroups": notRouted,
  "Microsoft.Network/networkInterfaces/effectiveRouteTable": notRouted,
  "Microsoft.Network/networkInterfaces/tapConfigurations": notRouted,
  "Microsoft.Network/networkInterfaces/loadBalancers": notRouted,
  "Microsoft.Network/privateLinkServices": "private endpoints lead to vaults, storage accounts and projects of this hub only",
  "Microsoft.Network/locations/autoApprovedPrivateLinkServices":
    "private endpoints lead to vaults, storage accounts and projects of this hub only",
  "Microsoft.Network/locations/checkPrivateLinkServiceVisibility":
    "private endpoints lead to vaults, storage accounts and projects of this hub only",
  "Microsoft.Network/locations/serviceTags": notRouted,
  "Microsoft.Network/networkSecurityGroups": notRouted,
  "Microsoft.Network/routeTables": notRouted,
  "Microsoft.Network/natGateways": notRouted,
  "Microsoft.Network/publicIPAddresses": notRouted,
  "Microsoft.Network/loadBalancers": notRouted,
  "Microsoft.Network/applicationSecurityGroups": notRouted,
  "Microsoft.Compute/virtualMachineScaleSets": oneHost,
  "Microsoft.Compute/cloudServices": oneHost,
  "Microsoft.Compute/snapshots": "recovery points are what is kept of a disk; export one to get a file",
  "Microsoft.Compute/images": "machines land from recovery points, not from images",
  "Microsoft.Compute/galleries": "machines land from recovery points, not from images",
  "Microsoft.Compute/locations/publishers": "machines land from recovery points, not from images",
  "Microsoft.Compute/locations/edgeZones": oneHost,
  "Microsoft.Compute/locations/runCommands": noGuest,
  "Microsoft.Compute/virtualMachines/runCommands": noGuest,
  "Microsoft.Compute/virtualMachines/extensions": noGuest,
  "Microsoft.Compute/diskAccesses": "disks of landed machines are not read from outside",
  "Microsoft.Compute/diskEncryptionSets": "disks are encrypted by the host, if at all",
  "Microsoft.Compute/restorePointCollections": "recovery points are in the vault",
  "Microsoft.Compute/proximityPlacementGroups": oneHost,
  "Microsoft.Compute/hostGroups": oneHost,
  "Microsoft.Compute/capacityReservationGroups": oneHost,
  "Microsoft.Resources/resourceGroups/exportTemplate": noTemplates,
  "Microsoft.Resources/resourceGroups/moveResources": "a resource stays in the group that it was made in",
  "Microsoft.Resources/resourceGroups/validateMoveResources": "a resource stays in the group that it was made in",
  "Microsoft.Resources/subscriptions/tagNames/tagValues": "a tag comes and goes with the resources that have it",
  "Microsoft.Resources/deployments": noTemplates,
  "Microsoft.Resources/deploymentScripts": noTemplates,
  "Microsoft.Resources/templateSpecs": noTemplates,
  "Microsoft.Authorization/locks": "the hub has no locks; what is in use is not deleted",
  "Microsoft.Authorization/classicAdministrators": "rights come from roles alone",
  ...Object.fromEntries(
    ["Schedules", "ScheduleInstances", "ScheduleRequests"].flatMap((what) => [
      [`Microsoft.Authorization/roleAssignment${what}`, forGood],
      [`Microsoft.Authorization/roleEligibility${what}`, forGood],
    ]),
  ),
  "Microsoft.Authorization/roleManagementPolicies": forGood,
  "Microsoft.Authorization/roleManagementPolicyAssignments": forGood,
  "Microsoft.Authorization/eligibleChildResources": forGood,
  "Microsoft.Authorization/policyAssignments": "the hub has no policies",
  "Microsoft.Authorization/policyDefinitions": "the hub has no policies",
  "Microsoft.Migrate/migrateProjects/solutions": "the hub is the one tool of a project; it has nothing to be set as a solution",
  "Microsoft.Migrate/migrateProjects/databases": "the hub moves machines; databases move within them",
  "Microsoft.Migrate/migrateProjects/databaseInstances": "the hub moves machines; databases move within them",
  "Microsoft.Migrate/migrateProjects/migrateEvents": "events are with the vault: replicationEvents",
  "Microsoft.Migrate/assessmentProjects": "the hub moves machines and does not judge sizes and costs",
};

const byKey = new Map(Object.entries(reasons).map(([type, reason]) => [type.toLowerCase(), reason]));

/** For a type, or a type with an action's name behind it; undefined when nobody has it. */
export function refusalOf(type: string): ArmFault | undefined {
  const segments = type.toLowerCase().split("/");
  for (let count = segments.length; count >= 2; count -= 1) {
    const reason = byKey.get(segments.slice(0, count).join("/"));
    if (reason === undefined) continue;
    return new ArmFault("OperationNotSupported", "OperationNotSupported", `could not call ${type}: ${reason}`, {
      evidence: { resourceType: type, operations: [] },
      causes: [reason],
      action: "leave it out",
      retry: "never",
      target: type,
    });
  }
  return undefined;
}
