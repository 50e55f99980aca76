// PATCH of a protected item: how the machine lands, until its migration begins.

import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import type { ArmCall, Desired, WriteOutcome } from "../api/resource-type.ts";
import { lockKey } from "../db/locks.ts";
import type { JsonObject } from "../db/resources.ts";
import { changeSettings, changeShape } from "./item-settings.ts";
import { keepUnlockKeys } from "./launch-settings.ts";
import { answerAtOnce } from "./item-start.ts";
import { requireSubnet } from "./item-enable.ts";
import { parseItem, patchedItem, readItem, type ProtectionState } from "./item.ts";
import { vaultOf } from "./names.ts";
import { requireNames } from "./part-names.ts";
import type { ReplicationFront } from "./world.ts";

/** Everything about the landing can be edited until the cut-over begins. Only that part is written: a job may change the rest meanwhile. */
export async function update(
  front: ReplicationFront,
  call: ArmCall,
  desired: Desired<JsonObject>,
  patch: JsonObject,
): Promise<WriteOutcome> {
  const { existing } = desired;
  if (existing === undefined) throw new Error("assertion failed: PATCH finds the item");
  const change = parseInput(changeShape, patch, "how the machine lands", "properties");
  const subnetNames = (change.vmNics ?? [])
    .flatMap((nic) => nic.ipConfigs ?? [])
    .map(({ recoverySubnetName, tfoSubnetName }) => ({ recoverySubnetName, tfoSubnetName }));
  const vault = vaultOf(call.id);
  const { target: before } = parseItem(existing.properties);
  for (const { recoverySubnetName, tfoSubnetName } of subnetNames) {
    const networkId = change.selectedRecoveryAzureNetworkId ?? before.networkId;
    await requireSubnet(front, { networkId, subnetName: recoverySubnetName, vault });
    const testNetworkId = change.selectedTfoAzureNetworkId ?? before.testNetworkId;
    await requireSubnet(front, { networkId: testNetworkId, subnetName: tfoSubnetName, vault });
  }
  return await front.services.database.db.transaction().execute(async (db) => {
    await lockKey(db, `item:${call.id.key}`);
    const item = await readItem(db, call.id);
    const { target, protectionState } = item;
    if (!editableStates.has(protectionState))
      throw new Fault("StateConflict", `could not change how ${item.machineName} lands: it is ${protectionState}`, {
        evidence: { protectionState },
        retry: "never",
      });
    const settings = changeSettings(item.settings, change, {
      applianceId: item.applianceId,
      groupId: vault.parentText,
      diskIds: (item.facts?.disks ?? []).map(({ diskId }) => diskId),
      nicIds: (item.facts?.nics ?? []).map(({ name }) => name),
    });
    await requireNames(db, call.id, settings);
    const unlockKeys = change.providerSpecificDetails?.unlockKeys;
    if (unlockKeys !== undefined) await keepUnlockKeys(db, front.services.secrets, call.id.text, unlockKeys);
    const changed = await patchedItem(db, call.id, {
      settings,
      target: {
        ...target,
        name: change.recoveryAzureVMName ?? target.name,
        size: change.recoveryAzureVMSize ?? target.size,
        resourceGroupId: change.providerSpecificDetails?.recoveryAzureV2ResourceGroupId ?? target.resourceGroupId,
        networkId: change.selectedRecoveryAzureNetworkId ?? target.networkId,
        testNetworkId: change.selectedTfoAzureNetworkId ?? target.testNetworkId,
      },
    });
    return await answerAtOnce(front, changed, "UpdateVmProperties", db);
  });
}

const editableStates: ReadonlySet<ProtectionState> = new Set(["Protected", "InitialReplicationInProgress", "EnablingProtection"]);
