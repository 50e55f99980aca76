// PATCH of a protected item: how the machine lands, until its migration begins.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import type { ArmCall, Desired, WriteOutcome } from "../api/resource-type.ts";
import { lockKey } from "../db/locks.ts";
import type { JsonObject } from "../db/resources.ts";
import { idText } from "./item-bodies.ts";
import { answerAtOnce } from "./item-start.ts";
import { patchItem, readItem, type ProtectionState } from "./item.ts";
import type { ReplicationFront } from "./world.ts";

/** Of UpdateReplicationProtectedItemInput, what has an effect here. */
const patchShape = z.looseObject({
  recoveryAzureVMName: z.string().max(60).optional(),
  recoveryAzureVMSize: z.string().max(100).optional(),
  selectedRecoveryAzureNetworkId: idText.optional(),
  selectedTfoAzureNetworkId: idText.optional(),
});

/** Everything about the landing can be edited until the cut-over begins. Only that part is written: a job may change the rest meanwhile. */
export async function update(
  front: ReplicationFront,
  call: ArmCall,
  desired: Desired<JsonObject>,
  patch: JsonObject,
): Promise<WriteOutcome> {
  const { existing } = desired;
  if (existing === undefined) throw new Error("assertion failed: PATCH finds the item");
  const change = parseInput(patchShape, patch, "how the machine lands");
  await front.services.database.db.transaction().execute(async (db) => {
    await lockKey(db, `item:${call.id.key}`);
    const item = await readItem(db, call.id);
    const { target, protectionState } = item;
    if (!editableStates.has(protectionState))
      throw new Fault("StateConflict", `could not change how ${item.machineName} lands: it is ${protectionState}`, {
        evidence: { protectionState },
        retry: "never",
      });
    await patchItem(db, call.id, {
      target: {
        ...target,
        name: change.recoveryAzureVMName ?? target.name,
        size: change.recoveryAzureVMSize ?? target.size,
        networkId: change.selectedRecoveryAzureNetworkId ?? target.networkId,
        testNetworkId: change.selectedTfoAzureNetworkId ?? target.testNetworkId,
      },
    });
  });
  return await answerAtOnce(front, existing, "UpdateVmProperties");
}

const editableStates: ReadonlySet<ProtectionState> = new Set(["Protected", "InitialReplicationInProgress", "EnablingProtection"]);
