// Recovery plans as ARM clients write and run them: create, change, remove, and the actions, each of which starts one durable job.

import { sql } from "kysely";
import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import {
  defineAction,
  defineResource,
  noBody,
  type ActionOutcome,
  type ArmCall,
  type ResourceType,
  type WriteOutcome,
} from "../api/resource-type.ts";
import { lockKey } from "../db/locks.ts";
import type { Queryable } from "../jobs/job.ts";
import { readJob } from "../jobs/job-store.ts";
import { recoveryPointTypes } from "./choose-point.ts";
import { chooseGroupPoints, requireMultiVmType } from "./group-points.ts";
import { probeShape } from "./launch-steps.ts";
import { planType, provider, vaultOf } from "./names.ts";
import {
  checkGroups,
  chooseItems,
  groupMachinesAtOnceMax,
  groupsShape,
  itemIdsOf,
  parsePlan,
  patchPlan,
  answerPlan,
  presentPlan,
  readItems,
  readPlan,
  type Plan,
  type PlanAction,
  type PlanItem,
  type PlanOperation,
} from "./plan.ts";
import { planJobKinds, type PlanRun } from "./plan-run.ts";
import type { ReplicationFront } from "./world.ts";

const createShape = z.strictObject({
  primaryFabricId: z.string().max(2048),
  recoveryFabricId: z.string().min(1).max(2048),
  failoverDeploymentModel: z.enum(["NotApplicable", "ResourceManager"]).default("ResourceManager"),
  groups: groupsShape,
  providerSpecificInput: z.array(z.unknown()).max(0, "only plans between Azure regions (A2A) have such input").optional(),
});
const updateShape = z.strictObject({ groups: groupsShape.optional() });

const direction = z.literal("PrimaryToRecovery", "this hub moves machines from their site to the target only").default("PrimaryToRecovery");
/** `probe` is ours, as for a protected item. */
const details = z
  .array(
    z.strictObject({
      instanceType: z.literal(provider, `the provider must be ${provider}`),
      recoveryPointType: z.enum(recoveryPointTypes).optional(),
      useMultiVmSyncPoint: z.enum(["Enable", "Disable"]).optional(),
      probe: probeShape.optional(),
    }),
  )
  .max(1)
  .default([]);
const testBody = z.strictObject({
  properties: z.strictObject({
    failoverDirection: direction,
    networkType: z.enum(["NoNetworkAttachAsInput", "VmNetworkAsInput"]).optional(),
    networkId: z.string().max(2048).optional(),
    providerSpecificDetails: details,
  }),
});
const cleanupBody = z.strictObject({ properties: z.strictObject({ comments: z.string().max(1000).optional() }).default({}) });
const failoverBody = z.strictObject({
  properties: z.strictObject({
    failoverDirection: direction,
    sourceSiteOperations: z.enum(["Required", "NotRequired"]).default("Required"),
    providerSpecificDetails: details,
  }),
});

export function planResource(front: ReplicationFront): ResourceType {
  const { services } = front;
  return defineResource({
    type: planType,
    isBare: true,
    within: "parent",
    canPatch: true,
    properties: z.record(z.string(), z.unknown()),
    inputs: { put: createShape, patch: updateShape },
    onPut: async (call, desired) => {
      const { primaryFabricId, recoveryFabricId, failoverDeploymentModel, groups } = parseInput(
        createShape,
        desired.properties,
        "the recovery plan",
        "properties",
      );
      return await store(front, call, { primaryFabricId, recoveryFabricId, failoverDeploymentModel, groups });
    },
    onPatch: async (call, _desired, patch) => {
      const { groups } = parseInput(updateShape, patch, "the change of the recovery plan", "properties");
      return await store(front, call, groups === undefined ? {} : { groups });
    },
    onDelete: async (call) => {
      await services.database.db.transaction().execute(async (db) => {
        await lockIdle(db, call.id, "remove");
        await sql`delete from resources where key = ${call.id.key}`.execute(db);
      });
      return { kind: "done" };
    },
    present: async (resource) => await presentPlan(services, resource, services.database.db),
    actions: {
      testFailover: defineAction({
        body: testBody,
        run: async (call, { properties }) => {
          const { networkType, networkId, providerSpecificDetails } = properties;
          const network = { ...(networkType === undefined ? {} : { networkType }), ...(networkId === undefined ? {} : { networkId }) };
          return await begin(front, call, "TestFailover", { ...network, ...landingOf(providerSpecificDetails) });
        },
      }),
      testFailoverCleanup: defineAction({
        body: cleanupBody,
        run: async (call, { properties: { comments } }) =>
          await begin(front, call, "TestFailoverCleanup", comments === undefined ? {} : { comments }),
      }),
      unplannedFailover: defineAction({
        body: failoverBody,
        run: async (call, { properties }) => {
          const { sourceSiteOperations, providerSpecificDetails } = properties;
          return await begin(front, call, "UnplannedFailover", { sourceSiteOperations, ...landingOf(providerSpecificDetails) });
        },
      }),
      failoverCommit: defineAction({ body: noBody, run: async (call) => await begin(front, call, "Commit", {}) }),
      failoverCancel: defineAction({ body: noBody, run: async (call) => await begin(front, call, "CancelFailover", {}) }),
      plannedFailover: defineAction({
        isRefused: true,
        body: z.unknown(),
        run: async (call) => refuse(call, "a planned failover", "call unplannedFailover: it makes a final point and loses no write"),
      }),
      reProtect: defineAction({
        isRefused: true,
        body: z.unknown(),
        run: async (call) => refuse(call, "a re-protection", "a migration goes one way; before the commit failoverCancel goes back"),
      }),
    },
  });
}

