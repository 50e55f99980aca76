// The article's journey, from an empty subscription to the machine that has moved, by Microsoft's unmodified SDKs.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ComputeManagementClient } from "@azure/arm-compute";
import { useMachineBySdk } from "./journey/landed-machine.ts";
import { openZone } from "./journey/landing-zone.ts";
import { migrateBySdk } from "./journey/migration.ts";
import { openJourneySite } from "./journey/site.ts";
import { collect } from "./journey/wait-until.ts";
import { startRig } from "./rig.ts";

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
  await useMachineBySdk(t, { rig, ...place, landedName });
});
