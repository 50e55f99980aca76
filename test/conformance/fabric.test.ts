// What surrounds protected items, by Microsoft's unmodified client: policies, mappings, fabrics, providers.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import {
  SiteRecoveryManagementClient,
  type InMageAzureV2PolicyDetails,
  type Policy,
  type VMwareDetails,
} from "@azure/arm-recoveryservices-siterecovery";
import { collect } from "./journey/wait-until.ts";
import { startRig, type Rig } from "./rig.ts";

let rig: Rig;
let client: SiteRecoveryManagementClient;
let vault: [string, string];
let container: [string, string, string, string];
before(async () => {
  rig = await startRig({ machines: 2 });
  client = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  vault = [rig.vault, rig.resourceGroup];
  const [fabric] = await collect(client.replicationFabrics.list(...vault));
  container = [...vault, fabric?.name ?? "", `cloud_${fabric?.name}`];
});
after(async () => await rig[Symbol.asyncDispose]());

const instanceType = "InMageAzureV2" as const;
const settings = { instanceType, recoveryPointHistory: 1440, crashConsistentFrequencyInMinutes: 5, multiVmSyncStatus: "Disable" } as const;

async function createPolicy(name: string): Promise<string> {
  const policy = await client.replicationPolicies.beginCreateAndWait(...vault, name, { properties: { providerSpecificInput: settings } });
  return policy.id ?? "";
}

async function enable(item: string, policyId: string): Promise<void> {
  const [machine] = await collect(client.replicationProtectableItems.listByReplicationProtectionContainers(...container));
  const fabric = await client.replicationFabrics.get(...vault, container[2]);
  const custom = fabric.properties?.customDetails;
  assert.ok(custom?.instanceType === "VMware");
  const { runAsAccounts } = custom as VMwareDetails; // instanceType says so.
  const runAsAccountId = runAsAccounts?.find(({ accountName }) => accountName === "root")?.accountId ?? "";
  const details = { instanceType, runAsAccountId, storageAccountId: "" };
  await client.replicationProtectedItems.beginCreateAndWait(...container, item, {
    properties: { policyId, protectableItemId: machine?.id ?? "", providerSpecificDetails: details },
  });
}

const isRefused = (status: number) => (error: unknown) => error instanceof Error && "statusCode" in error && error.statusCode === status;

function minutesOf(policy: Policy): number | undefined {
  const details = policy.properties?.providerSpecificDetails;
  return details?.instanceType === instanceType ? (details as InMageAzureV2PolicyDetails).crashConsistentFrequencyInMinutes : undefined;
}

describe("replication policies", () => {
  it("change for machines that run by them, and stay while these do", async () => {
    const id = await createPolicy("hourly");
    const own = await client.replicationPolicies.beginUpdateAndWait(...vault, "hourly", {
      properties: { replicationProviderSettings: { ...settings, crashConsistentFrequencyInMinutes: 60 } },
    });
    assert.equal(minutesOf(own), 60);
    await enable("policy-item", id);
    const changed = await client.replicationPolicies.beginUpdateAndWait(...vault, "hourly", {
      properties: { replicationProviderSettings: { ...settings, crashConsistentFrequencyInMinutes: 2 } },
    });
    assert.equal(minutesOf(changed), 2);
    const jobs = await collect(client.replicationJobs.list(...vault));
    assert.ok(jobs.some(({ properties }) => properties?.scenarioName === "UpdatePolicy" && properties.state === "Succeeded"));
    await assert.rejects(async () => await client.replicationPolicies.beginDeleteAndWait(...vault, "hourly"), isRefused(409));
    await client.replicationProtectedItems.beginDeleteAndWait(...container, "policy-item", { properties: {} });
    await client.replicationPolicies.beginDeleteAndWait(...vault, "hourly");
    assert.ok(!(await collect(client.replicationPolicies.list(...vault))).some(({ name }) => name === "hourly"));
  });
});

