// The article's landing zone by Microsoft's clients: group, network, storage account, vault with its role, private doors, zones.

import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { AuthorizationManagementClient } from "@azure/arm-authorization";
import { NetworkManagementClient } from "@azure/arm-network";
import { PrivateDnsManagementClient } from "@azure/arm-privatedns";
import { RecoveryServicesClient } from "@azure/arm-recoveryservices";
import { ResourceManagementClient } from "@azure/arm-resources";
import { StorageManagementClient } from "@azure/arm-storage";
import { systemRandom } from "../../../src/base/random.ts";
import type { NamedAddress } from "../../../src/cli/private-endpoint.ts";
import { registrationKeyShape, type RegistrationKey } from "../../../src/contract/appliance-protocol.ts";
import type { Rig } from "../rig.ts";
import { collect } from "./wait-until.ts";

export interface ZoneWish {
  readonly rig: Rig;
  readonly resourceGroup: string;
  readonly vault: string;
  readonly account: string;
  readonly location: string;
  /** As the hub's configuration has it. */
  readonly network: { readonly name: string; readonly subnet: string; readonly cidr: string };
}

export interface Zone {
  readonly networkId: string;
  readonly key: RegistrationKey;
  /** Private names of the vault and its storage account. */
  readonly hosts: readonly NamedAddress[];
}

/** From an empty subscription to a key for an appliance, a test step for each thing that a person would order. */
export async function openZone(t: TestContext, wish: ZoneWish): Promise<Zone> {
  const zone = new LandingZone(wish);
  const hosts: NamedAddress[] = [];
  let domain = "";
  await t.test("a resource group is created and read", async () => await zone.createGroup());
  await t.test("the hub's network is declared, with its subnet", async () => await zone.createNetwork());
  await t.test("a storage account is created, public access off", async () => {
    domain = await zone.createStorage();
  });
  await t.test("a vault is created with an identity, public access off", async () => await zone.createVault());
  await t.test("the vault's identity gets the blob role on the account", async () => await zone.grantRole());
  await t.test("both get private endpoints with zones and records", async () => {
    hosts.push(...(await zone.openDoor("storage", domain)), ...(await zone.openDoor("vault", domain)));
  });
  return { networkId: zone.networkId, key: await zone.makeKey(), hosts };
}

const blobDataContributorRoleId = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";

class LandingZone {
  readonly #wish: ZoneWish;
  readonly #networks: NetworkManagementClient;
  readonly #zones: PrivateDnsManagementClient;
  readonly #vaults: RecoveryServicesClient;
  readonly #storage: StorageManagementClient;
  #networkId = "";
  #subnetId = "";
  #accountId = "";
  #vaultId = "";
  #principalId = "";

  constructor(wish: ZoneWish) {
    const { credential, subscriptionId, clientOptions } = wish.rig;
    this.#wish = wish;
    this.#networks = new NetworkManagementClient(credential, subscriptionId, clientOptions);
    this.#zones = new PrivateDnsManagementClient(credential, subscriptionId, clientOptions);
    this.#vaults = new RecoveryServicesClient(credential, subscriptionId, clientOptions);
    this.#storage = new StorageManagementClient(credential, subscriptionId, clientOptions);
  }

  get networkId(): string {
    return this.#networkId;
  }

  /** Azure hands this file out in its portal alone; no client has a call for it. */
  async makeKey(): Promise<RegistrationKey> {
    const { rig } = this.#wish;
    const answer = await fetch(`${rig.endpoint}${this.#vaultId}/registrationKeys?api-version=2025-08-01`, {
      method: "POST",
      headers: { authorization: `Bearer ${await rig.token()}`, "content-type": "application/json" },
      body: "{}",
    });
    assert.equal(answer.status, 200);
    return registrationKeyShape.parse(await answer.json());
  }

  async createGroup(): Promise<void> {
    const { rig, resourceGroup, location } = this.#wish;
    const resources = new ResourceManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
    const group = await resources.resourceGroups.createOrUpdate(resourceGroup, { location, tags: { purpose: "conformance" } });
    assert.equal(group.name, resourceGroup);
    assert.deepEqual((await resources.resourceGroups.get(resourceGroup)).tags, { purpose: "conformance" });
  }

