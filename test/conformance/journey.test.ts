// The article's whole journey, driven by Microsoft's unmodified SDKs against a hub.

import { test } from "node:test";
import { migrateBySdk } from "./journey/migration.ts";
import { startRig } from "./rig.ts";

test("the whole journey by unmodified SDKs", async (t) => {
  await using rig = await startRig({ machines: 2 });
  const networkId = `/subscriptions/${rig.subscriptionId}/resourceGroups/${rig.resourceGroup}/providers/Microsoft.Network/virtualNetworks/landing`;
  const { resourceGroup, vault } = rig;
  await migrateBySdk(t, { rig, resourceGroup, vault, networkId, machine: "web-01", account: "root", secondsMax: 30 });
});