describe("protection container mappings", () => {
  const mappings = (): SiteRecoveryManagementClient["replicationProtectionContainerMappings"] =>
    client.replicationProtectionContainerMappings;

  it("associate a policy with an appliance, and keep it from being removed", async () => {
    const policyId = await createPolicy("mapped");
    const input = { instanceType: instanceType as "A2A" }; // The client's own type lacks the classic provider.
    const made = await mappings().beginCreateAndWait(...container, "mapping1", {
      properties: { policyId, targetProtectionContainerId: "Microsoft Azure", providerSpecificInput: input },
    });
    assert.equal(made.properties?.policyId, policyId);
    assert.equal(made.properties?.state, "Paired");
    assert.equal((await mappings().get(...container, "mapping1")).properties?.policyFriendlyName, "mapped");
    for (const listed of [mappings().list(...vault), mappings().listByReplicationProtectionContainers(...container)])
      assert.deepEqual(
        (await collect(listed)).map(({ name }) => name),
        ["mapping1"],
      );
    await assert.rejects(async () => await client.replicationPolicies.beginDeleteAndWait(...vault, "mapped"), isRefused(409));
    await assert.rejects(
      async () => await mappings().beginCreateAndWait(...container, "mapping2", { properties: { policyId, providerSpecificInput: input } }),
      isRefused(409),
    );
    await mappings().beginUpdateAndWait(...container, "mapping1", { properties: { providerSpecificInput: input } });
    await mappings().beginDeleteAndWait(...container, "mapping1", { properties: { providerSpecificInput: { instanceType } } });
    await mappings().beginCreateAndWait(...container, "mapping1", { properties: { policyId, providerSpecificInput: input } });
    await mappings().beginPurgeAndWait(...container, "mapping1");
    assert.deepEqual(await collect(mappings().list(...vault)), []);
    await client.replicationPolicies.beginDeleteAndWait(...vault, "mapped");
  });

  it("are refused for a policy that does not exist", async () => {
    const properties = {
      policyId: `/subscriptions/${rig.subscriptionId}/resourceGroups/${vault[1]}/providers/Microsoft.RecoveryServices/vaults/${vault[0]}/replicationPolicies/none`,
    };
    await assert.rejects(async () => await mappings().beginCreateAndWait(...container, "mapping3", { properties }), isRefused(404));
  });
});

describe("vCenters and machines without one", () => {
  it("are added, changed and removed by name, with the account that the appliance has", async () => {
    const vcenters = client.replicationvCenters;
    const place = [...vault, container[2]] as const;
    const fabric = await client.replicationFabrics.get(...place);
    const details = fabric.properties?.customDetails as VMwareDetails; // The site of the rig is one.
    const runAsAccountId = details.runAsAccounts?.find(({ accountName }) => accountName === "vcenter")?.accountId ?? "";
    const properties = {
      friendlyName: "second",
      ipAddress: "second.site.test",
      port: "443",
      runAsAccountId,
      processServerId: container[2],
    };
    const added = await vcenters.beginCreateAndWait(...place, "second", { properties });
    assert.deepEqual([added.name, added.properties?.friendlyName, added.properties?.discoveryStatus], ["second", "second", "Completed"]);
    assert.ok(added.properties?.lastHeartbeat instanceof Date);
    const changed = await vcenters.beginUpdateAndWait(...place, "second", { properties: { friendlyName: "renamed" } });
    assert.deepEqual([changed.properties?.friendlyName, changed.properties?.ipAddress], ["renamed", "second.site.test"]);
    const wrong = details.runAsAccounts?.find(({ accountName }) => accountName === "vcenter-wrong")?.accountId ?? "";
    await assert.rejects(
      async () => await vcenters.beginUpdateAndWait(...place, "second", { properties: { runAsAccountId: wrong } }),
      /VcenterLoginRefused/,
    );
    await vcenters.beginDeleteAndWait(...place, "second");
    assert.ok(!(await collect(vcenters.list(...vault))).some(({ name }) => name === "second"));
  });

  it("become protectable items by their address", async () => {
    const input = { properties: { friendlyName: "metal", ipAddress: "10.99.0.1", osType: "Linux" } };
    const answer = await client.replicationProtectionContainers.beginDiscoverProtectableItemAndWait(...container, input);
    assert.equal(answer.name, container[3]);
    const machines = await collect(client.replicationProtectableItems.listByReplicationProtectionContainers(...container));
    assert.ok(machines.some(({ properties }) => properties?.friendlyName === "metal"));
  });
});

