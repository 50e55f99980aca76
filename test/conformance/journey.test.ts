// The article's journey, from a new vault to the machine that has moved, by Microsoft's unmodified SDKs.

import { test } from "node:test";
import { openZone, type Zone } from "./journey/landing-zone.ts";
import { migrateBySdk } from "./journey/migration.ts";
import { openJourneySite } from "./journey/site.ts";
import { startRig } from "./rig.ts";

const place = { resourceGroup: "journey", vault: "journey-vault", account: "journeypacks", location: "local" } as const;

test("the journey by unmodified SDKs", async (t) => {
  await using rig = await startRig();
  await using closing = new AsyncDisposableStack();
  const site = await openJourneySite(rig);
  let zone: Zone | undefined;
  await t.test("a vault with an identity, a storage account and private endpoints is made", async () => {
    zone = await openZone({ rig, ...place, ...site });
  });
  if (zone === undefined) return; // Told by the step before.
  const { key, hosts, networkId } = zone;
  await t.test("an appliance registers with the vault's key through the private endpoints", async () => {
    closing.use(await site.register(key, hosts));
  });
  await migrateBySdk(t, { rig, ...place, networkId, ...site });
});
