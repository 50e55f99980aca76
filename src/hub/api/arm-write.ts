// PUT, PATCH and DELETE of one resource: conditions, schema, hook, stored change, and the status codes that the type's clients expect.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import {
  findResource,
  missing,
  missingAbove,
  notSupported,
  present,
  type ArmAnswer,
  type ArmRequest,
  type ArmRouterDependencies,
} from "./arm-call.ts";
import { ArmFault, parseInput } from "./arm-errors.ts";
import { operationHeaders } from "./arm-operations.ts";
import { isComputed, requireConditions } from "./etags.ts";
import { mergeEnvelope, mergePatch } from "./merge-patch.ts";
import type { ArmCall, DeleteOutcome, Desired, ResourceType, WriteOutcome } from "./resource-type.ts";
import { resourceGroupType } from "./resource-id.ts";
import { dialectOf } from "./type-dialect.ts";

/** How often a PATCH without If-Match is made again when another write came between its read and its write. */
const patchAttemptsMax = 4;

/** What else stands beside the properties is stored and answered as it was sent. null is what a PATCH takes away. */
const envelopeShape = z.looseObject({
  location: z.string().max(64).nullish(),
  tags: z.record(z.string().max(512), z.string().max(256)).nullish(),
  sku: z.record(z.string(), z.unknown()).nullish(),
  kind: z.string().max(64).nullish(),
  identity: z.record(z.string(), z.unknown()).nullish(),
  properties: z.record(z.string(), z.unknown()).nullish(),
});

interface Body {
  readonly location: string | undefined;
  readonly envelope: JsonObject;
  /** As envelope, with null for what a PATCH takes away. */
  readonly change: JsonObject;
  readonly properties: JsonObject;
}

/** Reads of a type with a source come from it; with a hook for PUT, what is written is still stored in the resource table. */
export function isWritable(type: ResourceType): boolean {
  return type.absent !== undefined || isPuttable(type);
}

function isPuttable(type: ResourceType): boolean {
  return type.onPut !== "refuse" && (type.source === undefined || type.onPut !== undefined);
}

/** Types with a source are deleted by their hook, if they have one. */
export function isDeletable(type: ResourceType): boolean {
  if (type.absent !== undefined) return true;
  return type.onDelete !== "refuse" && (type.source === undefined || type.onDelete !== undefined);
}

export function isPatchable(type: ResourceType): boolean {
  return type.canPatch === true || type.absent !== undefined;
}

export function methodsOf(type: ResourceType): readonly string[] {
  return [
    "GET",
    "HEAD",
    ...(isWritable(type) ? ["PUT"] : []),
    ...(isPatchable(type) ? ["PATCH"] : []),
    ...(isDeletable(type) ? ["DELETE"] : []),
  ];
}

export async function put(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType, request: ArmRequest): Promise<ArmAnswer> {
  if (type.onPut === "refuse") throw notSupported(request, methodsOf(type));
  const body = readBody(type, request, "the resource");
  const existing = await findPresent(hub, call, type);
  if (existing === undefined) {
    const fault = (await missingAbove(hub, call)) ?? (await groupGoing(hub, call));
    if (fault !== undefined) throw fault;
  }
  requireConditions(request, request.path, existing?.etag);
  const desired: Desired<JsonObject> = {
    location: body.location ?? existing?.location,
    envelope: body.envelope,
    properties: parseInput(type.properties, body.properties, "the resource's properties", "properties"),
    existing,
  };
  return await write(hub, call, type, request, desired, type.onPut);
}

export async function patch(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType, request: ArmRequest): Promise<ArmAnswer> {
  const body = readBody(type, request, "the change");
  for (let attempt = 1; ; attempt += 1) {
    const existing = (await findPresent(hub, call, type)) ?? (await refuseMissing(hub, call));
    requireConditions(request, request.path, existing.etag);
    const desired: Desired<JsonObject> = {
      location: body.location ?? existing.location,
      envelope: mergeEnvelope(existing.envelope, body.change),
      properties: parseInput(type.properties, mergePatch(existing.properties, body.properties), "the changed properties", "properties"),
      existing,
    };
    const { onPatch, onPut } = type;
    const ownHook =
      onPatch === undefined ? undefined : (inner: ArmCall, wanted: Desired<JsonObject>) => onPatch(inner, wanted, body.properties);
    try {
      return await write(hub, call, type, request, desired, ownHook ?? (onPut === "refuse" ? undefined : onPut));
    } catch (error) {
      const isRace = error instanceof Fault && error.code === "PreconditionFailed" && request.ifMatch === undefined;
      if (!isRace || attempt >= patchAttemptsMax) throw error;
    }
  }
}

export async function remove(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType, request: ArmRequest): Promise<ArmAnswer> {
  if (type.onDelete === "refuse") throw notSupported(request, methodsOf(type));
  const resource = await findResource(hub, call, type);
  if (resource === undefined) {
    if (request.ifMatch !== undefined) requireConditions(request, request.path, undefined);
    return { status: 204 };
  }
  requireConditions(request, request.path, resource.etag);
  const { deleted } = dialectOf(type.type);
  const shown = deleted === "resource" ? await present(type, resource) : undefined;
  const { onDelete } = type;
  const work = async (): Promise<DeleteOutcome> => (onDelete === undefined ? { kind: "done" } : await onDelete(call, resource));
  const outcome = request.ifMatch === undefined ? await work() : await underClaim(hub, call, request, resource, work);
  if (outcome.kind === "accepted") return { status: 202, headers: operationHeaders(request, call.id, outcome.operationId) };
  await hub.resources.remove(call.id);
  await type.onChanged?.(call);
  return shown === undefined ? { status: deleted === "resource" ? 200 : deleted } : { status: 200, body: shown };
}

