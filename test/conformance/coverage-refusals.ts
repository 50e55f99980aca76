// What refused operations are called with: bodies that Azure would take, so that the refusal is the hub's and not the client's own check.

import type {
  AddVCenterRequest,
  CreateNetworkMappingInput,
  EnableMigrationInput,
  MigrateInput,
  PauseReplicationInput,
  PlannedFailoverInput,
  RecoveryPlanPlannedFailoverInput,
  ResumeReplicationInput,
  ResyncInput,
  ReverseReplicationInput,
  SwitchProtectionInput,
  SwitchProviderInput,
  TestMigrateCleanupInput,
  TestMigrateInput,
  UpdateApplianceForReplicationProtectedItemInput,
  UpdateMigrationItemInput,
} from "@azure/arm-recoveryservices-siterecovery";
import type { Arguments } from "./coverage-world.ts";

const instanceType = "VMwareCbt" as const;
const item = { replicatedProtectedItemName: "coverage-plan-item" };
const appliance = { targetApplianceId: "other", providerSpecificDetails: { instanceType: "InMageRcm" } };
const identity = { tenantId: "t", applicationId: "a", objectId: "o", audience: "x", aadAuthority: "y" };
const intent = { instanceType: "A2A", fabricObjectId: "x", primaryLocation: "x", recoveryLocation: "x", recoverySubscriptionId: "x" };
const cbt = { instanceType, vmwareMachineId: "x", disksToInclude: [], dataMoverRunAsAccountId: "x", snapshotRunAsAccountId: "x" };

/** By operation; the others need no body. */
export const refusalArguments: Readonly<Record<string, Arguments>> = {
  "siterecovery/replicationMigrationItems.create": {
    input: {
      properties: { policyId: "x", providerSpecificDetails: { ...cbt, targetResourceGroupId: "x", targetNetworkId: "x" } },
    } satisfies EnableMigrationInput,
  },
  "siterecovery/replicationMigrationItems.update": {
    input: { properties: { providerSpecificDetails: { instanceType } } } satisfies UpdateMigrationItemInput,
  },
  "siterecovery/replicationMigrationItems.migrate": {
    migrateInput: { properties: { providerSpecificDetails: { instanceType, performShutdown: "true" } } } satisfies MigrateInput,
  },
  "siterecovery/replicationMigrationItems.pauseReplication": {
    pauseReplicationInput: { properties: { instanceType } } satisfies PauseReplicationInput,
  },
  "siterecovery/replicationMigrationItems.resumeReplication": {
    resumeReplicationInput: { properties: { providerSpecificDetails: { instanceType } } } satisfies ResumeReplicationInput,
  },
  "siterecovery/replicationMigrationItems.resync": {
    input: { properties: { providerSpecificDetails: { instanceType, skipCbtReset: "true" } } } satisfies ResyncInput,
  },
  "siterecovery/replicationMigrationItems.testMigrate": {
    testMigrateInput: {
      properties: { providerSpecificDetails: { instanceType, recoveryPointId: "x", networkId: "x" } },
    } satisfies TestMigrateInput,
  },
  "siterecovery/replicationMigrationItems.testMigrateCleanup": {
    testMigrateCleanupInput: { properties: { comments: "x" } } satisfies TestMigrateCleanupInput,
  },
  "siterecovery/replicationNetworkMappings.create": {
    input: { properties: { recoveryNetworkId: "x" } } satisfies CreateNetworkMappingInput,
  },
  "siterecovery/replicationNetworkMappings.update": { input: { properties: { recoveryNetworkId: "x" } } },
  "siterecovery/replicationStorageClassificationMappings.create": { pairingInput: { properties: {} } },
  "siterecovery/replicationProtectionIntents.create": {
    input: { properties: { providerSpecificDetails: { ...intent, recoveryAvailabilityType: "Single", recoveryResourceGroupId: "x" } } },
  },
  "siterecovery/replicationProtectionContainers.switchProtection": {
    switchInput: { properties: { replicationProtectedItemName: "x" } } satisfies SwitchProtectionInput,
  },
  "siterecovery/replicationProtectionContainers.discoverProtectableItem": {
    discoverProtectableItemRequest: { properties: { friendlyName: "x", ipAddress: "192.0.2.9", osType: "Linux" } },
  },
  "siterecovery/replicationProtectedItems.plannedFailover": {
    ...item,
    failoverInput: { properties: { failoverDirection: "PrimaryToRecovery" } } satisfies PlannedFailoverInput,
  },
  "siterecovery/replicationProtectedItems.reprotect": {
    ...item,
    reprotectInput: {
      properties: { failoverDirection: "RecoveryToPrimary", providerSpecificDetails: { instanceType: "InMageAzureV2" } },
    } satisfies ReverseReplicationInput,
  },
  "siterecovery/replicationProtectedItems.switchProvider": {
    ...item,
    switchProviderInput: { properties: { targetInstanceType: "InMageRcm" } } satisfies SwitchProviderInput,
  },
  "siterecovery/replicationProtectedItems.updateAppliance": {
    ...item,
    applianceUpdateInput: {
      properties: { ...appliance, providerSpecificDetails: { instanceType: "InMageRcm" } },
    } satisfies UpdateApplianceForReplicationProtectedItemInput,
  },
  "siterecovery/replicationRecoveryPlans.plannedFailover": {
    recoveryPlanName: "coverage-plan-kept",
    input: { properties: { failoverDirection: "PrimaryToRecovery" } } satisfies RecoveryPlanPlannedFailoverInput,
  },
  "siterecovery/replicationRecoveryPlans.reprotect": { recoveryPlanName: "coverage-plan-kept" },
  "siterecovery/replicationRecoveryServicesProviders.create": {
    providerName: "other",
    addProviderInput: {
      properties: { machineName: "x", authenticationIdentityInput: identity, resourceAccessIdentityInput: identity },
    },
  },
  "siterecovery/replicationvCenters.create": {
    addVCenterRequest: {
      properties: { friendlyName: "new", ipAddress: "192.0.2.9", port: "443", runAsAccountId: "none" },
    } satisfies AddVCenterRequest,
  },
  "siterecovery/replicationvCenters.update": { updateVCenterRequest: { properties: { friendlyName: "new" } } },
  "siterecovery/replicationFabrics.reassociateGateway": { failoverProcessServerRequest: { properties: {} } },
  "siterecovery/replicationFabrics.renewCertificate": { renewCertificate: { properties: { renewCertificateType: "Cloud" } } },
  "recoveryservices/vaultCertificates.create": { certificateRequest: { properties: { authType: "AzureActiveDirectory" } } },
  "recoveryservices/deletedVaults.undelete": { body: { properties: { recoveryResourceGroupId: "/subscriptions/x/resourceGroups/y" } } },
};
