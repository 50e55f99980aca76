// The calls of the coverage test that are answered, in an order in which each finds the state that it needs.

import assert from "node:assert/strict";
import type {
  CreatePolicyInput,
  CreateRecoveryPlanInput,
  EnableProtectionInput,
  TestFailoverInput,
  UnplannedFailoverInput,
  UpdateReplicationProtectedItemInput,
} from "@azure/arm-recoveryservices-siterecovery";
import type { Arguments, CoverageWorld } from "./coverage-world.ts";
import { waitUntil } from "./journey/wait-until.ts";

export interface JourneyStep {
  readonly title: string;
  readonly run: (world: CoverageWorld) => Promise<void>;
}

const instanceType = "InMageAzureV2";
const failoverDirection = "PrimaryToRecovery";
const secondsMax = 60;
const [itemName, planItemName, purgedName, planName] = ["coverage-item", "coverage-plan-item", "coverage-purged", "coverage-plan"];
/** Stays for the refusals. */
const keptPlanName = "coverage-plan-kept";
const item: Arguments = { replicatedProtectedItemName: itemName };
const plan: Arguments = { recoveryPlanName: planName };
const mapping: Arguments = { mappingName: "coverage-mapping" };
const settings = { instanceType, recoveryPointHistory: 1440, multiVmSyncStatus: "Disable" } as const;

/** Calls that need nothing of each other. */
function calls(title: string, wanted: Readonly<Record<string, Arguments>>): JourneyStep {
  return {
    title,
    run: async (world) => {
      for (const [name, given] of Object.entries(wanted)) await world.call(name, given);
    },
  };
}

