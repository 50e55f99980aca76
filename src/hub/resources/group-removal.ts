// Job ResourceGroupRemoval: removes what a resource group holds, each resource by its own rules and in an order that they allow, then the group.

import { sql } from "kysely";
import { z } from "zod";
import { Fault, toReport, type FaultReport } from "../../contract/errors.ts";
import { resourceGroupType } from "../api/resource-id.ts";
import type { Caller, DeleteOutcome } from "../api/resource-type.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import { isConnectionFault } from "../jobs/connection-fault.ts";
import type { JobOrder } from "../jobs/job-engine.ts";
import { defineJob, type JobKind, type Queryable, type StepContext } from "../jobs/job.ts";
import { endpointType, zoneLinkType } from "../private-link/endpoint-plan.ts";
import { storageAccountType, vaultType } from "../private-link/link-target.ts";
import type { HubServices } from "../services.ts";

/** Deletes a resource as its caller's DELETE would, audit entry included; who may was decided when the group's removal was called. */
export interface ResourceRemover {
  /** The operation that goes on with it, if any; a resource that is gone already is done. */
  remove(id: string, caller: Caller, signal: AbortSignal): Promise<DeleteOutcome>;
}

const kind = "ResourceGroupRemoval";
const machineType = "Microsoft.Compute/virtualMachines";
const interfaceType = "Microsoft.Network/networkInterfaces";
const protectedItemType = "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers/replicationProtectedItems";
/** What holds others comes before what it holds: machines, endpoints and links, then vaults, then all others, then the accounts behind vaults. */
const order = [machineType, endpointType, interfaceType, zoneLinkType, vaultType, "", storageAccountType] as const;
const ordered = order.filter((type) => type !== "").map((type) => type.toLowerCase());
const batchRows = 200;
const shownMax = 20;
const removedKeptMax = 1000;
const roundsMax = 5;
const pollMs = 200;

const parametersShape = z.object({ groupId: z.string(), caller: z.object({ principalId: z.string(), name: z.string() }) });
type Parameters = z.infer<typeof parametersShape>;
interface State {
  readonly removedCount?: number;
  /** The latest, oldest first. */
  readonly removed?: readonly string[];
}
type Context = StepContext<Parameters, State>;

export function defineGroupRemoval(services: HubServices): JobKind {
  return defineJob<Parameters, State>({
    kind,
    title: "remove the resource group",
    isCoordinating: true,
    parameters: parametersShape,
    steps: [
      {
        name: "empty",
        title: "remove the resources of the group",
        weight: 9,
        run: async (context) => await emptyGroup(services, context),
        undo: "what was removed cannot be brought back; the group tells what is left, and its removal may be called again",
      },
      {
        name: "remove",
        title: "remove the group",
        run: async (context) => await removeGroup(services, context),
        undo: "a group that is gone held nothing",
      },
    ],
    settle: async (db, { parameters, state, outcome }) => {
      if (outcome.kind === "succeeded") return undefined;
      const { removedCount = 0, removed = [] } = state;
      const told = { state: outcome.kind, removedCount, removed: removed.slice(-shownMax), fault: outcome.fault };
      await markGroup(db, parameters.groupId, "Failed", { watariRemoval: told });
      return undefined;
    },
    restart: async (db, { parameters }) => await markGroup(db, parameters.groupId, "Deleting", {}),
  });
}

/** Answers the operation of the removal; of the one that is under way already, if one is. Refuses what is known to stand in its way. */
export async function beginGroupRemoval(
  hub: { readonly db: Queryable; readonly submit: (order: JobOrder, db: Queryable) => Promise<string> },
  group: Resource,
  caller: Caller,
): Promise<string> {
  const open = await sql<{ job_id: string }>`select job_id from jobs
    where kind = ${kind} and lock_key = ${group.id.key} and ended_at is null`.execute(hub.db);
  const present = open.rows[0]?.job_id;
  if (present !== undefined) return present;
  await refuseProtected(hub.db, group);
  await refuseLinked(hub.db, group);
  return await hub.db.transaction().execute(async (transaction) => {
    await markGroup(transaction, group.id.text, "Deleting", {});
    return await hub.submit(
      {
        kind,
        scope: group.id.key,
        targetId: group.id.text,
        targetName: group.id.name,
        lockKey: group.id.key,
        actor: caller.name,
        parameters: { groupId: group.id.text, caller: { principalId: caller.principalId, name: caller.name } },
      },
      transaction,
    );
  });
}

/** A protected machine's recovery points would go with the vault, so someone has to say that they may. */
async function refuseProtected(db: Queryable, group: Resource): Promise<void> {
  const items = await idsUnder(db, group.id.key, protectedItemType);
  if (items.length === 0) return;
  throw new Fault("StateConflict", `could not delete the resource group ${group.id.name}: machines are protected in it`, {
    evidence: { protectedItems: items },
    causes: ["deleting a vault removes the recovery points of its machines"],
    action: "complete the migration of the items in the evidence, or stop their protection",
    retry: "never",
  });
}

/** Endpoints of other groups that lead into this one, and vaults of other groups that keep their packs here. */
async function refuseLinked(db: Queryable, group: Resource): Promise<void> {
  const below = `${group.id.key}/`;
  const linked = await sql<{ id: string }>`select id from resources where not starts_with(key, ${below}) and (
      (type = ${endpointType.toLowerCase()} and
        starts_with(lower(properties->'privateLinkServiceConnections'->0->'properties'->>'privateLinkServiceId'), ${below}))
      or (type = ${vaultType.toLowerCase()} and starts_with(lower(properties->>'watariStorageAccountId'), ${below})))
    order by key limit ${shownMax}`.execute(db);
  if (linked.rows.length === 0) return;
  throw new Fault("StateConflict", `could not delete the resource group ${group.id.name}: resources of other groups use what is in it`, {
    evidence: { usedBy: linked.rows.map(({ id }) => id) },
    action: "delete the resources of the evidence first",
    retry: "never",
  });
}

