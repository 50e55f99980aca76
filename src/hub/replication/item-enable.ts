// PUT of a protected item: begins its protection, once, however often it is called.

import { sql } from "kysely";
import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { ArmCall, Desired, WriteOutcome } from "../api/resource-type.ts";
import { lockKey } from "../db/locks.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import { checkMachine, refuseProtected } from "./enable-protection.ts";
import { idText, instanceType } from "./item-bodies.ts";
import { answerAtOnce, jobTarget } from "./item-start.ts";
import { parseItem, type Item } from "./item.ts";
import { applianceOf, itemType, vaultOf } from "./names.ts";
import { agentPolicyOf } from "./policy.ts";
import type { ReplicationFront } from "./world.ts";

const enableShape = z.looseObject({
  policyId: idText.optional(),
  protectableItemId: idText,
  providerSpecificDetails: z.looseObject({
    instanceType,
    runAsAccountId: z.string().max(64),
    address: z.string().max(253).optional(),
    targetAzureVmName: z.string().max(60).optional(),
    targetVmSize: z.string().max(100).optional(),
    targetAzureNetworkId: idText.optional(),
    targetAzureV2ResourceGroupId: idText.optional(),
  }),
});

export async function enable(front: ReplicationFront, call: ArmCall, desired: Desired<JsonObject>): Promise<WriteOutcome> {
  const { services, engine } = front;
  const wish = parseInput(enableShape, desired.properties, "what to protect");
  const infrastructureId = parseResourceId(wish.protectableItemId).name;
  if (desired.existing !== undefined) {
    const present = await answerPresent(front, desired.existing, infrastructureId);
    if (present !== undefined) return present;
  }
  const details = wish.providerSpecificDetails;
  const { runAsAccountId, address } = details;
  const vault = vaultOf(call.id);
  const policyId = parseResourceId(wish.policyId ?? `${vault.text}/replicationPolicies/default`);
  const policy = await agentPolicyOf(services, policyId);
  const startTime = toTimestamp(services.clock.nowMs());
  const machine = await checkMachine(front, { itemId: call.id.text, infrastructureId, runAsAccountId });
  const jobId = await services.database.db.transaction().execute(async (db) => {
    await lockKey(db, `machine:${infrastructureId}`);
    if (machine.smbiosUuid !== "") await lockKey(db, `smbios:${machine.smbiosUuid}`);
    await refuseProtected(db, call.id.text, machine);
    const id = await engine.submit(
      {
        kind: "EnableProtection",
        ...jobTarget(call.id, machine.name, call.caller.name),
        parameters: { itemId: call.id.text, infrastructureId, runAsAccountId, policy, ...(address === undefined ? {} : { address }) },
      },
      db,
    );
    const item: Item = {
      infrastructureId,
      applianceId: applianceOf(call.id),
      machineName: machine.name,
      smbiosUuid: machine.smbiosUuid,
      runAsAccountId,
      address,
      policyName: policyId.name,
      protectionState: "EnablingProtection",
      testFailoverState: "None",
      target: {
        name: details.targetAzureVmName,
        size: details.targetVmSize,
        networkId: details.targetAzureNetworkId,
        resourceGroupId: details.targetAzureV2ResourceGroupId,
      },
      providerInput: details,
      excludedDiskIds: [],
      faults: [],
      scenario: { scenarioName: "EnableProtection", jobId: id, startTime },
    };
    await insertItem(db, call.id, item);
    return id;
  });
  return { kind: "accepted", operationId: jobId };
}

/** The same PUT again: the job that the first one began, or what it made; undefined when the first one failed and shall begin anew. */
async function answerPresent(front: ReplicationFront, existing: Resource, infrastructureId: string): Promise<WriteOutcome | undefined> {
  const item = parseItem(existing.properties);
  if (item.infrastructureId !== infrastructureId) refuseSecond(existing, item);
  if (item.protectionState === "EnablingFailed") {
    if (item.machineId !== undefined) refuseSecond(existing, item); // What it put on the machine could not be taken back.
    return undefined;
  }
  const { scenario } = item;
  if (scenario?.scenarioName === "EnableProtection") return { kind: "accepted", operationId: scenario.jobId };
  return await answerAtOnce(front, existing, "EnableProtection");
}

function refuseSecond(existing: Resource, item: Item): never {
  throw new Fault("AlreadyProtected", `could not enable replication: the item ${existing.id.name} is ${item.machineName}'s already`, {
    evidence: { protectedItemId: existing.id.text, protectionState: item.protectionState },
    action:
      item.protectionState === "EnablingFailed" ? "remove the item (disable its replication), then enable again" : "use the item as it is",
  });
}

/** Puts a new item, also in the place of one whose enabling failed and left nothing behind. */
async function insertItem(db: Queryable, id: ResourceId, item: Item): Promise<void> {
  const inserted = await sql`insert into resources
      (key, id, type, name, parent_key, location, envelope, properties, provisioning_state, etag, created_at, updated_at)
    values (${id.key}, ${id.text}, ${itemType.toLowerCase()}, ${id.name}, ${id.parentKey}, null, '{}', ${JSON.stringify(item)}::jsonb,
      'Succeeded', '"' || gen_random_uuid() || '"', clock_timestamp(), clock_timestamp())
    on conflict (key) do update set properties = excluded.properties, etag = excluded.etag, updated_at = excluded.updated_at
      where resources.properties->>'protectionState' = 'EnablingFailed' and not resources.properties ? 'machineId'
    returning key`.execute(db);
  if (inserted.rows.length === 0)
    throw new Fault("AlreadyProtected", "could not enable replication: the item was made meanwhile", {
      evidence: { protectedItemId: id.text },
    });
}
