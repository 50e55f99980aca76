// Machines go from one process server of a vault to another and back, by Microsoft's unmodified client.

import assert from "node:assert/strict";
import { it } from "node:test";
import {
  SiteRecoveryManagementClient,
  type InMageAzureV2ReplicationDetails,
  type VMwareDetails,
} from "@azure/arm-recoveryservices-siterecovery";
import { collect } from "./journey/wait-until.ts";
import { startRig } from "./rig.ts";

it("a protected machine is switched to another process server by its fabric, and back by itself", async () => {
  await using rig = await startRig({ machines: 1, appliances: 2 });
  const client = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const vault = [rig.vault, rig.resourceGroup] as const;
  const [first, second] = await collect(client.replicationFabrics.list(...vault));
  const [source, target] = [first?.name ?? "", second?.name ?? ""];
  const container = [...vault, source, `cloud_${source}`] as const;
  const [machine] = await collect(client.replicationProtectableItems.listByReplicationProtectionContainers(...container));
  const site = first?.properties?.customDetails as VMwareDetails | undefined; // The site of the rig is one.
  const runAsAccountId = site?.runAsAccounts?.find(({ accountName }) => accountName === "root")?.accountId ?? "";
  await client.replicationProtectedItems.beginCreateAndWait(...container, "web", {
    properties: {
      protectableItemId: machine?.id ?? "",
      providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId, storageAccountId: "" },
    },
  });
  const serverOf = async (): Promise<string | undefined> => {
    const { properties } = await client.replicationProtectedItems.get(...container, "web");
    const details = properties?.providerSpecificDetails as InMageAzureV2ReplicationDetails | undefined; // As it was enabled.
    return details?.processServerId;
  };
  const pointsOf = async (): Promise<readonly (string | undefined)[]> =>
    (await collect(client.recoveryPoints.listByReplicationProtectedItems(...container, "web"))).map(({ name }) => name);
  assert.equal(await serverOf(), source);
  const before = await pointsOf();
  const fabric = await client.replicationFabrics.beginReassociateGatewayAndWait(...vault, source, {
    properties: {
      containerName: container[3],
      sourceProcessServerId: source,
      targetProcessServerId: target,
      vmsToMigrate: ["web"],
      updateType: "ServerLevel",
    },
  });
  assert.equal(fabric.name, source);
  assert.equal(await serverOf(), target);
  await client.replicationProtectedItems.beginRepairReplicationAndWait(...container, "web");
  const after = await pointsOf();
  assert.ok(after.length > before.length && before.every((name) => after.includes(name)), "its points go on");
  const item = await client.replicationProtectedItems.beginUpdateApplianceAndWait(...container, "web", {
    properties: { targetApplianceId: source, providerSpecificDetails: { instanceType: "InMageRcm" } },
  });
  assert.equal(item.name, "web");
  assert.equal(await serverOf(), source);
});
