// Protected items: enable by PUT, compute and network by PATCH, and the actions of a migration, each of which starts a durable job.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import { sql } from "kysely";
import { parseInput } from "../api/arm-errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import {
  defineAction,
  defineResource,
  type ActionDefinition,
  type ActionOutcome,
  type ArmCall,
  type Desired,
  type ResourceType,
  type WriteOutcome,
} from "../api/resource-type.ts";
import { lockKey } from "../db/locks.ts";
import { presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import { readJob } from "../jobs/job-store.ts";
import { checkEnable } from "./enable-protection.ts";
import { exportDetailsShape, requireExportable } from "./export-point.ts";
import { parseItem, patchItem, readItem, requireOperation, type Item, type ProtectionState } from "./item.ts";
import { probeShape } from "./launch-steps.ts";
import { applianceOf, itemType, provider, vaultOf } from "./names.ts";
import { agentPolicyOf } from "./policy.ts";
import { presentItem } from "./present-item.ts";
import { defaultLandedName } from "./unplanned-failover.ts";
import type { ReplicationFront } from "./world.ts";

const idText = z.string().max(2048);
const instanceType = z.literal(provider, `the provider must be ${provider}`);

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

/** Of UpdateReplicationProtectedItemInput, what has an effect here. */
const patchShape = z.looseObject({
  recoveryAzureVMName: z.string().max(60).optional(),
  recoveryAzureVMSize: z.string().max(100).optional(),
  selectedRecoveryAzureNetworkId: idText.optional(),
  selectedTfoAzureNetworkId: idText.optional(),
});

/** Stored properties after a PATCH are the item's own; a PUT brings an EnableProtectionInput. */
const storedOrEnable = z.record(z.string(), z.unknown());

export function itemResource(front: ReplicationFront): ResourceType {
  return defineResource({
    type: itemType,
    within: "parent",
    isListedUnderAncestors: true,
    canPatch: true,
    properties: storedOrEnable,
    onPut: async (call, desired) => await enable(front, call, desired),
    onPatch: async (call, desired, patch) => await update(front, call, desired, patch),
    onDelete: async (call, resource) => await disable(front, call, resource, { reason: "NotSpecified", isPurge: true }),
    present: async (resource) => await presentItem(front.services, resource),
    actions: actionsOf(front),
  });
}

async function enable(front: ReplicationFront, call: ArmCall, desired: Desired<JsonObject>): Promise<WriteOutcome> {
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
  const jobId = await services.database.db.transaction().execute(async (db) => {
    await lockKey(db, `machine:${infrastructureId}`);
    const machine = await checkEnable(front, { itemId: call.id.text, infrastructureId, runAsAccountId });
    if (machine.smbiosUuid !== "") await lockKey(db, `smbios:${machine.smbiosUuid}`);
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

/** Everything about the landing can be edited until the cut-over begins. Only that part is written: a job may change the rest meanwhile. */
async function update(front: ReplicationFront, call: ArmCall, desired: Desired<JsonObject>, patch: JsonObject): Promise<WriteOutcome> {
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

/** An operation that has succeeded already: ARM's writes of items are always asynchronous. */
async function answerAtOnce({ services }: ReplicationFront, resource: Resource, action: string): Promise<WriteOutcome> {
  const { operationId } = await services.operations.begin({ resourceId: resource.id.text, action });
  const now = await services.resources.get(resource.id);
  await services.operations.succeed(operationId, presentResource(now, itemType, await presentItem(services, now)));
  return { kind: "accepted", operationId };
}

const testBody = z.object({
  properties: z.looseObject({
    networkType: z.string().max(100).optional(),
    networkId: idText.optional(),
    providerSpecificDetails: z
      .looseObject({
        instanceType,
        recoveryPointId: idText.optional(),
        probe: probeShape.optional(),
        network: z.string().max(200).optional(),
      })
      .optional(),
  }),
});
const cleanupBody = z.object({ properties: z.looseObject({ comments: z.string().max(1000).optional() }).optional() });
const failoverBody = z.object({
  properties: z.looseObject({
    sourceSiteOperations: z.enum(["Required", "NotRequired"]).default("Required"),
    providerSpecificDetails: z.looseObject({
      instanceType,
      recoveryPointId: idText.optional(),
      network: z.string().max(200).optional(),
      probe: probeShape.optional(),
    }),
  }),
});
/** Ours: ARM has no word for disks as files. */
const exportBody = z.object({ properties: z.looseObject({ providerSpecificDetails: exportDetailsShape.extend({ instanceType }) }) });
const removeBody = z.object({
  properties: z.looseObject({ disableProtectionReason: z.enum(["NotSpecified", "MigrationComplete"]).default("NotSpecified") }).optional(),
});

function actionsOf(front: ReplicationFront): Readonly<Record<string, ActionDefinition>> {
  return {
    testFailover: defineAction({ body: testBody, run: async (call, body, resource) => await test(front, call, body.properties, resource) }),
    testFailoverCleanup: defineAction({
      body: cleanupBody,
      run: async (call, body, resource) => await cleanUp(front, call, body.properties?.comments ?? "", resource),
    }),
    unplannedFailover: defineAction({
      body: failoverBody,
      run: async (call, body, resource) => await migrate(front, call, body.properties, resource),
    }),
    failoverCommit: defineAction({
      body: z.unknown(),
      run: async (call, _body, resource) =>
        await finish(front, call, resource, { operation: "Commit", kind: "CommitFailover", state: "CommitFailoverInProgressOnRecovery" }),
    }),
    failoverCancel: defineAction({
      body: z.unknown(),
      run: async (call, _body, resource) =>
        await finish(front, call, resource, {
          operation: "CancelFailover",
          kind: "CancelFailover",
          state: "CancelFailoverInProgressOnRecovery",
        }),
    }),
    export: defineAction({
      body: exportBody,
      run: async (call, body, resource) => await exportPoint(front, call, body.properties.providerSpecificDetails, resource),
    }),
    remove: defineAction({
      body: removeBody,
      run: async (call, body, resource) =>
        await disable(front, call, resource, { reason: body.properties?.disableProtectionReason ?? "NotSpecified", isPurge: false }),
    }),
  };
}

/** Who asks for an operation of an item: a call, or a job that runs it as one of several. */
interface ItemCall extends Pick<ArmCall, "id"> {
  readonly caller: Pick<ArmCall["caller"], "name">;
  /** Of the operation's job: the same id again changes nothing. */
  readonly jobId?: string;
  /** The transaction of who asks, which commits only while it may; one of its own unless told. */
  readonly write?: (task: (db: Queryable) => Promise<string>) => Promise<string>;
}

async function test(
  front: ReplicationFront,
  call: ItemCall,
  body: z.infer<typeof testBody>["properties"],
  resource: Resource,
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, "TestFailover", "test the migration of");
  const details = body.providerSpecificDetails;
  const pointId = toPointId(details?.recoveryPointId);
  const networkId = details?.network ?? body.networkId ?? (body.networkType === "VmNetworkAsInput" ? item.target.testNetworkId : undefined);
  const parameters = {
    ...(pointId === undefined ? {} : { pointId }),
    ...(networkId === undefined ? {} : { networkId }),
    ...(details?.probe === undefined ? {} : { probe: details.probe }),
  };
  return await start(front, call, item, "TestFailover", parameters, { testFailoverState: "TestMigrationInProgress" });
}

async function cleanUp(front: ReplicationFront, call: ItemCall, comments: string, resource: Resource): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, "TestFailoverCleanup", "clean up the test of");
  const parameters = { landedName: item.test?.landedName ?? "", comments };
  return await start(front, call, item, "TestFailoverCleanup", parameters, { testFailoverState: "TestMigrationCleanupInProgress" });
}

async function migrate(
  front: ReplicationFront,
  call: ItemCall,
  body: z.infer<typeof failoverBody>["properties"],
  resource: Resource,
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, "UnplannedFailover", "migrate");
  const details = body.providerSpecificDetails;
  if (body.sourceSiteOperations === "NotRequired" || details.recoveryPointId !== undefined)
    throw new Fault(
      "InputInvalid",
      `could not migrate ${item.machineName}: a migration always makes a final point and switches the source off`,
      {
        evidence: { sourceSiteOperations: body.sourceSiteOperations, recoveryPointId: details.recoveryPointId ?? "none" },
        action: "call with sourceSiteOperations Required and without recoveryPointId; for an older point make a test migration",
      },
    );
  const networkId = details.network ?? item.target.networkId;
  if (networkId === undefined || networkId === "")
    throw new Fault("InputInvalid", `could not migrate ${item.machineName}: no network was named`, {
      action: "set the network on the item (PATCH selectedRecoveryAzureNetworkId) or give it with the call",
    });
  const landedName = defaultLandedName(item);
  const parameters = { ...machineOf(item), networkId, landedName, ...(details.probe === undefined ? {} : { probe: details.probe }) };
  return await start(front, call, item, "UnplannedFailover", parameters, { protectionState: "UnplannedFailoverInitiated" });
}

async function exportPoint(
  front: ReplicationFront,
  call: ItemCall,
  details: z.infer<typeof exportBody>["properties"]["providerSpecificDetails"],
  resource: Resource,
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireExportable(item);
  const { format, isHydrated, recoveryPointId } = details;
  const pointId = toPointId(recoveryPointId);
  return await start(front, call, item, "ExportPoint", { format, isHydrated, ...(pointId === undefined ? {} : { pointId }) }, {});
}

async function finish(
  front: ReplicationFront,
  call: ItemCall,
  resource: Resource,
  end: { readonly operation: string; readonly kind: string; readonly state: ProtectionState },
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, end.operation, end.operation === "Commit" ? "commit the migration of" : "cancel the migration of");
  const parameters = { ...machineOf(item), landedName: item.failover?.landedName ?? defaultLandedName(item) };
  return await start(front, call, item, end.kind, parameters, { protectionState: end.state });
}

