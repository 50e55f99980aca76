// Recovery plans by Microsoft's client: two groups of machines, a test and its clean-up, a change, the migration and its commit.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  SiteRecoveryManagementClient,
  type RecoveryPlanInMageAzureV2FailoverInput,
  type VMwareDetails,
} from "@azure/arm-recoveryservices-siterecovery";
import { startRig } from "./rig.ts";

const instanceType = "InMageAzureV2";
const plan = "two-waves";
const failoverDirection = "PrimaryToRecovery";
const latest: RecoveryPlanInMageAzureV2FailoverInput = { instanceType, recoveryPointType: "Latest" };

test("a recovery plan moves its groups one after the other", async () => {
  await using rig = await startRig({ machines: 4 });
  const client = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const vault = [rig.vault, rig.resourceGroup] as const;
  const plans = client.replicationRecoveryPlans;
  const fabric = (await client.replicationFabrics.list(...vault).next()).value;
  const container = [...vault, fabric?.name ?? "", `cloud_${fabric?.name ?? ""}`] as const;
  const custom = fabric?.properties?.customDetails;
  assert.ok(custom?.instanceType === "VMware");
  const { runAsAccounts } = custom as VMwareDetails; // instanceType says so.
  const runAsAccountId = runAsAccounts?.find(({ accountName }) => accountName === "root")?.accountId ?? "";
  const policy = (await client.replicationPolicies.list(...vault).next()).value;
  const ids: string[] = [];
  for await (const machine of client.replicationProtectableItems.listByReplicationProtectionContainers(...container)) {
    const details = { instanceType, runAsAccountId, storageAccountId: "", targetAzureNetworkId: "landing" } as const;
    const properties = { policyId: policy?.id ?? "", protectableItemId: machine.id ?? "", providerSpecificDetails: details };
    const item = await client.replicationProtectedItems.beginCreateAndWait(...container, machine.name ?? "", { properties });
    ids.push(item.id ?? "");
  }
  const groups = [ids.slice(0, 2), ids.slice(2)].map((each) => ({
    groupType: "Boot",
    replicationProtectedItems: each.map((id) => ({ id })),
    startGroupActions: [],
    endGroupActions: [],
  }));
  const fabrics = { primaryFabricId: fabric?.id ?? "", recoveryFabricId: "Microsoft Azure" };
  const made = await plans.beginCreateAndWait(...vault, plan, { properties: { ...fabrics, groups } });
  assert.deepEqual(made.properties?.allowedOperations, ["TestFailover", "UnplannedFailover"]);
  assert.equal((await plans.list(...vault).next()).value?.name, plan);
  const changed = await plans.beginUpdateAndWait(...vault, plan, { properties: { groups: groups.toReversed() } });
  assert.equal(changed.properties?.groups?.[0]?.replicationProtectedItems?.[0]?.id, ids[2]);

  const tested = await plans.beginTestFailoverAndWait(...vault, plan, {
    properties: { failoverDirection, networkType: "NoNetworkAttachAsInput", providerSpecificDetails: [latest] },
  });
  assert.deepEqual(tested.properties?.allowedOperations, ["TestFailoverCleanup"]);
  assert.equal(tested.properties?.currentScenarioStatus, "Succeeded");
  assert.ok(tested.properties?.lastTestFailoverTime instanceof Date);
  await plans.beginTestFailoverCleanupAndWait(...vault, plan, { properties: { comments: "looked well" } });
  await assert.rejects(plans.beginPlannedFailoverAndWait(...vault, plan, { properties: { failoverDirection } }), { statusCode: 405 });
  const migrated = await plans.beginUnplannedFailoverAndWait(...vault, plan, {
    properties: { failoverDirection, sourceSiteOperations: "Required", providerSpecificDetails: [latest] },
  });
  assert.deepEqual(migrated.properties?.allowedOperations, ["Commit", "CancelFailover"]);
  const committed = await plans.beginFailoverCommitAndWait(...vault, plan);
  assert.deepEqual(committed.properties?.allowedOperations, []);
  await plans.beginDeleteAndWait(...vault, plan);
  await assert.rejects(plans.get(...vault, plan), { statusCode: 404 });
});