/** Nothing new comes into a group that is being deleted. */
async function groupGoing(hub: ArmRouterDependencies, { id }: ArmCall): Promise<ArmFault | undefined> {
  if (id.resourceGroup === undefined || id.type === resourceGroupType) return undefined;
  const groupId = `/subscriptions/${id.subscriptionId}/resourceGroups/${id.resourceGroup}`;
  if ((await hub.resources.find(groupId))?.provisioningState !== "Deleting") return undefined;
  return new ArmFault("StateConflict", "ResourceGroupBeingDeleted", `could not create ${id.text}: its resource group is being deleted`, {
    evidence: { resourceGroup: id.resourceGroup },
    action: "use another resource group, or wait until this one is gone",
    retry: "never",
    target: groupId,
  });
}

/** Between the look at the tag and the removal, with all that the type removes before it, no other write may come. */
async function underClaim(
  hub: ArmRouterDependencies,
  call: ArmCall,
  request: ArmRequest,
  { etag }: Resource,
  work: () => Promise<DeleteOutcome>,
): Promise<DeleteOutcome> {
  // What is made of other tables' rows has no row to claim: its own hook is what decides.
  if (isComputed(etag)) return await work();
  if (!(await hub.resources.claim(call.id, etag))) {
    requireConditions(request, request.path, (await hub.resources.find(call.id))?.etag);
    throw new Fault("StateConflict", `could not delete ${call.id.text}: another call is deleting it`, {
      evidence: { resourceId: call.id.text },
      retry: "later",
    });
  }
  try {
    const outcome = await work();
    if (outcome.kind === "accepted") await hub.resources.release(call.id); // The operation guards what it began.
    return outcome;
  } catch (error) {
    await hub.resources.release(call.id);
    throw error;
  }
}

async function write(
  hub: ArmRouterDependencies,
  call: ArmCall,
  type: ResourceType,
  request: ArmRequest,
  desired: Desired<JsonObject>,
  hook: ((call: ArmCall, desired: Desired<JsonObject>) => Promise<WriteOutcome>) | undefined,
): Promise<ArmAnswer> {
  const { createdStatus, creatingStatus } = dialectOf(type.type);
  const outcome = hook === undefined ? { kind: "done" as const, properties: desired.properties } : await hook(call, desired);
  if (outcome.kind === "answered") {
    await type.onChanged?.(call);
    return { status: outcome.isNew === true ? createdStatus : 200, body: outcome.body };
  }
  if (outcome.kind === "accepted") {
    const isNew = desired.existing === undefined && request.method === "PUT";
    const body = outcome.body ?? (await shownNow(hub, call, type));
    return {
      status: isNew ? creatingStatus : 202,
      headers: operationHeaders(request, call.id, outcome.operationId),
      ...(body === undefined ? {} : { body }),
    };
  }
  const isGuarded = request.method === "PATCH" || request.ifMatch !== undefined;
  const { resource, isNew } = await hub.resources.save({
    id: call.id,
    location: desired.location,
    envelope: outcome.envelope ?? desired.envelope,
    properties: outcome.properties,
    // What was read and judged is what is replaced.
    ifMatch: isGuarded ? desired.existing?.etag : undefined,
    mustBeNew: request.ifNoneMatch === "*",
  });
  await type.onChanged?.(call);
  return { status: isNew ? createdStatus : 200, headers: { etag: resource.etag }, body: await present(type, resource) };
}

async function shownNow(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType): Promise<JsonObject | undefined> {
  const resource = await hub.resources.find(call.id);
  return resource === undefined ? undefined : await present(type, resource);
}

/** What is there now, from the table or from the type's own source. */
async function findPresent(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType): Promise<Resource | undefined> {
  const stored = await hub.resources.find(call.id);
  return stored !== undefined || type.source === undefined ? stored : await findResource(hub, call, type);
}

/** Ids, names and stamps are the hub's: clients send back what they read. null is the same as nothing in a PUT, and "take it away" in a PATCH. */
function readBody(type: ResourceType, request: ArmRequest, what: string): Body {
  const parsed = parseInput(envelopeShape, request.body ?? {}, what);
  const { location, properties, id: _id, name: _name, type: _type, etag: _etag, systemData: _systemData, ...change } = parsed;
  const given = Object.entries(change).filter(([, value]) => value !== undefined);
  if (type.isBare === true) refuseBeside(what, [...given, ["location", location ?? null] as const]);
  return {
    location: location ?? undefined,
    envelope: Object.fromEntries(given.filter(([, value]) => value !== null)),
    change: Object.fromEntries(given),
    properties: withoutStamp(properties ?? {}),
  };
}

/** Every answer has it beside the properties that were sent. */
function withoutStamp({ provisioningState: _state, ...properties }: JsonObject): JsonObject {
  return properties;
}

function refuseBeside(what: string, members: readonly (readonly [string, unknown])[]): void {
  const member = members.find(([, value]) => value !== null)?.[0];
  if (member === undefined) return;
  throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not read ${what}: ${member} is not known here, only properties are`, {
    evidence: { member },
    target: member,
  });
}

async function refuseMissing(hub: ArmRouterDependencies, call: ArmCall): Promise<Resource> {
  throw (await missingAbove(hub, call)) ?? missing(hub, call.id);
}