function refuse({ id }: ArmCall, what: string, action: string): never {
  throw new Fault("OperationNotSupported", `could not begin ${what} of the recovery plan ${id.name}: this hub has none`, {
    evidence: { operations: ["testFailover", "testFailoverCleanup", "unplannedFailover", "failoverCommit", "failoverCancel"] },
    action,
  });
}

function landingOf(wish: z.infer<typeof details>): PlanRun["input"] {
  const { probe, recoveryPointType, useMultiVmSyncPoint } = wish[0] ?? {};
  if (useMultiVmSyncPoint === "Enable") requireMultiVmType(recoveryPointType);
  return {
    ...(probe === undefined ? {} : { probe }),
    ...(recoveryPointType === undefined ? {} : { recoveryPointType }),
    ...(useMultiVmSyncPoint === undefined ? {} : { useMultiVmSyncPoint }),
  };
}

/** Only what the caller states is written: what a run left in the plan stays. */
async function store(front: ReplicationFront, call: ArmCall, change: Partial<Plan>): Promise<WriteOutcome> {
  const { services } = front;
  const { id } = call;
  const body = await services.database.db.transaction().execute(async (db) => {
    const present = await lockIdle(db, id, "change");
    const wish = { ...present, ...change };
    const { groups, primaryFabricId } = wish;
    if (groups === undefined || primaryFabricId === undefined)
      throw new Fault("NotFound", `could not change the recovery plan ${id.name}: it was removed meanwhile`);
    await checkGroups(db, id, { groups, primaryFabricId });
    await sql`insert into resources
        (key, id, type, name, parent_key, location, envelope, properties, provisioning_state, etag, created_at, updated_at)
      values (${id.key}, ${id.text}, ${planType.toLowerCase()}, ${id.name}, ${id.parentKey}, null, '{}', ${JSON.stringify(wish)}::jsonb,
        'Succeeded', '"' || gen_random_uuid() || '"', clock_timestamp(), clock_timestamp())
      on conflict (key) do update set properties = excluded.properties, etag = excluded.etag, updated_at = excluded.updated_at`.execute(db);
    return await answerPlan(services, db, id);
  });
  return { kind: "answered", body };
}

/** Takes turns with runs and writes of the plan; refused while a job of the plan is under way. Answers what is stored. */
async function lockIdle(db: Queryable, id: ResourceId, verb: string): Promise<Plan | undefined> {
  await lockKey(db, `plan:${id.key}`);
  const found = await sql<{ properties: Record<string, unknown> }>`select properties from resources where key = ${id.key}`.execute(db);
  const plan = found.rows[0] === undefined ? undefined : parsePlan(found.rows[0].properties);
  const job = plan?.scenario === undefined ? undefined : await readJob(db, plan.scenario.jobId);
  if (job === undefined || job.endedAt !== undefined) return plan;
  throw new Fault("StateConflict", `could not ${verb} the recovery plan ${id.name}: it is running`, {
    evidence: { jobId: job.jobId, job: job.kind },
  });
}

