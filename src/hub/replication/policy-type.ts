// Replication policies: create, change for the machines that run by them, remove when unused. A default one is always there.

import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { storedAtBegin } from "../api/arm-call.ts";
import { parseInput } from "../api/arm-errors.ts";
import { isComputed } from "../api/etags.ts";
import { childId, type ResourceId } from "../api/resource-id.ts";
import { defineResource, type ArmCall, type DeleteOutcome, type ResourceType, type WriteOutcome } from "../api/resource-type.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import { lockKey } from "../db/locks.ts";
import type { HubServices } from "../services.ts";
import { mappingsOf } from "./mapping.ts";
import { policyType, vaultOf } from "./names.ts";
import {
  changeSettings,
  defaultPolicyName,
  itemsUnder,
  presentDefault,
  presentPolicy,
  settingsOf,
  settingsOfPolicy,
  settingsChangeShape,
  settingsShape,
  shownProperties,
  type Settings,
} from "./policy.ts";
import { isReplicating, refuseUndecided } from "./update-policy.ts";
import type { ReplicationFront } from "./world.ts";

/** A PUT brings providerSpecificInput, a PATCH replicationProviderSettings. */
const policyShape = z.strictObject({ providerSpecificInput: settingsShape.optional() });
const changeShape = z.strictObject({ replicationProviderSettings: settingsChangeShape.optional() });
const namesMax = 20;

export function policyResource(front: ReplicationFront): ResourceType {
  const { services } = front;
  return defineResource({
    type: policyType,
    isBare: true,
    within: "parent",
    canPatch: true,
    longWrites: ["PUT", "PATCH"],
    properties: z.record(z.string(), z.unknown()),
    inputs: { put: policyShape, patch: changeShape },
    onPut: async (call, { properties, existing }) => {
      const { providerSpecificInput } = parseInput(policyShape, properties, "the policy", "properties");
      const present = existing === undefined || isComputed(existing.etag) ? undefined : settingsOf(existing);
      return await change(front, call, { present, wanted: settingsShape.parse(providerSpecificInput ?? {}) });
    },
    onPatch: async (call, _desired, patch) => {
      const { replicationProviderSettings } = parseInput(changeShape, patch, "the change of the policy", "properties");
      const present = await settingsOfPolicy(services, call.id);
      const changed = changeSettings(present, replicationProviderSettings ?? {});
      const wanted = parseInput(settingsShape, changed, "the changed policy", "properties.replicationProviderSettings");
      return await change(front, call, { present, wanted });
    },
    onDelete: async (call) => await refuseWhileUsed(services, call),
    present: async (resource) => shownProperties(resource.id, settingsOf(resource)),
    source: {
      get: async (call) => show(await storedAtBegin(services.resources, call), call.id),
      list: async ({ id }, { after, countMax }) => {
        const vault = vaultOf(id);
        const rows = await services.resources.list({ under: vault.text, type: policyType, afterKey: after ?? "", countMax: countMax + 1 });
        const page = rows.slice(0, countMax);
        const defaultId = childId(vault, "replicationPolicies", defaultPolicyName);
        const isDefaultStored = (await services.resources.find(defaultId)) !== undefined;
        const first = after === undefined && !isDefaultStored ? [presentDefault(defaultId)] : [];
        return { items: [...first, ...page.map(presentPolicy)], next: rows.length > countMax ? page.at(-1)?.id.key : undefined };
      },
    },
  });
}

function show(stored: Resource | undefined, id: ResourceId): JsonObject | undefined {
  if (stored !== undefined) return presentPolicy(stored);
  return isDefault(id) ? presentDefault(id) : undefined;
}

function isDefault(id: ResourceId): boolean {
  return id.name.toLowerCase() === defaultPolicyName;
}

/** At once while no machine runs by the policy; otherwise a job tells them. */
async function change(
  { services, engine }: ReplicationFront,
  call: ArmCall,
  { present, wanted: settings }: { readonly present: Settings | undefined; readonly wanted: Settings },
): Promise<WriteOutcome> {
  const { id } = call;
  const done = { kind: "done", properties: { settings } } as const;
  const { db: now } = services.database;
  const before = present ?? (isDefault(id) ? settingsShape.parse({}) : undefined);
  if (before === undefined || isDeepStrictEqual(before, settings) || !(await mustTell(now, id))) return done;
  return await now.transaction().execute(async (db): Promise<WriteOutcome> => {
    await lockKey(db, `policy:${id.key}`);
    if (!(await mustTell(db, id))) return done;
    const target = { scope: vaultOf(id).key, targetId: id.text, targetName: id.name, lockKey: id.key, actor: call.caller.name };
    const operationId = await engine.submit({ kind: "UpdatePolicy", ...target, parameters: { policyId: id.text, settings } }, db);
    return { kind: "accepted", operationId };
  });
}

/** Whether machines run by the policy; Fault StateConflict while it is open whether some do. */
async function mustTell(db: Queryable, id: ResourceId): Promise<boolean> {
  const followers = await itemsUnder(db, id);
  refuseUndecided(id, followers);
  return followers.some(({ item }) => isReplicating(item));
}

async function refuseWhileUsed(services: HubServices, { id }: ArmCall): Promise<DeleteOutcome> {
  const items = await itemsUnder(services.database.db, id);
  const mappings = (await mappingsOf(services, vaultOf(id))).filter(({ policyId }) => policyId.toLowerCase() === id.key);
  if (items.length + mappings.length > 0)
    throw new Fault("StateConflict", `could not remove the policy ${id.name}: it is in use`, {
      evidence: {
        protectedItems: items.slice(0, namesMax).map((each) => each.id),
        containerMappings: mappings.slice(0, namesMax).map((each) => each.id),
      },
      action: "stop the replication of the machines that are named and remove the mappings first",
      retry: "never",
    });
  if ((await services.resources.find(id)) === undefined)
    throw new Fault("OperationNotSupported", "could not remove the policy default: every vault has it", {
      action: "change it in place of removing it",
    });
  return { kind: "done" };
}