export const journeySteps: readonly JourneyStep[] = [
  calls("a vault and what it tells", {
    "recoveryservices/operations.list": {},
    "recoveryservices/recoveryServices.capabilities": { input: { type: "Microsoft.RecoveryServices/vaults" } },
    "recoveryservices/recoveryServices.checkNameAvailability": { input: { type: "Microsoft.RecoveryServices/vaults", name: "other" } },
    "recoveryservices/vaults.createOrUpdate": {
      vaultName: "second",
      vault: { location: "local", identity: { type: "SystemAssigned" }, properties: {} },
    },
    "recoveryservices/vaults.update": { vaultName: "second", vault: { tags: { team: "move" } } },
    "recoveryservices/vaults.get": { vaultName: "second" },
    "recoveryservices/vaults.delete": { vaultName: "second" },
    "recoveryservices/vaults.listByResourceGroup": {},
    "recoveryservices/vaults.listBySubscriptionId": {},
    "recoveryservices/deletedVaults.listBySubscriptionId": {},
    "recoveryservices/privateLinkResources.list": {},
    "recoveryservices/privateLinkResources.get": { privateLinkResourceName: "AzureSiteRecovery" },
    "recoveryservices/replicationUsages.list": {},
    "recoveryservices/usages.listByVaults": {},
    "recoveryservices/vaultExtendedInfo.createOrUpdate": { resourceResourceExtendedInfoDetails: { properties: { algorithm: "None" } } },
    "recoveryservices/vaultExtendedInfo.get": {},
    "recoveryservices/vaultExtendedInfo.update": { resourceResourceExtendedInfoDetails: { properties: { algorithm: "None" } } },
    "siterecovery/operations.list": {},
    "siterecovery/replicationAlertSettings.create": {
      alertSettingName: "defaultAlertSetting",
      request: { properties: { sendToOwners: "DoNotSend", customEmailAddresses: [], locale: "en-US" } },
    },
    "siterecovery/replicationAlertSettings.get": { alertSettingName: "defaultAlertSetting" },
    "siterecovery/replicationAlertSettings.list": {},
    "siterecovery/replicationAppliances.list": {},
    "siterecovery/replicationVaultHealth.get": {},
    "siterecovery/replicationVaultHealth.refresh": {},
    "siterecovery/replicationVaultSetting.create": { input: { properties: { vmwareToAzureProviderType: instanceType } } },
    "siterecovery/replicationVaultSetting.get": {},
    "siterecovery/replicationVaultSetting.list": {},
    "siterecovery/supportedOperatingSystemsOperations.get": {},
  }),
  {
    title: "a site and what it shows",
    run: async (world) => {
      const { call, fabric, machines } = world;
      const [network] = await world.client.replicationNetworks
        .list(...world.vault)
        .next()
        .then(({ value }) => [value]);
      const [vcenter] = await world.client.replicationvCenters
        .list(...world.vault)
        .next()
        .then(({ value }) => [value]);
      const wanted: Readonly<Record<string, Arguments>> = {
        "replicationFabrics.list": {},
        "replicationFabrics.get": {},
        "replicationFabrics.create": { input: { properties: {} } },
        "replicationFabrics.checkConsistency": {},
        "replicationRecoveryServicesProviders.list": {},
        "replicationRecoveryServicesProviders.listByReplicationFabrics": {},
        "replicationRecoveryServicesProviders.get": { providerName: fabric },
        "replicationRecoveryServicesProviders.refreshProvider": {},
        "replicationProtectionContainers.list": {},
        "replicationProtectionContainers.listByReplicationFabrics": {},
        "replicationProtectionContainers.get": {},
        "replicationProtectionContainers.create": { creationInput: { properties: {} } },
        "replicationNetworks.list": {},
        "replicationNetworks.listByReplicationFabrics": {},
        "replicationNetworks.get": { networkName: network?.name },
        "replicationNetworkMappings.list": {},
        "replicationNetworkMappings.listByReplicationNetworks": { networkName: network?.name },
        "replicationLogicalNetworks.listByReplicationFabrics": {},
        "replicationStorageClassifications.list": {},
        "replicationStorageClassifications.listByReplicationFabrics": {},
        "replicationStorageClassificationMappings.list": {},
        "replicationProtectionIntents.list": {},
        "replicationMigrationItems.list": {},
        "replicationMigrationItems.listByReplicationProtectionContainers": {},
        "replicationvCenters.list": {},
        "replicationvCenters.listByReplicationFabrics": {},
        "replicationvCenters.get": { vcenterName: vcenter?.name },
        "replicationProtectableItems.listByReplicationProtectionContainers": {},
        "replicationProtectableItems.get": { protectableItemName: machines[0]?.name },
      };
      for (const [name, given] of Object.entries(wanted)) await call(`siterecovery/${name}`, given);
    },
  },
  {
    title: "a policy, its mapping, and machines that follow it",
    run: async (world) => {
      const { call } = world;
      const input: CreatePolicyInput = { properties: { providerSpecificInput: settings } };
      const policyId = idOf(await call("siterecovery/replicationPolicies.create", { policyName: "coverage", input }));
      await call("siterecovery/replicationPolicies.get", { policyName: "coverage" });
      await call("siterecovery/replicationPolicies.list");
      const change = { properties: { replicationProviderSettings: { ...settings, recoveryPointHistory: 720 } } };
      await call("siterecovery/replicationPolicies.update", { policyName: "coverage", input: change });
      const mappings = "siterecovery/replicationProtectionContainerMappings";
      const creationInput = { properties: { policyId, providerSpecificInput: { instanceType } } };
      await call(`${mappings}.create`, { ...mapping, creationInput });
      await call(`${mappings}.get`, mapping);
      await call(`${mappings}.list`);
      await call(`${mappings}.listByReplicationProtectionContainers`);
      await call(`${mappings}.update`, { ...mapping, updateInput: { properties: {} } });
      await call(`${mappings}.delete`, { ...mapping, removalInput: { properties: {} } });
      await call(`${mappings}.create`, { ...mapping, creationInput });
      await call(`${mappings}.purge`, mapping);
      await Promise.all([itemName, planItemName, purgedName].map(async (name, index) => await enable(world, { name, index, policyId })));
    },
  },
  {
    title: "a protected item, its points and its edits",
    run: async ({ call, client, vault, fabric, container }) => {
      const items = "siterecovery/replicationProtectedItems";
      await call(`${items}.list`);
      await call(`${items}.listByReplicationProtectionContainers`);
      await call(`${items}.get`, item);
      const change: UpdateReplicationProtectedItemInput = {
        properties: { recoveryAzureVMName: "coverage-landed", selectedRecoveryAzureNetworkId: "landing" },
      };
      await call(`${items}.update`, { ...item, updateProtectionInput: change });
      const [point] = await waitUntil("a recovery point", secondsMax, async () => {
        const points = await call("siterecovery/recoveryPoints.listByReplicationProtectedItems", item);
        return Array.isArray(points) && points.length > 0 ? (points as { readonly name?: string }[]) : undefined; // The client's own type.
      });
      await call("siterecovery/recoveryPoints.get", { ...item, recoveryPointName: point?.name });
      await call("siterecovery/targetComputeSizes.listByReplicationProtectedItems", item);
      await call(`${items}.resolveHealthErrors`, { ...item, resolveHealthInput: { properties: { healthErrors: [] } } });
      await call(`${items}.repairReplication`, item);
      await call(`${items}.updateMobilityService`, { ...item, updateMobilityServiceRequest: { properties: {} } });
      const shown = await client.replicationProtectedItems.get(...vault, fabric, container, itemName);
      const disks = shown.properties?.providerSpecificDetails;
      assert.ok(disks?.instanceType === instanceType && "protectedDisks" in disks);
      const diskId = disks.protectedDisks?.at(-1)?.diskId ?? "";
      const bySdk = { instanceType: "A2A" } as const;
      const removeDisksInput = { properties: { providerSpecificDetails: { ...bySdk, vmManagedDisksIds: [diskId] } } };
      const stagingAndTarget = { primaryStagingAzureStorageAccountId: "", recoveryResourceGroupId: "" };
      const addDisksInput = { properties: { providerSpecificDetails: { ...bySdk, vmManagedDisks: [{ diskId, ...stagingAndTarget }] } } };
      await call(`${items}.removeDisks`, { ...item, removeDisksInput });
      await call(`${items}.addDisks`, { ...item, addDisksInput });
      await call(`${items}.purge`, { replicatedProtectedItemName: purgedName });
    },
  },
  {
    title: "a migration: test, cut-over, another point, back, again, commit, complete",
    run: async ({ call, client, vault, fabric, container }) => {
      const items = "siterecovery/replicationProtectedItems";
      const test: TestFailoverInput = {
        properties: { failoverDirection, networkType: "NoNetworkAttachAsInput", providerSpecificDetails: { instanceType } },
      };
      await call(`${items}.testFailover`, { ...item, testfailoverInput: test });
      await call(`${items}.testFailoverCleanup`, { ...item, cleanupInput: { properties: { comments: "well" } } });
      const move: UnplannedFailoverInput = {
        properties: { failoverDirection, sourceSiteOperations: "Required", providerSpecificDetails: { instanceType } },
      };
      await call(`${items}.unplannedFailover`, { ...item, failoverInput: move });
      const landed = await call("siterecovery/replicationEligibilityResultsOperations.list", { virtualMachineName: "coverage-landed" });
      assert.match(JSON.stringify(landed), /MachineHasLanded/);
      await call("siterecovery/replicationEligibilityResultsOperations.get", { virtualMachineName: "coverage-landed" });
      const points = await client.recoveryPoints.listByReplicationProtectedItems(...vault, fabric, container, itemName).next();
      const recoveryPointId = points.value?.id;
      const applyRecoveryPointInput = { properties: { recoveryPointId, providerSpecificDetails: { instanceType } } };
      await call(`${items}.applyRecoveryPoint`, { ...item, applyRecoveryPointInput });
      await call(`${items}.failoverCancel`, item);
      await call(`${items}.unplannedFailover`, { ...item, failoverInput: move });
      await call(`${items}.failoverCommit`, item);
      await call(`${items}.delete`, { ...item, disableProtectionInput: { properties: { disableProtectionReason: "MigrationComplete" } } });
    },
  },
  {
    title: "a recovery plan with a person's action, and its job, which is resumed",
    run: async (world) => await runPlan(world),
  },
  {
    title: "jobs, events and operations",
    run: async ({ call, client, vault }) => {
      await call("siterecovery/replicationJobs.list");
      const job = (await client.replicationJobs.list(...vault).next()).value;
      await call("siterecovery/replicationJobs.get", { jobName: job?.name });
      await call("siterecovery/replicationJobs.export", { jobQueryParameter: { jobOutputType: "Json" } });
      const event = (await client.replicationEvents.list(...vault).next()).value;
      await call("siterecovery/replicationEvents.list");
      await call("siterecovery/replicationEvents.get", { eventName: event?.name });
      await call("siterecovery/replicationPolicies.create", {
        policyName: "unused",
        input: { properties: { providerSpecificInput: settings } },
      });
      await call("siterecovery/replicationPolicies.delete", { policyName: "unused" });
      await call("recoveryservices/client.getOperationStatus", { operationId: job?.name });
      await call("recoveryservices/client.getOperationResult", { operationId: job?.name });
    },
  },
];

