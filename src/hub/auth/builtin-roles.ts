// Azure's built-in roles by their own ids, names and action lists, as far as this hub has the resource types.

export interface Permission {
  /** Patterns over "<type>/<verb>"; * stands for anything. */
  readonly actions: readonly string[];
  readonly notActions: readonly string[];
  /** Rights on data, for example blobs, which are no ARM actions. */
  readonly dataActions: readonly string[];
  readonly notDataActions: readonly string[];
}

export interface Role {
  readonly roleId: string;
  readonly name: string;
  readonly description: string;
  readonly permissions: readonly Permission[];
}

export const ownerRoleId = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
export const blobDataContributorRoleId = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";

const containers = "Microsoft.Storage/storageAccounts/blobServices/containers";
const blobs = `${containers}/blobs`;
const delegationKey = "Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action";
const vaults = "Microsoft.RecoveryServices/vaults";
const fabrics = `${vaults}/replicationFabrics`;
const containersOfFabric = `${fabrics}/replicationProtectionContainers`;
const items = `${containersOfFabric}/replicationProtectedItems`;

/** What Azure's roles for one service have besides their own actions. */
const common = [
  "Microsoft.Authorization/*/read",
  "Microsoft.Insights/alertRules/*",
  "Microsoft.Resources/subscriptions/resourceGroups/read",
];
const deployments = ["Microsoft.ResourceHealth/availabilityStatuses/read", "Microsoft.Resources/deployments/*", "Microsoft.Support/*"];

/** Reads that every Site Recovery role has outside the fabrics. */
const siteRecoveryReads = [
  ...common,
  "Microsoft.Network/virtualNetworks/read",
  "Microsoft.Storage/storageAccounts/read",
  ...[
    "read",
    "extendedInformation/read",
    "monitoringAlerts/read",
    "monitoringConfigurations/notificationConfiguration/read",
    "privateLinkResources/read",
    "refreshContainers/read",
    "registeredIdentities/operationResults/read",
    "registeredIdentities/read",
    "replicationAlertSettings/read",
    "replicationAppliances/read",
    "replicationEligibilityResults/read",
    "replicationEvents/read",
    "replicationJobs/read",
    "replicationOperationStatus/read",
    "replicationPolicies/read",
    "replicationRecoveryPlans/read",
    "replicationSupportedOperatingSystems/read",
    "replicationVaultHealth/read",
    "replicationVaultHealth/refresh/action",
    "replicationVaultSettings/read",
    "storageConfig/read",
    "tokenInfo/read",
    "usages/read",
    "vaultTokens/read",
  ].map((action) => `${vaults}/${action}`),
  "Watari.Alerts/deliveries/read",
  "Watari.Alerts/webhooks/read",
];

const planVerbs = [
  "failoverCommit",
  "plannedFailover",
  "reProtect",
  "testFailover",
  "testFailoverCleanup",
  "unplannedFailover",
  "failoverCancel",
];
const itemVerbs = [
  "applyRecoveryPoint",
  "failoverCommit",
  "failoverCancel",
  "plannedFailover",
  "repairReplication",
  "reProtect",
  "submitFeedback",
  "switchprotection",
  "testFailover",
  "testFailoverCleanup",
  "unplannedFailover",
  "updateMobilityService",
];

function allow(actions: readonly string[], more: Partial<Permission> = {}): readonly Permission[] {
  return [{ actions, notActions: [], dataActions: [], notDataActions: [], ...more }];
}

/** Making a principal's credential is as good as holding its roles, so whoever may not grant may not do that either. */
const granting = [
  "Microsoft.Authorization/*/Delete",
  "Microsoft.Authorization/*/Write",
  "Microsoft.Authorization/elevateAccess/Action",
  "Watari.Identity/*/delete",
  "Watari.Identity/*/write",
  "Watari.Identity/*/action",
];
/** The trail tells of every scope and person, so reading it takes the right to say who may what. */
const auditing = ["Watari.Audit/*"];