describe("fabrics and providers", () => {
  it("show an appliance as a VMware site that can be looked at anew", async () => {
    const fabric = await client.replicationFabrics.get(...vault, container[2]);
    assert.equal(fabric.properties?.health, "Normal");
    const custom = fabric.properties?.customDetails;
    assert.ok(custom?.instanceType === "VMware");
    const details = custom as VMwareDetails; // instanceType says so.
    assert.ok(details.lastHeartbeat instanceof Date);
    assert.equal(details.processServers?.length, 1);
    const [server] = details.processServers ?? [];
    assert.equal(server?.psServiceStatus, "Running");
    for (const status of [server?.cpuLoadStatus, server?.systemLoadStatus, server?.memoryUsageStatus, server?.throughputStatus])
      assert.match(status ?? "", /^(Healthy|Warning|Critical)$/);
    assert.ok((server?.totalMemoryInBytes ?? 0) > (server?.availableMemoryInBytes ?? 0));
    assert.ok((server?.sslCertExpiryRemainingDays ?? 0) > 300 && server?.sslCertExpiryDate instanceof Date);
    const checked = await client.replicationFabrics.beginCheckConsistencyAndWait(...vault, container[2]);
    assert.equal(checked.name, container[2]);
    const same = await client.replicationFabrics.beginCreateAndWait(...vault, container[2], { properties: {} });
    assert.equal(same.id, fabric.id);
    await assert.rejects(
      async () => await client.replicationFabrics.beginCreateAndWait(...vault, "other", { properties: {} }),
      isRefused(405),
    );
    const renewed = await client.replicationFabrics.beginRenewCertificateAndWait(...vault, container[2], {
      properties: { renewCertificateType: "Cloud" },
    });
    assert.equal(renewed.name, container[2]);
    // The appliance speaks with the new certificate from here on: its orders go on.
    assert.equal((await client.replicationFabrics.beginCheckConsistencyAndWait(...vault, container[2])).name, container[2]);
    await assert.rejects(
      async () =>
        await client.replicationFabrics.beginRenewCertificateAndWait(...vault, container[2], { properties: { renewCertificateType: "x" } }),
      isRefused(400),
    );
  });

  it("list the provider of each fabric, which can be refreshed", async () => {
    const providers = client.replicationRecoveryServicesProviders;
    const all = await collect(providers.list(...vault));
    assert.deepEqual(
      all.map(({ name }) => name),
      [container[2]],
    );
    assert.equal(all[0]?.properties?.connectionStatus, "Connected");
    const one = [...vault, container[2], container[2]] as const;
    assert.equal((await providers.get(...one)).properties?.fabricType, "VMware");
    assert.equal((await providers.beginRefreshProviderAndWait(...one)).name, container[2]);
  });

  it("list the vCenters of their appliance", async () => {
    const [vcenter] = await collect(client.replicationvCenters.list(...vault));
    const at = [...vault, container[2], vcenter?.name ?? ""] as const;
    assert.equal((await client.replicationvCenters.get(...at)).properties?.discoveryStatus, "Completed");
  });

  it("filter machines by their state", async () => {
    const count = async (filter: string): Promise<number> =>
      (await collect(client.replicationProtectableItems.listByReplicationProtectionContainers(...container, { filter }))).length;
    assert.deepEqual(
      await Promise.all(["All", "Unprotected", "Protected"].map(async (state) => await count(`state eq '${state}'`))),
      [3, 3, 0],
    );
    await assert.rejects(async () => await count("colour eq 'red'"), isRefused(400));
  });

  it("are removed only without protected machines, and do not come back", async () => {
    const policyId = await createPolicy("last");
    await enable("last-item", policyId);
    const remove = async (): Promise<void> => await client.replicationFabrics.beginDeleteAndWait(...vault, container[2]);
    await assert.rejects(remove, isRefused(409));
    await assert.rejects(async () => await client.replicationFabrics.beginPurgeAndWait(...vault, container[2]), isRefused(409));
    await client.replicationProtectedItems.beginDeleteAndWait(...container, "last-item", { properties: {} });
    await remove();
    assert.deepEqual(await collect(client.replicationFabrics.list(...vault)), []);
    await assert.rejects(async () => await client.replicationFabrics.get(...vault, container[2]), isRefused(404));
  });
});