async function enable(
  { call, machines, accountId }: CoverageWorld,
  { name, index, policyId }: { readonly name: string; readonly index: number; readonly policyId: string },
): Promise<void> {
  const details = { instanceType, runAsAccountId: accountId, targetAzureNetworkId: "landing" } as const;
  const input: EnableProtectionInput = {
    properties: { policyId, protectableItemId: machines[index]?.id ?? "", providerSpecificDetails: details },
  };
  await call("siterecovery/replicationProtectedItems.create", { replicatedProtectedItemName: name, input });
}

async function runPlan({ call, client, vault, fabricId, containerId }: CoverageWorld): Promise<void> {
  const plans = "siterecovery/replicationRecoveryPlans";
  const pause = {
    actionName: "look",
    failoverTypes: ["TestFailover"],
    failoverDirections: [failoverDirection],
    customDetails: { instanceType: "ManualActionDetails" as const, description: "look at it" },
  };
  const groups = [
    {
      groupType: "Boot",
      replicationProtectedItems: [{ id: `${containerId}/replicationProtectedItems/${planItemName}` }],
      startGroupActions: [pause],
      endGroupActions: [],
    },
  ];
  const input: CreateRecoveryPlanInput = {
    properties: { primaryFabricId: fabricId, recoveryFabricId: "Microsoft Azure", groups },
  };
  await call(`${plans}.create`, { ...plan, input });
  await call(`${plans}.get`, plan);
  await call(`${plans}.list`);
  await call(`${plans}.update`, { ...plan, input: { properties: { groups } } });
  const latest = { instanceType, recoveryPointType: "Latest" } as const;
  const test = { properties: { failoverDirection, networkType: "NoNetworkAttachAsInput", providerSpecificDetails: [latest] } };
  const tested = call(`${plans}.testFailover`, { ...plan, input: test });
  const waiting = async (): Promise<string | undefined> =>
    (await client.replicationJobs.list(...vault, { filter: "jobStatus eq 'Suspended'" }).next()).value?.name;
  const jobName = await waitUntil("the plan to wait for a person", secondsMax, waiting);
  await call("siterecovery/replicationJobs.resume", { jobName, resumeJobParams: { properties: { comments: "looks well" } } });
  await tested;
  await call(`${plans}.testFailoverCleanup`, { ...plan, input: { properties: { comments: "well" } } });
  const move = { properties: { failoverDirection, sourceSiteOperations: "Required", providerSpecificDetails: [latest] } };
  await call(`${plans}.unplannedFailover`, { ...plan, input: move });
  await call(`${plans}.failoverCancel`, plan);
  await call(`${plans}.unplannedFailover`, { ...plan, input: move });
  await call(`${plans}.failoverCommit`, plan);
  await call(`${plans}.create`, { recoveryPlanName: keptPlanName, input });
  await call(`${plans}.delete`, plan);
}

function idOf(answer: unknown): string {
  assert.ok(typeof answer === "object" && answer !== null && "id" in answer && typeof answer.id === "string");
  return answer.id;
}

export async function removeSite({ call }: CoverageWorld): Promise<void> {
  await call("siterecovery/replicationRecoveryPlans.delete", { recoveryPlanName: keptPlanName });
  const moved = { replicatedProtectedItemName: planItemName };
  await call("siterecovery/replicationProtectedItems.delete", { ...moved, disableProtectionInput: { properties: {} } });
  await call("siterecovery/replicationRecoveryServicesProviders.purge");
}