async function disable(
  front: ReplicationFront,
  call: ItemCall,
  resource: Resource,
  how: { readonly reason: string; readonly isPurge: boolean },
): Promise<{ readonly kind: "accepted"; readonly operationId: string }> {
  const item = parseItem(resource.properties);
  requireOperation(item, how.reason === "MigrationComplete" ? "CompleteMigration" : "DisableProtection", "stop the replication of");
  const { applianceId, machineId } = item;
  const parameters = { applianceId, ...how, ...(machineId === undefined ? {} : { machineId }) };
  return await start(front, call, item, "DisableProtection", parameters, { protectionState: "DisablingProtection" });
}

/** The state and the job change together; the operation is checked again under the item's lock. */
async function start(
  front: ReplicationFront,
  call: ItemCall,
  item: Item,
  kind: string,
  parameters: object,
  change: Partial<Item>,
): Promise<{ readonly kind: "accepted"; readonly operationId: string }> {
  const { services, engine } = front;
  const startTime = toTimestamp(services.clock.nowMs());
  const submit = async (db: Queryable): Promise<string> => {
    await lockKey(db, `item:${call.id.key}`);
    if (call.jobId !== undefined && (await readJob(db, call.jobId)) !== undefined) return call.jobId;
    const now = await readItem(db, call.id);
    if (now.protectionState !== item.protectionState || now.testFailoverState !== item.testFailoverState)
      throw new Fault("StateConflict", `could not change ${item.machineName}: another operation began meanwhile`, { retry: "now" });
    const job = { kind, ...jobTarget(call.id, item.machineName, call.caller.name), parameters: { itemId: call.id.text, ...parameters } };
    const jobId = await engine.submit({ ...job, ...(call.jobId === undefined ? {} : { jobId: call.jobId }) }, db);
    await patchItem(db, call.id, { ...change, scenario: { scenarioName: kind, jobId, startTime } });
    return jobId;
  };
  const operationId = await (call.write?.(submit) ?? services.database.db.transaction().execute(submit));
  return { kind: "accepted", operationId };
}

function jobTarget(
  id: ResourceId,
  targetName: string,
  actor: string,
): { readonly scope: string; readonly targetId: string; readonly targetName: string; readonly lockKey: string; readonly actor: string } {
  return { scope: vaultOf(id).key, targetId: id.text, targetName, lockKey: id.key, actor };
}

function machineOf(item: Item): { readonly applianceId: string; readonly machineId: string } {
  if (item.machineId === undefined) throw new Error("assertion failed: a protected item has its machine's id");
  return { applianceId: item.applianceId, machineId: item.machineId };
}

/** A recovery point's id as ARM gives it, or its last segment alone. */
function toPointId(text: string | undefined): string | undefined {
  const name = text?.split("/").at(-1)?.toLowerCase();
  if (name === undefined || name === "") return undefined;
  if (pointIdShape.safeParse(name).success) return name;
  throw new Fault("InputInvalid", "could not read the recovery point's id", { evidence: { recoveryPointId: name.slice(0, 100) } });
}