export const builtinRoles: readonly Role[] = [
  {
    roleId: ownerRoleId,
    name: "Owner",
    description: "Everything, also giving access to others.",
    permissions: allow(["*"]),
  },
  {
    roleId: "b24988ac-6180-42a0-ab88-20f7382dd24c",
    name: "Contributor",
    description: "Everything except giving access to others.",
    permissions: allow(["*"], { notActions: [...granting, ...auditing] }),
  },
  {
    roleId: "acdd72a7-3385-48ef-bd42-f606fba81ae7",
    name: "Reader",
    description: "Sees every resource and changes none.",
    permissions: allow(["*/read"], { notActions: auditing }),
  },
  {
    roleId: "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
    name: "User Access Administrator",
    description: "Gives and takes access of others.",
    permissions: allow(["*/read", "Microsoft.Authorization/*", "Microsoft.Support/*", "Watari.Identity/*"]),
  },
  {
    roleId: "6670b86e-a3f7-4917-ac9b-5d6ab1be4567",
    name: "Site Recovery Contributor",
    description: "Everything of Site Recovery except creating vaults and giving access.",
    permissions: allow([
      ...siteRecoveryReads,
      ...deployments,
      "Microsoft.RecoveryServices/locations/allocatedStamp/read",
      "Microsoft.RecoveryServices/locations/allocateStamp/action",
      "Watari.Alerts/deliveries/*",
      "Watari.Alerts/webhooks/*",
      ...[
        "certificates/write",
        "dnsSettings/action",
        "extendedInformation/*",
        "monitoringAlerts/*",
        "registeredIdentities/*",
        "registrationKeys/action",
        "replicationAlertSettings/*",
        "replicationFabrics/*",
        "replicationJobs/*",
        "replicationPolicies/*",
        "replicationProtectionIntents/*",
        "replicationRecoveryPlans/*",
        "replicationVaultSettings/*",
        "storageConfig/*",
      ].map((action) => `${vaults}/${action}`),
    ]),
  },
  {
    roleId: "494ae006-db33-4328-bf46-533a6560a3ca",
    name: "Site Recovery Operator",
    description: "Fails over and repairs, and manages nothing else.",
    permissions: allow([
      ...siteRecoveryReads,
      ...deployments,
      "Microsoft.RecoveryServices/locations/allocatedStamp/read",
      "Microsoft.RecoveryServices/locations/allocateStamp/action",
      `${vaults}/monitoringAlerts/*`,
      `${vaults}/replicationJobs/*`,
      `${fabrics}/*/read`,
      `${fabrics}/read`,
      `${fabrics}/checkConsistency/action`,
      `${fabrics}/reassociateGateway/action`,
      `${fabrics}/renewcertificate/action`,
      `${fabrics}/replicationRecoveryServicesProviders/refreshProvider/action`,
      ...itemVerbs.map((verb) => `${items}/${verb}/action`),
      ...planVerbs.map((verb) => `${vaults}/replicationRecoveryPlans/${verb}/action`),
    ]),
  },
  {
    roleId: "dbaa88c4-0c30-4179-9fb3-46319faa6149",
    name: "Site Recovery Reader",
    description: "Sees the state of Site Recovery and changes nothing.",
    permissions: allow([...siteRecoveryReads, `${fabrics}/read`, `${fabrics}/*/read`, "Microsoft.Support/*"]),
  },
  {
    roleId: "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
    name: "Storage Blob Data Reader",
    description: "Reads containers and blobs.",
    permissions: allow([`${containers}/read`, delegationKey], { dataActions: [`${blobs}/read`] }),
  },
  {
    roleId: blobDataContributorRoleId,
    name: "Storage Blob Data Contributor",
    description: "Reads, writes and deletes containers and blobs.",
    permissions: allow([`${containers}/delete`, `${containers}/read`, `${containers}/write`, delegationKey], {
      dataActions: ["delete", "read", "write", "move/action", "add/action"].map((verb) => `${blobs}/${verb}`),
    }),
  },
  {
    roleId: "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    name: "Storage Blob Data Owner",
    description: "Everything on containers and blobs.",
    permissions: allow([`${containers}/*`, delegationKey], { dataActions: [`${blobs}/*`] }),
  },
  {
    roleId: "db58b8e5-c6ad-4a2a-8342-4190687cbf4a",
    name: "Storage Blob Delegator",
    description: "Gets a key with which shared access signatures are signed.",
    permissions: allow([delegationKey]),
  },
  {
    roleId: "4d97b98b-1d4f-4787-a291-c67834d212e7",
    name: "Network Contributor",
    description: "Manages networks, not access to them.",
    permissions: allow([...common, ...deployments, "Microsoft.Network/*"]),
  },
  {
    roleId: "b12aa53e-6015-4669-85d0-8515ebb3ae7f",
    name: "Private DNS Zone Contributor",
    description: "Manages private DNS zones, not the networks that they are linked to.",
    permissions: allow([
      ...common,
      ...deployments,
      "Microsoft.Network/privateDnsZones/*",
      "Microsoft.Network/privateDnsOperationResults/*",
      "Microsoft.Network/privateDnsOperationStatuses/*",
      "Microsoft.Network/virtualNetworks/read",
      "Microsoft.Network/virtualNetworks/join/action",
    ]),
  },
  {
    roleId: "9980e02c-c2be-4d73-94e8-173b1dc7cf3c",
    name: "Virtual Machine Contributor",
    description: "Manages virtual machines, not access to them nor the network and storage behind them.",
    permissions: allow([
      ...common,
      ...deployments,
      "Microsoft.Compute/availabilitySets/*",
      "Microsoft.Compute/disks/delete",
      "Microsoft.Compute/disks/read",
      "Microsoft.Compute/disks/write",
      "Microsoft.Compute/locations/*",
      "Microsoft.Compute/virtualMachines/*",
      "Microsoft.Compute/virtualMachineScaleSets/*",
      "Microsoft.Network/locations/*",
      "Microsoft.Network/networkInterfaces/*",
      "Microsoft.Network/networkSecurityGroups/join/action",
      "Microsoft.Network/networkSecurityGroups/read",
      "Microsoft.Network/publicIPAddresses/join/action",
      "Microsoft.Network/publicIPAddresses/read",
      "Microsoft.Network/virtualNetworks/read",
      "Microsoft.Network/virtualNetworks/subnets/join/action",
      "Microsoft.RecoveryServices/locations/*",
      `${vaults}/read`,
      `${vaults}/usages/read`,
      `${vaults}/write`,
      "Microsoft.SerialConsole/serialPorts/connect/action",
      "Microsoft.Storage/storageAccounts/listKeys/action",
      "Microsoft.Storage/storageAccounts/read",
    ]),
  },
  {
    roleId: "17d1049b-9a84-46fb-8f53-869881c3d3ab",
    name: "Storage Account Contributor",
    description: "Manages storage accounts, their keys included, not access to them.",
    permissions: allow([
      ...common,
      ...deployments,
      "Microsoft.Insights/diagnosticSettings/*",
      "Microsoft.Network/virtualNetworks/subnets/joinViaServiceEndpoint/action",
      "Microsoft.Storage/storageAccounts/*",
    ]),
  },
];
