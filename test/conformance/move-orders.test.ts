// The orders of `watari move`, one after the other, as it sends them: the hub takes every one of them.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { z } from "zod";
import { systemClock } from "../../src/base/clock.ts";
import { ArmClient } from "../../src/cli/arm-client.ts";
import { findProtectable } from "../../src/cli/move/hub-view.ts";
import { giveUp, ItemJobs } from "../../src/cli/move/item-jobs.ts";
import { listProtectable } from "../../src/cli/machine-shapes.ts";
import { vaultPath } from "../../src/cli/vault.ts";
import { startRig, type Rig } from "./rig.ts";

const policy = "move";
const tell = (): void => undefined;

async function openDesk({ facts }: Rig): Promise<ArmClient> {
  const { endpoint, authority, caFile, tenantId, clientId, clientSecret, subscriptionId, resourceGroup } = facts;
  const hub = { managementUrl: endpoint, loginUrl: authority, tenantId, subscriptionId, caPem: await readFile(caFile, "utf8") };
  return new ArmClient({ profile: { ...hub, clientId, clientSecret, resourceGroup, location: "lab1" }, clock: systemClock });
}

const fabricsShape = z.array(
  z.looseObject({
    properties: z.looseObject({
      customDetails: z.looseObject({ runAsAccounts: z.array(z.looseObject({ accountId: z.string(), accountName: z.string() })) }),
    }),
  }),
);

/** The login into guests that the simulated site keeps. */
async function rootAccountOf(arm: ArmClient, vault: string): Promise<string> {
  const fabrics = fabricsShape.parse(await arm.list(`${vaultPath(arm.groupPath, vault)}/replicationFabrics`));
  const accounts = fabrics.flatMap(({ properties }) => properties.customDetails.runAsAccounts);
  return accounts.find(({ accountName }) => accountName === "root")?.accountId ?? "";
}

test("the hub takes every order of a move: protect, test, clean up, cut over, cancel, commit, complete, and giving up", async () => {
  await using rig = await startRig({ machines: 2, paceSeconds: 0.05 });
  await using arm = await openDesk(rig);
  await arm.change("PUT", `${vaultPath(arm.groupPath, rig.vault)}/replicationPolicies/${policy}`, {
    properties: { providerSpecificInput: { instanceType: "InMageAzureV2", multiVmSyncStatus: "Disable" } },
  });
  const machines = await listProtectable(arm, rig.vault);
  const [moved, givenUp] = machines.map(({ name }) => name);
  assert.ok(moved !== undefined && givenUp !== undefined);

  const runAsAccountId = await rootAccountOf(arm, rig.vault);
  const jobs = new ItemJobs(arm, moved);
  const protect = async (of: ItemJobs, name: string): Promise<void> => {
    const ids = await findProtectable(arm, name);
    assert.ok(ids !== undefined);
    await of.enable(ids.itemId, { protectableItemId: ids.protectableId, policy, specific: { runAsAccountId } }, tell);
  };
  await protect(jobs, moved);
  const toCloud = { failoverDirection: "PrimaryToRecovery" };
  await jobs.act(await jobs.find(), { action: "testFailover", properties: { ...toCloud, networkType: "NoNetworkAttachAsInput" } }, tell);
  await jobs.act(await jobs.find(), { action: "testFailoverCleanup", properties: { comments: "watari move" } }, tell);
  const cutOver = {
    action: "unplannedFailover",
    properties: { ...toCloud, sourceSiteOperations: "Required" },
    specific: { network: "landing" },
  };
  await jobs.act(await jobs.find(), cutOver, tell);
  await jobs.act(await jobs.find(), { action: "failoverCancel" }, tell);
  await jobs.act(await jobs.find(), cutOver, tell);
  await jobs.act(await jobs.find(), { action: "failoverCommit" }, tell);
  await jobs.remove(await jobs.find(), "MigrationComplete", tell);
  assert.equal(await jobs.find(), undefined, "a completed move leaves no item");

  const other = new ItemJobs(arm, givenUp);
  await protect(other, givenUp);
  await giveUp(other, tell);
  assert.equal(await other.find(), undefined);
});
