// A vault and what it tells of itself, by Microsoft's unmodified clients.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { RecoveryServicesClient } from "@azure/arm-recoveryservices";
import { SiteRecoveryManagementClient } from "@azure/arm-recoveryservices-siterecovery";
import { collect } from "./journey/wait-until.ts";
import { startRig, type Rig } from "./rig.ts";

let rig: Rig;
let client: SiteRecoveryManagementClient;
let vault: [string, string];
before(async () => {
  rig = await startRig({ machines: 2 });
  client = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  vault = [rig.vault, rig.resourceGroup];
});
after(async () => await rig[Symbol.asyncDispose]());

const isRefused = (status: number) => (error: unknown) => error instanceof Error && "statusCode" in error && error.statusCode === status;

describe("a vault", () => {
  let vaults: RecoveryServicesClient;
  before(() => void (vaults = new RecoveryServicesClient(rig.credential, rig.subscriptionId, rig.clientOptions)));
  const byGroup = (): [string, string] => [rig.resourceGroup, "second"];

  it("is made, tagged, listed and removed", async () => {
    const check = async (name: string): Promise<boolean | undefined> =>
      (await vaults.recoveryServices.checkNameAvailability(rig.resourceGroup, "local", { type: "Microsoft.RecoveryServices/vaults", name }))
        .nameAvailable;
    assert.equal(await check("second"), true);
    const sku = { name: "RS0", tier: "Standard" };
    const made = await vaults.vaults.createOrUpdate(...byGroup(), {
      location: "local",
      sku,
      identity: { type: "SystemAssigned" },
      properties: { publicNetworkAccess: "Disabled" },
    });
    assert.equal(made.properties?.provisioningState, "Succeeded");
    assert.equal(await check("second"), false);
    const changed = await vaults.vaults.update(...byGroup(), { tags: { team: "move" }, properties: { publicNetworkAccess: "Enabled" } });
    assert.deepEqual([changed.tags, changed.properties?.publicNetworkAccess], [{ team: "move" }, "Enabled"]);
    const names = (await collect(vaults.vaults.listByResourceGroup(rig.resourceGroup))).map(({ name }) => name);
    assert.ok(names.includes("second") && names.includes(rig.vault));
    await vaults.vaults.delete(...byGroup());
    assert.equal(await check("second"), true);
  });

  it("has an alert setting: nobody at first, then who was named", async () => {
    const unset = await client.replicationAlertSettings.get(...vault, "defaultAlertSetting");
    assert.deepEqual([unset.name, unset.properties?.customEmailAddresses], ["defaultAlertSetting", []]);
    const properties = { sendToOwners: "DoNotSend", customEmailAddresses: ["night@example.test"], locale: "ja-JP" };
    const saved = await client.replicationAlertSettings.create(...vault, "defaultAlertSetting", { properties });
    assert.deepEqual([saved.type, saved.properties], ["Microsoft.RecoveryServices/vaults/replicationAlertSettings", properties]);
    assert.deepEqual(
      (await collect(client.replicationAlertSettings.list(...vault))).map((setting) => [setting.name, setting.properties]),
      [["defaultAlertSetting", properties]],
    );
    await assert.rejects(client.replicationAlertSettings.create(...vault, "other", { properties }), isRefused(400));
    const injected = { ...properties, customEmailAddresses: ["night@example.test\r\nBcc: all@example.test"] };
    await assert.rejects(client.replicationAlertSettings.create(...vault, "defaultAlertSetting", { properties: injected }), isRefused(400));
    await assert.rejects(client.replicationAlertSettings.get(...vault, "other"), isRefused(404));
  });

  it("tells what is used of it", async () => {
    const at = [rig.resourceGroup, rig.vault] as const;
    const usages = await collect(vaults.usages.listByVaults(...at));
    assert.deepEqual(
      usages.map(({ name, currentValue }) => [name?.value, currentValue]),
      [
        ["ProtectedItems", 0],
        ["RegisteredServers", 1],
      ],
    );
    const [usage] = await collect(vaults.replicationUsages.list(...at));
    assert.deepEqual([usage?.protectedItemCount, usage?.registeredServersCount, usage?.jobsSummary?.inProgressJobs], [0, 1, 0]);
    const links = await collect(vaults.privateLinkResources.list(...at));
    assert.deepEqual(
      links.map(({ name }) => name),
      ["AzureSiteRecovery"],
    );
  });

  it("keeps extended information without giving its keys away, and refuses certificates", async () => {
    const at = [rig.resourceGroup, rig.vault] as const;
    await vaults.vaultExtendedInfo.createOrUpdate(...at, { properties: { integrityKey: "c2VjcmV0", algorithm: "None" } });
    const stored = await vaults.vaultExtendedInfo.get(...at);
    assert.deepEqual([stored.properties?.algorithm, stored.properties?.integrityKey], ["None", undefined]);
    await assert.rejects(
      async () => await vaults.vaultCertificates.create(...at, "cert1", { properties: { authType: "ACS" } }),
      isRefused(405),
    );
  });
});

