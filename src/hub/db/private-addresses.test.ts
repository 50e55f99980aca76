// Addresses of private endpoints, when several groups declare the same network.

import assert from "node:assert/strict";
import { test } from "node:test";
import { startTestCluster } from "../test-hub.ts";
import { openPrivateAddresses } from "./private-addresses.ts";

test("an address is given once, also where virtual networks of two groups stand for one network", async () => {
  await using cluster = await startTestCluster();
  await using database = await cluster.openFreshDatabase();
  const addresses = openPrivateAddresses(database);
  const candidates = ["127.70.0.4", "127.70.0.5", "127.70.0.6"];
  const allocate = async (group: string, members: readonly string[]): Promise<readonly string[]> => {
    const place = `/subscriptions/s/resourceGroups/${group}/providers/Microsoft.Network`;
    const wanted = { subnetId: `${place}/virtualNetworks/landing/subnets/default`, endpointId: `${place}/privateEndpoints/pe` };
    return [...(await addresses.allocate({ ...wanted, members, candidates })).values()];
  };
  assert.deepEqual(await allocate("one", ["a", "b"]), ["127.70.0.4", "127.70.0.5"]);
  assert.deepEqual(await allocate("two", ["a"]), ["127.70.0.6"]);
  assert.deepEqual(await allocate("one", ["a", "b"]), ["127.70.0.4", "127.70.0.5"]);
  await assert.rejects(allocate("three", ["a"]), { code: "AddressRangeFull" });
});
