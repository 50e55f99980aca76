// A vault that nobody told its storage account: the role that its identity got is what tells.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { systemRandom } from "../../base/random.ts";
import { codeOf, createLandingZone, findFreePort, loopbackNetwork, openTestHub } from "../test-client.ts";

const vaultShape = z.object({
  identity: z.object({ principalId: z.string() }),
  properties: z.looseObject({ watariStorageAccountId: z.string().optional() }),
});

test("a vault takes the only account that its identity may write to, and refuses to choose between two", async (t) => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-hub-"));
  t.after(async () => await rm(stateDir, { recursive: true, force: true }));
  const cidr = loopbackNetwork();
  const hub = await openTestHub({ stateDir, cidr, endpointPort: await findFreePort() });
  await using _running = hub.hub;
  const { storageId, vaultIds } = await createLandingZone(hub, cidr, ["first", "second"], "role");
  const [first = "", second = ""] = vaultIds;
  const vaultOf = async (id: string): Promise<z.infer<typeof vaultShape>> => vaultShape.parse((await hub.arm("GET", id)).body);
  assert.equal((await vaultOf(first)).properties.watariStorageAccountId, undefined);
  assert.equal((await hub.arm("POST", `${first}/registrationKeys`, {})).status, 200);
  assert.equal((await vaultOf(first)).properties.watariStorageAccountId, storageId);
  const otherId = `${hub.groupPath}/providers/Microsoft.Storage/storageAccounts/packs2`;
  await hub.arm("PUT", otherId, { location: "lab1", kind: "StorageV2", sku: { name: "Standard_LRS" }, properties: {} });
  const { principalId } = (await vaultOf(second)).identity;
  const roleDefinitionId = "/providers/Microsoft.Authorization/roleDefinitions/ba92f5b4-2d11-453d-a403-e96b0029c9fe";
  const assignment = `${otherId}/providers/Microsoft.Authorization/roleAssignments/${systemRandom.uuid()}`;
  assert.equal((await hub.arm("PUT", assignment, { properties: { principalId, roleDefinitionId } })).status, 201);
  assert.equal(codeOf(await hub.arm("POST", `${second}/registrationKeys`, {})), "StateConflict");
  assert.equal((await vaultOf(second)).properties.watariStorageAccountId, undefined);
});