describe("a vault's replication", () => {
  it("tells its health in counts, also refreshed", async () => {
    for (const health of [
      await client.replicationVaultHealth.get(...vault),
      await client.replicationVaultHealth.beginRefreshAndWait(...vault),
    ]) {
      assert.equal(health.properties?.fabricsHealth?.resourceCount, 1);
      assert.deepEqual(health.properties?.fabricsHealth?.categorizedResourceCounts, { Normal: 1 });
      assert.equal(health.properties?.protectedItemsHealth?.resourceCount, 0);
    }
  });

  it("keeps its setting, for the one provider that there is", async () => {
    const settings = client.replicationVaultSetting;
    assert.equal((await settings.get(...vault, "default")).properties?.vmwareToAzureProviderType, "InMageAzureV2");
    const properties = { migrationSolutionId: "/subscriptions/x", vmwareToAzureProviderType: "InMageAzureV2" };
    const stored = await settings.beginCreateAndWait(...vault, "default", { properties });
    assert.equal(stored.properties?.migrationSolutionId, "/subscriptions/x");
    assert.deepEqual(
      (await collect(settings.list(...vault))).map(({ name }) => name),
      ["default"],
    );
    const other = { properties: { vmwareToAzureProviderType: "InMageRcm" } };
    await assert.rejects(async () => await settings.beginCreateAndWait(...vault, "default", other), isRefused(400));
  });

  it("names the systems that the agent runs on, and the appliances", async () => {
    const systems = await client.supportedOperatingSystemsOperations.get(...vault);
    assert.deepEqual(
      systems.properties?.supportedOsList?.map(({ supportedOs }) => supportedOs?.map(({ osType }) => osType)),
      [["Linux"]],
    );
    const [appliances] = await collect(client.replicationAppliances.list(...vault));
    const details = appliances?.properties?.providerSpecificDetails;
    assert.ok(details?.instanceType === "InMageRcm" && "appliances" in details);
    assert.equal(details.appliances?.length, 1);
    assert.deepEqual(await collect(client.replicationAppliances.list(...vault, { filter: "instanceType eq 'A2A'" })), []);
  });

  it("lists the networks of its site, and nothing of kinds that are not of VMware", async () => {
    const networks = await collect(client.replicationNetworks.list(...vault));
    assert.ok(networks.length > 0);
    const fabric = networks[0]?.id?.split("/").at(-3) ?? "";
    const one = await client.replicationNetworks.get(...vault, fabric, networks[0]?.name ?? "");
    assert.equal(one.properties?.friendlyName, networks[0]?.properties?.friendlyName);
    const empty = await Promise.all([
      collect(client.replicationNetworkMappings.list(...vault)),
      collect(client.replicationNetworkMappings.listByReplicationNetworks(...vault, fabric, networks[0]?.name ?? "")),
      collect(client.replicationLogicalNetworks.listByReplicationFabrics(...vault, fabric)),
      collect(client.replicationStorageClassifications.list(...vault)),
      collect(client.replicationStorageClassificationMappings.list(...vault)),
      collect(client.replicationProtectionIntents.list(...vault)),
    ]);
    assert.deepEqual(empty.flat(), []);
    const places = { fabricObjectId: "x", primaryLocation: "x", recoveryLocation: "x", recoverySubscriptionId: "x" };
    const details = { instanceType: "A2A" as const, ...places, recoveryAvailabilityType: "Single", recoveryResourceGroupId: "x" };
    const intent = { properties: { providerSpecificDetails: details } };
    await assert.rejects(async () => await client.replicationProtectionIntents.create(...vault, "intent1", intent), isRefused(405));
  });
});

describe("an appliance's identity", () => {
  it("is removed with all that the appliance told", async () => {
    const vaults = new RecoveryServicesClient(rig.credential, rig.subscriptionId, rig.clientOptions);
    const [fabric] = await collect(client.replicationFabrics.list(...vault));
    await vaults.registeredIdentities.delete(rig.resourceGroup, rig.vault, fabric?.name ?? "");
    assert.deepEqual(await collect(client.replicationFabrics.list(...vault)), []);
  });
});