/** The job and the plan's scenario change together. Machines that the operation has done already are left out. */
async function begin(front: ReplicationFront, call: ArmCall, operation: PlanOperation, input: PlanRun["input"]): Promise<ActionOutcome> {
  const { services, engine } = front;
  const { id } = call;
  const startTime = toTimestamp(services.clock.nowMs());
  const operationId = await services.database.db.transaction().execute(async (db) => {
    await lockIdle(db, id, "run");
    const plan = await readPlan(db, id);
    const items = await readItems(db, itemIdsOf(plan.groups));
    const groups = await withGroupPoints(db, id, { groups: toRun(id, plan, items, operation), items, input });
    const parameters: PlanRun = { planId: id.text, actor: call.caller.name, input, groups };
    const target = { scope: vaultOf(id).key, targetId: id.text, targetName: id.name, lockKey: id.key, actor: call.caller.name };
    const jobId = await engine.submit({ kind: planJobKinds[operation], ...target, parameters }, db);
    await patchPlan(db, id, {
      scenario: { scenarioName: planJobKinds[operation], jobId, startTime },
      scenarioStatus: "InProgress",
      scenarioDescription: "",
      ...(operation === "TestFailover" ? { lastTestFailoverTime: startTime } : {}),
      ...(operation === "UnplannedFailover" ? { lastUnplannedFailoverTime: startTime } : {}),
    });
    return jobId;
  });
  return { kind: "accepted", operationId };
}

/** Chosen once, when the plan is called: waves that begin hours later land at the same moment. */
async function withGroupPoints(
  db: Queryable,
  id: ResourceId,
  run: Pick<PlanRun, "groups" | "input"> & { readonly items: ReadonlyMap<string, PlanItem> },
): Promise<PlanRun["groups"]> {
  const { groups, input, items } = run;
  if (input.useMultiVmSyncPoint !== "Enable") return groups;
  const due = groups.flatMap(({ machines }) => machines.flatMap(({ itemId }) => items.get(itemId.toLowerCase()) ?? []));
  const type = input.recoveryPointType ?? "LatestProcessed";
  const points = await chooseGroupPoints(db, { vaultKey: vaultOf(id).key, items: due, type });
  return groups.map((group) => ({ ...group, machines: group.machines.map((each) => ({ ...each, pointId: points.get(each.itemId) })) }));
}

function toRun(id: ResourceId, plan: Plan, items: ReadonlyMap<string, PlanItem>, operation: PlanOperation): PlanRun["groups"] {
  const { due, blocked } = chooseItems(plan.groups, items, operation);
  const refuseRun = (reason: string, machines: readonly string[], action: string): never => {
    throw new Fault("StateConflict", `could not begin ${operation} of the recovery plan ${id.name}: ${reason}`, {
      evidence: { machines },
      action,
    });
  };
  if (blocked.length > 0)
    refuseRun(
      "machines are not in a state that allows it",
      blocked,
      "bring the machines named into that state, or take them out of the plan",
    );
  if (due.size === 0) refuseRun("nothing is left to do", [], "see the plan's allowedOperations");
  if (operation === "UnplannedFailover") {
    const lost = [...due].flatMap((key) => {
      const found = items.get(key);
      return found === undefined || (found.item.target.networkId ?? "") !== "" ? [] : [found.item.machineName];
    });
    if (lost.length > 0) refuseRun("machines have no network", lost, "set selectedRecoveryAzureNetworkId of their items by PATCH");
  }
  const isNow = ({ failoverTypes, failoverDirections }: PlanAction): boolean =>
    failoverTypes.includes(operation) && failoverDirections.includes("PrimaryToRecovery");
  const toStops = (actions: readonly PlanAction[]): PlanRun["groups"][number]["starts"] =>
    actions.filter(isNow).map(({ actionName, customDetails }) => ({ actionName, instructions: customDetails.description ?? "" }));
  return plan.groups.map((group) => ({
    groupType: group.groupType,
    starts: toStops(group.startGroupActions),
    machines: group.replicationProtectedItems.flatMap((each) => {
      const found = due.has(each.id.toLowerCase()) ? items.get(each.id.toLowerCase()) : undefined;
      return found === undefined ? [] : [{ itemId: found.id, name: found.item.machineName }];
    }),
    ends: toStops(group.endGroupActions),
    machinesAtOnceMax: group.machinesAtOnceMax ?? groupMachinesAtOnceMax,
    // A test harms nobody at any hour.
    ...(operation === "UnplannedFailover" && group.window !== undefined ? { window: group.window } : {}),
  }));
}