async function idsUnder(db: Queryable, groupKey: string, type: string): Promise<readonly string[]> {
  const found = await sql<{ id: string }>`select id from resources
    where type = ${type.toLowerCase()} and key ~>~ ${`${groupKey}/`} and key ~<~ ${`${groupKey}0`} order by key limit ${shownMax}`.execute(
    db,
  );
  return found.rows.map(({ id }) => id);
}

async function emptyGroup(services: HubServices, context: Context): Promise<State> {
  let state: Required<State> = { removedCount: context.state.removedCount ?? 0, removed: context.state.removed ?? [] };
  for (const type of order)
    for (;;) {
      const ids = await nextOf(services.database.db, context.parameters.groupId.toLowerCase(), type);
      if (ids.length === 0) break;
      const faults = new Map<string, FaultReport>();
      for (const id of ids) {
        context.signal.throwIfAborted();
        await context.confirm();
        const fault = await removeOne(services, context, id);
        if (fault !== undefined) faults.set(id, fault);
        else state = { removedCount: state.removedCount + 1, removed: [...state.removed, id].slice(-removedKeptMax) };
      }
      await context.save(state);
      await context.progress(0, `${state.removedCount} resources removed`);
      if (faults.size > 0) throw notEmptied(context.parameters.groupId, state, faults);
    }
  return state;
}

/** Of a type, or of all that the order does not name. An interface goes with its endpoint or landed machine, or by itself. */
async function nextOf(db: Queryable, groupKey: string, type: string): Promise<readonly string[]> {
  const wanted =
    type === ""
      ? sql`parent_key = ${groupKey} and type <> all(${[...ordered]}) and not starts_with(type, 'microsoft.authorization/')`
      : sql`type = ${type.toLowerCase()} and key ~>~ ${`${groupKey}/`} and key ~<~ ${`${groupKey}0`}`;
  const found = await sql<{ id: string }>`select id from resources where ${wanted} order by key limit ${batchRows}`.execute(db);
  return found.rows.map(({ id }) => id);
}

/** Undefined once it is gone. */
async function removeOne(services: HubServices, context: Context, id: string): Promise<FaultReport | undefined> {
  const { remover, database } = services;
  for (let round = 1; ; round += 1) {
    try {
      const outcome = await remover.remove(id, { ...context.parameters.caller, groupIds: [] }, context.signal);
      return outcome.kind === "done" ? undefined : await endOf(services, context, outcome.operationId);
    } catch (error) {
      if (!(error instanceof Fault) || isConnectionFault(error)) throw error;
      // A run before this one, or a person, may have begun it: its end decides.
      const open = await sql<{ job_id: string }>`select job_id from jobs
        where lower(target_id) = ${id.toLowerCase()} and ended_at is null limit 1`.execute(database.db);
      const job = open.rows[0]?.job_id;
      if (job === undefined || round >= roundsMax) return toReport(error);
      await endOf(services, context, job);
    }
  }
}

async function endOf({ operations, clock }: HubServices, context: Context, operationId: string): Promise<FaultReport | undefined> {
  for (;;) {
    const operation = await operations.find(operationId);
    if (operation === undefined || operation.status === "Succeeded") return undefined;
    if (operation.status !== "InProgress")
      return operation.fault ?? toReport(new Fault("StateConflict", "could not remove it: its removal was cancelled"));
    await clock.sleep(pollMs, context.signal);
  }
}

function notEmptied(groupId: string, { removedCount }: Required<State>, faults: ReadonlyMap<string, FaultReport>): Fault {
  const name = groupId.split("/").at(-1) ?? "";
  const left = [...faults].slice(0, shownMax).map(([id, { id: code, message }]) => `${id}: ${code}: ${message}`);
  return new Fault("StateConflict", `could not delete the resource group ${name}: ${faults.size} of its resources could not be deleted`, {
    evidence: { left, removedCount },
    action: "do what the evidence says, then delete the group again; it goes on with what is left",
    retry: "never",
  });
}

/** Last, and only if nothing came into the group meanwhile. */
async function removeGroup(services: HubServices, context: Context): Promise<State> {
  for (let round = 1; ; round += 1) {
    const isGone = await context.write(async (db) => await removeEmpty(db, context.parameters.groupId.toLowerCase()));
    if (isGone) return {};
    if (round >= roundsMax) throw new Fault("StateConflict", "could not delete the resource group: resources are made in it all the time");
    await emptyGroup(services, context);
  }
}

/** With what stands for nothing by itself: interfaces whose endpoint is gone, and who may do what in the group. */
async function removeEmpty(db: Queryable, groupKey: string): Promise<boolean> {
  await sql`select key from resources where key = ${groupKey} for update`.execute(db);
  for (const type of order) if ((await nextOf(db, groupKey, type)).length > 0) return false;
  await sql`delete from resources where key = ${groupKey} or starts_with(key, ${`${groupKey}/`})`.execute(db);
  return true;
}

async function markGroup(db: Queryable, groupId: string, state: "Deleting" | "Failed", properties: JsonObject): Promise<void> {
  await sql`update resources set provisioning_state = ${state}, properties = ${JSON.stringify(properties)}::jsonb,
    etag = '"' || gen_random_uuid() || '"', updated_at = clock_timestamp()
    where key = ${groupId.toLowerCase()} and type = ${resourceGroupType.toLowerCase()}`.execute(db);
}
