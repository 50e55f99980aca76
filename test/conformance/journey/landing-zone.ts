// The journey's landing zone, and its vault by Microsoft's client: from an empty group to a key for an appliance.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { RecoveryServicesClient } from "@azure/arm-recoveryservices";
import { systemClock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { ArmClient } from "../../../src/cli/arm-client.ts";
import type { NamedAddress } from "../../../src/cli/private-endpoint.ts";
import { registrationKeyShape, type RegistrationKey } from "../../../src/contract/appliance-protocol.ts";
import { createLandingZone } from "../../../src/sim/landing-zone.ts";
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
  /** The only way to the hub's public names; absent: they are reached directly. */
  readonly proxy?: string;
}

export interface Zone {
  readonly networkId: string;
  readonly key: RegistrationKey;
  /** Private names of the vault and its storage account. */
  readonly hosts: readonly NamedAddress[];
}

export async function openZone(wish: ZoneWish): Promise<Zone> {
  const { rig, resourceGroup, location, vault, account, network, proxy } = wish;
  const { endpoint: managementUrl, authority: loginUrl, caFile } = rig.facts;
  const way = proxy === undefined ? {} : { proxy };
  const profile = { ...rig.facts, managementUrl, loginUrl, caPem: await readFile(caFile, "utf8"), resourceGroup, location, ...way };
  await using arm = new ArmClient({ profile, clock: systemClock });
  const names = { network: network.name, subnet: network.subnet, account, vault };
  const { vaultId, names: hosts } = await createLandingZone(arm, { names, cidr: network.cidr, random: systemRandom });
  await checkVault(wish);
  // Azure hands this file out in its portal alone; no client has a call for it.
  const key = registrationKeyShape.parse(await arm.change("POST", `${vaultId}/registrationKeys`, {}));
  return { networkId: `${arm.groupPath}/providers/Microsoft.Network/virtualNetworks/${network.name}`, key, hosts };
}

/** Microsoft's client creates the vault once more, without what it does not know; that stays as it is. */
async function checkVault({ rig, resourceGroup, vault, location }: ZoneWish): Promise<void> {
  const vaults = new RecoveryServicesClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const created = await vaults.vaults.createOrUpdate(resourceGroup, vault, {
    location,
    sku: { name: "RS0", tier: "Standard" },
    identity: { type: "SystemAssigned" },
    properties: { publicNetworkAccess: "Disabled" },
  });
  assert.equal(created.properties?.publicNetworkAccess, "Disabled");
  assert.ok(created.identity?.principalId !== undefined);
  assert.equal(created.properties?.privateEndpointConnections?.length, 1);
  const groups = await collect(vaults.privateLinkResources.list(resourceGroup, vault));
  assert.deepEqual(
    groups.map((group) => group.properties?.groupId),
    ["AzureSiteRecovery"],
  );
  const all = await collect(vaults.vaults.listByResourceGroup(resourceGroup));
  assert.deepEqual(
    all.map(({ name }) => name),
    [vault],
  );
}
