// PUT of a protected item: begins its protection, once, however often it is called.

import { createHash } from "node:crypto";
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
import { idText } from "./item-bodies.ts";
import { enableDetailsShape, settingsOfEnable } from "./item-settings.ts";
import { answerAtOnce, jobTarget } from "./item-start.ts";
import { parseItem, type Item } from "./item.ts";
import { applianceOf, itemType, vaultOf } from "./names.ts";
import { settingsOfPolicy, toAgentPolicy } from "./policy.ts";
import { groupOfEnable, requireOneGroup } from "./item-group.ts";
import type { ReplicationFront } from "./world.ts";

export const enableShape = z.strictObject({
  policyId: idText.optional(),
  protectableItemId: idText,
  providerSpecificDetails: enableDetailsShape,
});

export async function enable(front: ReplicationFront, call: ArmCall, desired: Desired<JsonObject>): Promise<WriteOutcome> {
  const { services, engine } = front;
  const wish = parseInput(enableShape, desired.properties, "what to protect", "properties");
  const infrastructureId = parseResourceId(wish.protectableItemId).name;
  const wishDigest = createHash("sha256").update(JSON.stringify(wish)).digest("hex");
  if (desired.existing !== undefined) {
    const present = await answerPresent(front, desired.existing, { infrastructureId, wishDigest });
    if (present !== undefined) return present;
  }
  const details = wish.providerSpecificDetails;
  const { runAsAccountId, address } = details;
  const vault = vaultOf(call.id);
  const policyId = parseResourceId(wish.policyId ?? `${vault.text}/replicationPolicies/default`);
  const policySettings = await settingsOfPolicy(services, policyId);
  const group = groupOfEnable(call.id, details, policySettings);
  const startTime = toTimestamp(services.clock.nowMs());
  const machine = await checkMachine(front, { itemId: call.id.text, infrastructureId, runAsAccountId });
  const settings = settingsOfEnable(details, {
    applianceId: applianceOf(call.id),
    groupId: vault.parentText,
    diskIds: machine.disks.map((disk) => disk.uuid ?? disk.label),
    nicIds: [],
  });
  await requireSubnet(front, { networkId: details.targetAzureNetworkId, subnetName: settings.subnetName, vault });
  const jobId = await services.database.db.transaction().execute(async (db) => {
    await lockKey(db, `machine:${infrastructureId}`);
    if (machine.smbiosUuid !== "") await lockKey(db, `smbios:${machine.smbiosUuid}`);
    await refuseProtected(db, call.id.text, machine);
    const id = await engine.submit(
      {
        kind: "EnableProtection",
        ...jobTarget(call.id, machine.name, call.caller.name),
        parameters: {
          itemId: call.id.text,
          infrastructureId,
          runAsAccountId,
          policy: toAgentPolicy(policySettings, group),
          ...(address === undefined ? {} : { address }),
        },
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
      settings,
      group,
      wishDigest,
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
async function answerPresent(
  front: ReplicationFront,
  existing: Resource,
  { infrastructureId, wishDigest }: { readonly infrastructureId: string; readonly wishDigest: string },
): Promise<WriteOutcome | undefined> {
  const item = parseItem(existing.properties);
  if (item.infrastructureId !== infrastructureId) refuseSecond(existing, item);
  const isOther = item.wishDigest !== undefined && item.wishDigest !== wishDigest;
  if (isOther && item.protectionState !== "EnablingFailed") refuseOther(existing, item);
  if (item.protectionState === "EnablingFailed") {
    if (item.machineId !== undefined) refuseSecond(existing, item); // What it put on the machine could not be taken back.
    return undefined;
  }
  const { scenario } = item;
  if (scenario?.scenarioName === "EnableProtection") return { kind: "accepted", operationId: scenario.jobId };
  return await answerAtOnce(front, existing, "EnableProtection");
}

/** A second PUT with other settings would change nothing of them. */
function refuseOther(existing: Resource, item: Item): never {
  throw new Fault("AlreadyProtected", `could not enable replication of ${item.machineName} with other settings: it is protected already`, {
    evidence: { protectedItemId: existing.id.text, protectionState: item.protectionState },
    action: "change how it lands by PATCH of the item; the call that enabled it may be repeated as it was",
  });
}

/** A landing network is one segment; a subnet that its virtual network does not name would be another. */
export async function requireSubnet(
  { services }: ReplicationFront,
  wish: { readonly networkId: string | undefined; readonly subnetName: string | undefined; readonly vault: ResourceId },
): Promise<void> {
  const { networkId, subnetName, vault } = wish;
  if (networkId === undefined || networkId === "" || subnetName === undefined || subnetName === "") return;
  const id = networkId.startsWith("/") ? networkId : `${vault.parentText}/providers/Microsoft.Network/virtualNetworks/${networkId}`;
  const network = await services.resources.find(id);
  const subnets = z.array(z.looseObject({ name: z.string() })).safeParse(network?.properties["subnets"]);
  if (network === undefined || !subnets.success) return; // A landing network that no resource stands for has no subnets to name.
  if (subnets.data.some(({ name }) => name.toLowerCase() === subnetName.toLowerCase())) return;
  throw new Fault("InputInvalid", `could not choose the subnet ${subnetName}: the network ${network.id.name} does not have it`, {
    evidence: { network: network.id.text, subnets: subnets.data.map(({ name }) => name) },
  });
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
  await requireOneGroup(db, id, item);
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
