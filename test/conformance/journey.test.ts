// The article's journey, from an empty subscription to the machine that has moved, by Microsoft's unmodified SDKs.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ComputeManagementClient } from "@azure/arm-compute";
import { NetworkManagementClient } from "@azure/arm-network";
import { useMachineBySdk } from "./journey/landed-machine.ts";
import { openZone } from "./journey/landing-zone.ts";
import { migrateBySdk } from "./journey/migration.ts";
import { openJourneySite } from "./journey/site.ts";
import { collect, waitUntil } from "./journey/wait-until.ts";
import { startRig, type Rig } from "./rig.ts";

const addressSecondsMax = 300;
const place = { resourceGroup: "journey", vault: "journey-vault", account: "journeypacks", location: "local" } as const;

test("the journey by unmodified SDKs", async (t) => {
  await using rig = await startRig();
  await using closing = new AsyncDisposableStack();
  const site = await openJourneySite(rig);
  const { key, hosts, networkId } = await openZone(t, { rig, ...place, ...site });
  await t.test("an appliance registers with the vault's key through the private endpoints", async () => {
    closing.use(await site.register(key, hosts));
  });
  const { landedName } = await migrateBySdk(t, { rig, ...place, networkId, ...site });
  await t.test("the landed machine is seen, and stays", async () => {
    const compute = new ComputeManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
    const landed = await compute.virtualMachines.get(place.resourceGroup, landedName, { expand: "instanceView" });
    assert.equal(landed.name, landedName);
    const statuses = landed.instanceView?.statuses ?? [];
    assert.ok(statuses.some(({ code }) => code === "PowerState/running"));
    const all = await collect(compute.virtualMachines.list(place.resourceGroup));
    assert.deepEqual(
      all.map(({ name }) => name),
      [landedName],
    );
  });
  const { proveLanded } = site;
  if (proveLanded !== undefined)
    await t.test("the landed machine answers by itself, with every record of its source", async (t) => {
      t.diagnostic(await proveLanded(await addressesOf(rig, landedName)));
    });
  await useMachineBySdk(t, { rig, ...place, landedName });
});

/** As the machine's interfaces tell them, once it has taken some. */
async function addressesOf(rig: Rig, landedName: string): Promise<readonly string[]> {
  const compute = new ComputeManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const networks = new NetworkManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const machine = await compute.virtualMachines.get(place.resourceGroup, landedName);
  const names = (machine.networkProfile?.networkInterfaces ?? []).map(({ id }) => id?.split("/").at(-1) ?? "");
  return await waitUntil("an address of the landed machine", addressSecondsMax, async () => {
    const cards = await Promise.all(names.map(async (name) => await networks.networkInterfaces.get(place.resourceGroup, name)));
    const found = cards.flatMap(({ ipConfigurations = [] }) => ipConfigurations.flatMap(({ privateIPAddress = "" }) => privateIPAddress));
    return found.some((address) => address !== "") ? found.filter((address) => address !== "") : undefined;
  });
}
