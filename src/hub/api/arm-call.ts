// What every part of the router shares: the request, the answer, and the type of an id.

import { z } from "zod";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import type { Authorize } from "../auth/roles.ts";
import type { AuditTrail } from "../db/audit.ts";
import type { CallView } from "../db/call-view.ts";
import type { OperationStore } from "../db/operations.ts";
import { presentResource, type JsonObject, type Resource, type ResourceStore } from "../db/resources.ts";
import { ArmFault } from "./arm-errors.ts";
import { etagOf } from "./etags.ts";
import { refusalOf } from "./refused-types.ts";
import { parentOf, parseArmPath, parseResourceId, resourceGroupType, subscriptionType, type ResourceId } from "./resource-id.ts";
import type { Absence, ArmCall, Caller, ResourceType, TypeTable } from "./resource-type.ts";
import { requireSupportedVersion } from "./type-dialect.ts";

export interface ArmRequest {
  readonly method: string;
  /** Decoded, without query. */
  readonly path: string;
  /** Names in lower case. */
  readonly query: Readonly<Record<string, string>>;
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly body: unknown;
  readonly caller: Caller;
  readonly view?: CallView | undefined;
  readonly correlationId: string;
  /** "https://management.<domain>[:port]", for links in answers. */
  readonly origin: string;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface ArmAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

export interface ArmRouterDependencies {
  readonly types: TypeTable;
  readonly resources: ResourceStore;
  readonly operations: OperationStore;
  readonly audit: AuditTrail;
  /** Throws Fault Forbidden unless the caller holds a role that allows `action` at or above `scope`. */
  readonly authorize: Authorize;
  /** Told of every answer that is no refusal, before it is sent. */
  readonly onAnswer?: AnswerWatch["onAnswer"] | undefined;
}

export interface AnsweredCall {
  /** Of an operation: that of the resource which it works on. */
  readonly type: ResourceType;
  readonly what: "resource" | "list" | "action" | "collectionAction" | "call" | "operationStatus" | "operationResult";
  readonly method: string;
  /** Of an action. */
  readonly action?: string;
  /** Body of the call. */
  readonly sent: unknown;
  readonly answer: ArmAnswer;
}

/** Who looks at answers, in tests and trials; what it throws is what the caller gets. */
export interface AnswerWatch {
  readonly onAnswer: (told: AnsweredCall) => void;
  /** Of every body that is sent, refusals among them; `route` is the face's template. */
  readonly onSent: (told: { readonly route: string; readonly status: number; readonly body: unknown }) => void;
}

export function toCall(request: ArmRequest, id: ResourceId): ArmCall {
  const { caller, view, query, correlationId, origin, log, signal } = request;
  return { caller, view, id, apiVersion: query["api-version"] ?? "", query, correlationId, origin, log, signal };
}

/** The type of an id, with the version checked; a type in the wrong kind of container is refused. */
export function findType(hub: ArmRouterDependencies, id: ResourceId, version: string): ResourceType {
  const type = hub.types.find(id.type);
  if (type === undefined) throw unknownType(id.type);
  requireSupportedVersion(type.type, version);
  const parent = id.parentText === "" ? "" : parseResourceId(id.parentText).type;
  const isAtHome = type.within !== "resourceGroup" || parent === resourceGroupType;
  if (isAtHome) return type;
  throw new ArmFault(
    "InputInvalid",
    "InvalidResourceReference",
    `could not call ${id.text}: a resource of type ${type.type} lives in a resource group`,
    { evidence: { resourceId: id.text } },
  );
}

/**
 * The id as it is answered: types in the table's casing, names as they were first written, whatever the caller's casing. So an id can be
 * compared as text by the clients that do.
 */
export async function canonicalId(hub: ArmRouterDependencies, given: ResourceId, view: CallView | undefined): Promise<ResourceId> {
  const id = withTypeCasing(hub.types, given);
  const keys = keysAbove(id);
  const stored = view?.keys[0] === id.key ? view.texts : await hub.resources.textsOf(keys);
  // Longest first: the nearest stored ancestor, or the resource itself.
  const key = keys.find((each) => stored.has(each));
  const text = key === undefined ? undefined : stored.get(key);
  if (key === undefined || text === undefined) return id;
  const whole = `${text}${id.text.slice(key.length)}`;
  return whole === given.text ? given : parseResourceId(whole);
}

/** What a call looks for when it begins: the resource or container of its path, then what contains it. None for a path that is none. */
export function keysOfPath(path: string): readonly string[] {
  try {
    const parsed = parseArmPath(path);
    return keysAbove(parsed.kind === "resource" ? parsed.id : parsed.scope);
  } catch (error) {
    if (error instanceof Fault) return []; // The router tells it, once the caller is known.
    throw error;
  }
}

function keysAbove(id: ResourceId): readonly string[] {
  const keys: string[] = [];
  for (let at: ResourceId | undefined = id; at !== undefined; at = parentOf(at)) keys.push(at.key);
  return keys;
}

function withTypeCasing(types: TypeTable, id: ResourceId): ResourceId {
  const type = types.find(id.type);
  if (type === undefined || type.type === id.type) return id;
  const [provider = "", ...segments] = type.type.split("/");
  const given = id.text.split("/");
  const nameCount = segments.length;
  const start = given.length - nameCount * 2 - 1;
  const cased = given.with(start, provider);
  for (const [index, segment] of segments.entries()) cased[start + 1 + index * 2] = segment;
  return parseResourceId(cased.join("/"));
}

/** What stood at the call's id when the call began. For what answers a reader; what decides about a write is read anew. */
export async function storedAtBegin(
  resources: Pick<ResourceStore, "find">,
  { id, view }: Pick<ArmCall, "id" | "view">,
): Promise<Resource | undefined> {
  return view?.keys[0] === id.key ? view.resource : await resources.find(id);
}

/** The resource as hooks get it; undefined when there is none. Of a type with a source, what the source shows. */
export async function findResource(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType): Promise<Resource | undefined> {
  if (type.source === undefined) return await hub.resources.find(call.id);
  const shown = await type.source.get({ ...call, view: undefined });
  if (shown === undefined) return undefined;
  const properties = z.record(z.string(), z.unknown()).parse(shown["properties"] ?? {});
  const { createdAt, updatedAt } = { createdAt: "", updatedAt: "" };
  const etag = typeof shown["etag"] === "string" ? shown["etag"] : etagOf(shown);
  return { id: call.id, location: undefined, envelope: {}, properties, provisioningState: "Succeeded", etag, createdAt, updatedAt };
}

export async function presentMany(type: ResourceType, resources: readonly Resource[]): Promise<readonly JsonObject[]> {
  if (type.presentMany === undefined) return await Promise.all(resources.map(async (resource) => await present(type, resource)));
  const shown = await type.presentMany(resources);
  return resources.map((resource, index) => presentResource(resource, type.type, shown[index]));
}

export async function present(type: ResourceType, resource: Resource): Promise<JsonObject> {
  return presentResource(resource, type.type, type.present === undefined ? resource.properties : await type.present(resource));
}

/** What of the id's path is missing, outermost first, as Azure tells it; undefined when what contains it is there. */
export async function missingAbove(hub: ArmRouterDependencies, call: ArmCall): Promise<ArmFault | undefined> {
  if (call.id.parentText === "") return undefined;
  const container = parseResourceId(call.id.parentText);
  if ((await hub.resources.textsOf([container.key])).has(container.key)) return undefined;
  if ((await hub.types.find(container.type)?.source?.get({ ...call, id: container })) !== undefined) return undefined;
  return (await missingAbove(hub, { ...call, id: container })) ?? missing(hub, container, true);
}

export function missing(hub: ArmRouterDependencies, id: ResourceId, isAbove = false): ArmFault {
  const absent = hub.types.find(id.type)?.absent;
  const options = { evidence: { resourceId: id.text }, target: id.text, ...(absent === undefined ? {} : { action: absent.action }) };
  if (absent !== undefined)
    return new ArmFault(
      "NotFound",
      "ResourceNotFound",
      `could not find ${id.name}: there are none here, because ${absent.reason}`,
      options,
    );
  if (id.type === subscriptionType)
    return new ArmFault("NotFound", "SubscriptionNotFound", `could not find the subscription ${id.name}`, options);
  if (id.type === resourceGroupType)
    return new ArmFault("NotFound", "ResourceGroupNotFound", `could not find the resource group ${id.name}`, options);
  if (!isAbove) return new ArmFault("NotFound", "ResourceNotFound", `could not find the resource ${id.text}`, options);
  return new ArmFault("NotFound", "ParentResourceNotFound", `could not find ${id.text}, which contains the resource`, {
    ...options,
    action: "create what contains the resource first",
  });
}

/** What every write and action of an absent type is answered with. */
export function refuseAbsent(call: ArmCall, { reason, action }: Absence): never {
  throw new Fault("OperationNotSupported", `could not change ${call.id.name}: there are none here, because ${reason}`, {
    evidence: { resourceId: call.id.text },
    action,
  });
}

export function unknownType(type: string): ArmFault {
  const refusal = refusalOf(type);
  if (refusal !== undefined) return refusal;
  return new ArmFault("NotFound", "InvalidResourceType", `could not call the resource type ${type}: this hub does not have it`, {
    evidence: { resourceType: type },
    target: type,
  });
}

/** 405, with the methods that do work here; the API face makes the Allow header of them. */
export function notSupported(request: ArmRequest, operations: readonly string[]): ArmFault {
  return new ArmFault(
    "OperationNotSupported",
    "MethodNotAllowed",
    `could not ${request.method} ${request.path}: this is not supported here`,
    {
      evidence: { operations },
      target: request.method,
    },
  );
}