  async createNetwork(): Promise<void> {
    const { resourceGroup, location, network } = this.#wish;
    const { cidr } = network;
    const created = await this.#networks.virtualNetworks.createOrUpdate(resourceGroup, network.name, {
      location,
      addressSpace: { addressPrefixes: [cidr] },
      subnets: [{ name: network.subnet, addressPrefix: cidr }],
    });
    const subnet = await this.#networks.subnets.get(resourceGroup, network.name, network.subnet);
    this.#networkId = created.id ?? "";
    this.#subnetId = subnet.id ?? "";
    assert.equal(subnet.addressPrefix, cidr);
  }

  /** Answers the domain that the hub's names end with, as the account's own name tells it. */
  async createStorage(): Promise<string> {
    const { resourceGroup, account, location } = this.#wish;
    const created = await this.#storage.storageAccounts.create(resourceGroup, account, {
      location,
      kind: "StorageV2",
      sku: { name: "Standard_LRS" },
      publicNetworkAccess: "Disabled",
    });
    this.#accountId = created.id ?? "";
    assert.equal(created.publicNetworkAccess, "Disabled");
    const { keys = [] } = await this.#storage.storageAccounts.listKeys(resourceGroup, account);
    assert.ok(keys.length >= 1);
    const { hostname } = new URL(created.primaryEndpoints?.blob ?? "");
    assert.ok(hostname.startsWith(`${account}.blob.`));
    return hostname.slice(`${account}.blob.`.length);
  }

  async createVault(): Promise<void> {
    const { resourceGroup, vault, location } = this.#wish;
    const created = await this.#vaults.vaults.createOrUpdate(resourceGroup, vault, {
      location,
      sku: { name: "RS0", tier: "Standard" },
      identity: { type: "SystemAssigned" },
      properties: { publicNetworkAccess: "Disabled" },
    });
    this.#vaultId = created.id ?? "";
    this.#principalId = created.identity?.principalId ?? "";
    assert.equal(created.properties?.publicNetworkAccess, "Disabled");
    const groups = await collect(this.#vaults.privateLinkResources.list(resourceGroup, vault));
    assert.deepEqual(
      groups.map((group) => group.properties?.groupId),
      ["AzureSiteRecovery"],
    );
  }

  /** From here on the account is the vault's: Azure's clients have no other word for it. */
  async grantRole(): Promise<void> {
    const { rig } = this.#wish;
    const authorization = new AuthorizationManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
    const roles = await collect(
      authorization.roleDefinitions.list(this.#accountId, { filter: "roleName eq 'Storage Blob Data Contributor'" }),
    );
    const role = roles.find(({ id }) => id?.endsWith(blobDataContributorRoleId));
    assert.equal(role?.roleName, "Storage Blob Data Contributor");
    const made = await authorization.roleAssignments.create(this.#accountId, systemRandom.uuid(), {
      principalId: this.#principalId,
      principalType: "ServicePrincipal",
      roleDefinitionId: role?.id ?? "",
    });
    assert.equal(made.principalId, this.#principalId);
  }

  /** A private endpoint with its zone, link, zone group and records. Answers the names that it serves. */
  async openDoor(kind: "vault" | "storage", domain: string): Promise<readonly NamedAddress[]> {
    const { resourceGroup, location, network } = this.#wish;
    const { name, targetId, groupId, zone } = this.#doorOf(kind, domain);
    const zoneCreated = await this.#zones.privateZones.createOrUpdate(resourceGroup, zone, { location: "global" });
    await this.#zones.virtualNetworkLinks.createOrUpdate(resourceGroup, zone, network.name, {
      location: "global",
      registrationEnabled: false,
      virtualNetwork: { id: this.#networkId },
    });
    await this.#networks.privateEndpoints.createOrUpdate(resourceGroup, name, {
      location,
      subnet: { id: this.#subnetId },
      privateLinkServiceConnections: [{ name, privateLinkServiceId: targetId, groupIds: [groupId] }],
    });
    await this.#networks.privateDnsZoneGroups.createOrUpdate(resourceGroup, name, "default", {
      privateDnsZoneConfigs: [{ name: "zone", privateDnsZoneId: zoneCreated.id ?? "" }],
    });
    const endpoint = await this.#networks.privateEndpoints.get(resourceGroup, name);
    assert.equal(endpoint.privateLinkServiceConnections?.[0]?.privateLinkServiceConnectionState?.status, "Approved");
    const records = await collect(this.#zones.recordSets.listByType(resourceGroup, zone, "A"));
    assert.ok(records.length > 0);
    return (endpoint.customDnsConfigs ?? []).map(({ fqdn = "", ipAddresses = [] }) => ({ name: fqdn, addresses: ipAddresses }));
  }

  #doorOf(kind: "vault" | "storage", domain: string): { name: string; targetId: string; groupId: string; zone: string } {
    switch (kind) {
      case "vault":
        return {
          name: `${this.#wish.vault}-pe`,
          targetId: this.#vaultId,
          groupId: "AzureSiteRecovery",
          zone: `privatelink.siterecovery.${domain}`,
        };
      case "storage":
        return { name: `${this.#wish.account}-pe`, targetId: this.#accountId, groupId: "blob", zone: `privatelink.blob.${domain}` };
    }
  }
}
