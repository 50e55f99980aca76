// A recovery plan as it is stored: protected items in groups that follow each other, with actions of people between them.

import { sql } from "kysely";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { openApplianceCatalogue } from "../db/appliances.ts";
import { openResourceStore, presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { allowedOperations } from "./item-operations.ts";
import { parseItem, type Item } from "./item.ts";
import { itemType, planType, provider, vaultOf } from "./names.ts";
import { timeWindowShape } from "./time-window.ts";

/** Groups of a plan: Shutdown, Failover and seven that boot, as Azure has them. */
const groupsMax = 9;
/** Machines of a plan. */
const planItemsMax = 100;
/** Actions at the start of a group, and at its end. */
const groupActionsMax = 20;

/** Machines of a group whose jobs run at once, unless the group says fewer. */
export const groupMachinesAtOnceMax = 10;

const idText = z.string().min(1).max(2048);
const actionShape = z.strictObject({
  actionName: z.string().min(1).max(100),
  failoverTypes: z.array(z.string().max(64)).max(20),
  failoverDirections: z.array(z.enum(["PrimaryToRecovery", "RecoveryToPrimary"])).max(2),
  customDetails: z.strictObject({ instanceType: z.string().max(64), description: z.string().max(4000).optional() }),
});
export type PlanAction = z.infer<typeof actionShape>;

const groupShape = z.strictObject({
  groupType: z.enum(["Shutdown", "Failover", "Boot"]),
  replicationProtectedItems: z
    .array(z.strictObject({ id: idText, virtualMachineId: z.string().max(2048).optional() }))
    .max(planItemsMax)
    .default([]),
  startGroupActions: z.array(actionShape).max(groupActionsMax).default([]),
  endGroupActions: z.array(actionShape).max(groupActionsMax).default([]),
  /** Ours: machines of the group that move at once. */
  machinesAtOnceMax: z.number().int().min(1).max(groupMachinesAtOnceMax).optional(),
  /** Ours: migrations of the group begin within it only; those under way go on. */
  window: timeWindowShape.optional(),
});
export type PlanGroup = z.infer<typeof groupShape>;
export const groupsShape = z.array(groupShape).min(1).max(groupsMax);

const planShape = z.object({
  primaryFabricId: z.string(),
  recoveryFabricId: z.string(),
  failoverDeploymentModel: z.string(),
  groups: z.array(groupShape),
  scenario: z.object({ scenarioName: z.string(), jobId: z.string(), startTime: z.string() }).optional(),
  scenarioStatus: z.string().optional(),
  scenarioDescription: z.string().optional(),
  lastTestFailoverTime: z.string().optional(),
  lastUnplannedFailoverTime: z.string().optional(),
});
export type Plan = z.infer<typeof planShape>;

/** What a plan does to its machines; the words are those of a protected item's allowedOperations. */
export const planOperations = ["TestFailover", "TestFailoverCleanup", "UnplannedFailover", "Commit", "CancelFailover"] as const;
export type PlanOperation = (typeof planOperations)[number];

export interface PlanItem {
  readonly id: string;
  readonly item: Item;
}

export function parsePlan(properties: JsonObject): Plan {
  return planShape.parse(properties);
}

export function itemIdsOf(groups: readonly PlanGroup[]): readonly string[] {
  return groups.flatMap((group) => group.replicationProtectedItems.map((each) => each.id));
}

/** Refuses groups that cannot run, naming everything that is wrong with the items at once. */
export async function checkGroups(db: Queryable, id: ResourceId, wish: { groups: readonly PlanGroup[]; primaryFabricId: string }) {
  const { groups, primaryFabricId } = wish;
  const refuse = (reason: string, items: readonly string[], action: string): never => {
    throw new Fault("InputInvalid", `could not store the recovery plan ${id.name}: ${reason}`, { evidence: { items }, action });
  };
  const ids = itemIdsOf(groups);
  const keys = ids.map((each) => each.toLowerCase());
  if (ids.length === 0) refuse("it has no protected item", [], "name at least one protected item in a group");
  if (ids.length > planItemsMax) refuse(`it has more than ${planItemsMax} items`, [], "make several plans");
  const twice = ids.filter((_each, index) => keys.indexOf(keys[index] ?? "") !== index);
  if (twice.length > 0) refuse("items are named more than once", twice, "name each item in one group only");
  const shutdown = groups.filter((group) => group.groupType === "Shutdown");
  if (shutdown.length > 1 || groups.filter((group) => group.groupType === "Failover").length > 1)
    refuse("it has a second Shutdown or Failover group", [], "name one of each at most");
  const held = itemIdsOf(shutdown);
  if (held.length > 0) refuse("a source is switched off by its own migration", held, "name the items in Boot groups");
  const fabricKey = parseResourceId(primaryFabricId).key;
  const foreign = ids.filter((each) => !each.toLowerCase().startsWith(`${fabricKey}/`));
  if (foreign.length > 0 || !fabricKey.startsWith(`${vaultOf(id).key}/`))
    refuse("items are not of its primary fabric", foreign, "make one plan for each fabric, in the fabric's vault");
  const known = await readItems(db, ids);
  const unknown = ids.filter((each) => !known.has(each.toLowerCase()));
  if (unknown.length > 0) refuse("items do not exist", unknown, "name the ids of protected items, or enable replication first");
  for (const action of groups.flatMap((group) => [...group.startGroupActions, ...group.endGroupActions])) checkAction(id, action);
}

function checkAction(id: ResourceId, { actionName, customDetails }: PlanAction): void {
  const { instanceType } = customDetails;
  if (instanceType === "ManualActionDetails") return;
  const known = { AutomationRunbookActionDetails: "runbooks are an Azure service", ScriptActionDetails: "this hub runs no scripts" };
  const reason = Object.entries(known).find(([name]) => name === instanceType)?.[1] ?? "this kind of action is not known";
  throw new Fault("InputInvalid", `could not store the recovery plan ${id.name}: ${reason}`, {
    evidence: { actionName, instanceType },
    action: "use a ManualActionDetails action: the plan waits there, and replicationJobs/resume lets it go on",
  });
}

/** By lower-case id; an id without a protected item is missing. */
export async function readItems(db: Queryable, ids: readonly string[]): Promise<ReadonlyMap<string, PlanItem>> {
  const found = await sql<{ key: string; id: string; properties: JsonObject }>`select key, id, properties from resources
    where type = ${itemType.toLowerCase()} and key = any(${ids.map((id) => id.toLowerCase())}::text[])`.execute(db);
  return new Map(found.rows.map((row) => [row.key, { id: row.id, item: parseItem(row.properties) }]));
}

/** Whether the operation has nothing left to do for the item, so that a plan which failed half-way can be called again. */
function hasReached(item: Item, operation: PlanOperation): boolean {
  const { protectionState, testFailoverState } = item;
  switch (operation) {
    case "TestFailover":
      return testFailoverState === "TestMigrationSucceeded";
    case "TestFailoverCleanup":
      return protectionState === "Protected" && (testFailoverState === "None" || testFailoverState === "TestMigrationFailed");
    case "UnplannedFailover":
      return protectionState === "UnplannedFailoverCommitPending" || protectionState === "CommitFailoverCompleted";
    case "Commit":
      return protectionState === "CommitFailoverCompleted";
    case "CancelFailover":
      return protectionState === "Protected";
  }
}

export interface PlanChoice {
  /** Lower-case ids of the items on which the operation is to be done. */
  readonly due: ReadonlySet<string>;
  /** What keeps the plan from running: "web: Protected". */
  readonly blocked: readonly string[];
}

export function chooseItems(groups: readonly PlanGroup[], items: ReadonlyMap<string, PlanItem>, operation: PlanOperation): PlanChoice {
  const due = new Set<string>();
  const blocked: string[] = [];
  for (const id of itemIdsOf(groups)) {
    const found = items.get(id.toLowerCase());
    if (found === undefined) blocked.push(`${id}: does not exist`);
    else if (allowedOperations(found.item).includes(operation)) due.add(id.toLowerCase());
    else if (!hasReached(found.item, operation))
      blocked.push(`${found.item.machineName}: ${found.item.protectionState}, ${found.item.testFailoverState}`);
  }
  return { due, blocked };
}

export async function readPlan(db: Queryable, id: ResourceId): Promise<Plan> {
  const found = await sql<{ properties: JsonObject }>`select properties from resources where key = ${id.key}`.execute(db);
  const row = found.rows[0];
  if (row === undefined) throw new Fault("NotFound", `could not find the recovery plan ${id.name}`, { evidence: { planId: id.text } });
  return parsePlan(row.properties);
}

/** Changes some properties of a plan, within the caller's transaction. */
export async function patchPlan(db: Queryable, id: ResourceId, change: Partial<Plan>): Promise<void> {
  await sql`update resources set properties = properties || ${JSON.stringify(change)}::jsonb,
    etag = '"' || gen_random_uuid() || '"', updated_at = clock_timestamp() where key = ${id.key}`.execute(db);
}

/** The plan as clients see it. */
export async function presentPlan(services: HubServices, resource: Resource, db: Queryable): Promise<JsonObject> {
  const plan = parsePlan(resource.properties);
  const items = await readItems(db, itemIdsOf(plan.groups));
  const { scenario, groups, primaryFabricId } = plan;
  const isRunning = plan.scenarioStatus === "InProgress";
  const allowed = planOperations.filter((operation) => {
    const { due, blocked } = chooseItems(groups, items, operation);
    return !isRunning && blocked.length === 0 && due.size > 0;
  });
  const vault = vaultOf(resource.id);
  const appliances = await openApplianceCatalogue({ db, clock: services.clock }).inVault(vault.key);
  const fabric = parseResourceId(primaryFabricId);
  return {
    friendlyName: resource.id.name,
    primaryFabricId,
    primaryFabricFriendlyName: appliances.find((each) => each.applianceId === fabric.name.toLowerCase())?.name ?? fabric.name,
    recoveryFabricId: plan.recoveryFabricId,
    recoveryFabricFriendlyName: plan.recoveryFabricId.split("/").at(-1) ?? "",
    failoverDeploymentModel: plan.failoverDeploymentModel,
    replicationProviders: [provider],
    allowedOperations: allowed,
    ...(plan.lastTestFailoverTime === undefined ? {} : { lastTestFailoverTime: plan.lastTestFailoverTime }),
    ...(plan.lastUnplannedFailoverTime === undefined ? {} : { lastUnplannedFailoverTime: plan.lastUnplannedFailoverTime }),
    ...(scenario === undefined ? {} : { currentScenario: { ...scenario, jobId: `${vault.text}/replicationJobs/${scenario.jobId}` } }),
    currentScenarioStatus: plan.scenarioStatus ?? "None",
    currentScenarioStatusDescription: plan.scenarioDescription ?? "",
    groups: groups.map((group) => ({
      ...group,
      replicationProtectedItems: group.replicationProtectedItems.map((each) => ({
        id: each.id,
        virtualMachineId: each.virtualMachineId ?? items.get(each.id.toLowerCase())?.item.infrastructureId ?? "",
      })),
    })),
    providerSpecificDetails: [],
  };
}

/** The whole plan as a job's operation or a write answers it. */
export async function answerPlan(services: HubServices, db: Queryable, id: ResourceId): Promise<JsonObject> {
  const resource = await openResourceStore({ db, clock: services.clock, random: services.random }).get(id);
  return presentResource(resource, planType, await presentPlan(services, resource, db));
}
