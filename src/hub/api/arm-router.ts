// Dispatch of ARM calls: path → type → rights → audit → hook → answer. The one place where rights are checked and writes are audited.

import { z } from "zod";
import type { Log } from "../../base/log.ts";
import { asFault, Fault } from "../../contract/errors.ts";
import type { AuditTrail } from "../db/audit.ts";
import type { OperationStore } from "../db/operations.ts";
import { presentResource, type JsonObject, type Resource, type ResourceStore } from "../db/resources.ts";
import { parseInput } from "./arm-errors.ts";
import { findOperation, operationHeaders } from "./arm-operations.ts";
import { parseArmPath, parseResourceId, resourceGroupType, type ResourceId } from "./resource-id.ts";
import type { ActionDefinition, ActionOutcome, ArmCall, Caller, Desired, ResourceType, TypeTable, WriteOutcome } from "./resource-type.ts";

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
  readonly authorize: (caller: Caller, action: string, scope: ResourceId) => Promise<void>;
}

export type ArmRouter = (request: ArmRequest) => Promise<ArmAnswer>;

const pageItems = 100;
const apiVersionPattern = /^\d{4}-\d{2}-\d{2}(-preview)?$/;

export function createArmRouter(dependencies: ArmRouterDependencies): ArmRouter {
  return async (request) => {
    checkApiVersion(request);
    const path = parseArmPath(request.path);
    if (path.kind === "resource") {
      const operation = await findOperation(dependencies, request, path.id);
      if (operation !== undefined) return operation;
      return await onResource(dependencies, request, path.id);
    }
    if (request.method === "GET") return (await onRead(dependencies, request, path)) ?? (await onList(dependencies, request, path));
    if (request.method === "POST" && path.provider === undefined) return await onAction(dependencies, request, path.scope, path.segment);
    if (request.method === "POST") return await onTypeCall(dependencies, request, path.scope, `${path.provider}/${path.segment}`);
    throw notSupported(request, ["GET", "POST"]);
  };
}

/** The route table as rights see it: one line for each thing that can be asked. For the rights tests and the pages of docs/api. */
export function listRoutes(types: TypeTable): readonly { readonly method: string; readonly type: string; readonly action: string }[] {
  return types.types.flatMap((type) => {
    const route = (method: string, verb: string): { method: string; type: string; action: string } => ({
      method,
      type: type.type,
      action: `${type.type}/${verb}`,
    });
    return [
      route("GET", "read"),
      ...(isWritable(type) ? [route("PUT", "write")] : []),
      ...(type.canPatch === true ? [route("PATCH", "write")] : []),
      ...(isDeletable(type) ? [route("DELETE", "delete")] : []),
      ...Object.entries(type.actions ?? {}).map(([name, { isGet }]) =>
        isGet === true ? route("GET", `${name}/read`) : route("POST", `${name}/action`),
      ),
      ...(type.onCall === undefined ? [] : [route("POST", "action")]),
    ];
  });
}

function checkApiVersion(request: ArmRequest): void {
  const version = request.query["api-version"];
  if (version !== undefined && apiVersionPattern.test(version)) return;
  throw new Fault("InputInvalid", "could not read the call: the query parameter api-version is missing or not a date", {
    evidence: { apiVersion: version ?? "missing" },
    action: "add api-version=YYYY-MM-DD to the call",
  });
}

async function onResource(hub: ArmRouterDependencies, request: ArmRequest, given: ResourceId): Promise<ArmAnswer> {
  const type = findType(hub, given);
  const id = canonical(given, type);
  const call = toCall(request, id);
  switch (request.method) {
    case "GET":
    case "HEAD": {
      await hub.authorize(request.caller, `${type.type}/read`, id);
      const { body, ...answer } = await read(hub, call, type);
      // ARM's check for existence: 204 or 404, never a body.
      return request.method === "HEAD" ? { ...answer, status: 204 } : { ...answer, body };
    }
    case "PUT":
      return await audited(hub, call, `${type.type}/write`, () => put(hub, call, type, request));
    case "PATCH":
      return await audited(hub, call, `${type.type}/write`, () => patch(hub, call, type, request));
    case "DELETE":
      return await audited(hub, call, `${type.type}/delete`, () => remove(hub, call, type, request));
    default:
      throw notSupported(request, ["GET", "PUT", "PATCH", "DELETE"]);
  }
}

async function read(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType): Promise<ArmAnswer> {
  if (type.source !== undefined) {
    const body = await type.source.get(call);
    if (body === undefined) throw new Fault("NotFound", `could not find ${call.id.text}`, { evidence: { resourceId: call.id.text } });
    return { status: 200, body };
  }
  const resource = await hub.resources.get(call.id);
  return { status: 200, headers: { etag: resource.etag }, body: await present(type, resource) };
}

/** What else stands beside the properties (zones, plan and the like) is stored and answered as it was sent. */
const envelopeShape = z.looseObject({
  location: z.string().max(64).optional(),
  tags: z.record(z.string().max(512), z.string().max(256)).optional(),
  sku: z.record(z.string(), z.unknown()).optional(),
  kind: z.string().max(64).optional(),
  identity: z.record(z.string(), z.unknown()).optional(),
  properties: z.record(z.string(), z.unknown()).optional(),
});

async function put(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType, request: ArmRequest): Promise<ArmAnswer> {
  if (type.onPut === "refuse" || !isWritable(type)) throw notSupported(request, ["GET"]);
  const body = parseInput(envelopeShape, request.body ?? {}, "the resource");
  const { location, properties, ...envelope } = withoutReadOnly(body);
  const existing = await findPresent(hub, call, type);
  if (existing === undefined) await checkContainer(hub, call);
  const desired: Desired<JsonObject> = {
    location: location ?? existing?.location,
    envelope,
    properties: parseInput(type.properties, properties ?? {}, "the resource's properties"),
    existing,
  };
  return await write(hub, call, type, request, desired, type.onPut);
}

async function patch(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType, request: ArmRequest): Promise<ArmAnswer> {
  if (type.canPatch !== true) throw notSupported(request, ["GET", "PUT", "DELETE"]);
  const body = parseInput(envelopeShape, request.body ?? {}, "the change");
  const existing = (await findPresent(hub, call, type)) ?? (await hub.resources.get(call.id));
  const { location, properties, ...envelope } = withoutReadOnly(body);
  const merged = mergePatch(existing.properties, properties ?? {});
  const desired: Desired<JsonObject> = {
    location: location ?? existing.location,
    envelope: { ...existing.envelope, ...envelope },
    properties: parseInput(type.properties, merged, "the changed properties"),
    existing,
  };
  const onPatch = type.onPatch;
  const hook =
    onPatch === undefined ? type.onPut : (inner: ArmCall, wanted: Desired<JsonObject>) => onPatch(inner, wanted, properties ?? {});
  return await write(hub, call, type, request, desired, hook === "refuse" ? undefined : hook);
}

async function write(
  hub: ArmRouterDependencies,
  call: ArmCall,
  type: ResourceType,
  request: ArmRequest,
  desired: Desired<JsonObject>,
  hook: ((call: ArmCall, desired: Desired<JsonObject>) => Promise<WriteOutcome>) | undefined,
): Promise<ArmAnswer> {
  refuseOtherEtag(request, desired.existing);
  const outcome = hook === undefined ? { kind: "done" as const, properties: desired.properties } : await hook(call, desired);
  if (outcome.kind === "answered") {
    await type.onChanged?.(call);
    return { status: outcome.isNew === true ? 201 : 200, body: outcome.body };
  }
  if (outcome.kind === "accepted") {
    const resource = await hub.resources.find(call.id);
    const isNew = desired.existing === undefined;
    return {
      status: isNew && request.method === "PUT" ? 201 : 202,
      headers: operationHeaders(request, call.id, outcome.operationId),
      ...(resource === undefined ? {} : { body: await present(type, resource) }),
    };
  }
  const { resource, isNew } = await hub.resources.save({
    id: call.id,
    location: desired.location,
    envelope: outcome.envelope ?? desired.envelope,
    properties: outcome.properties,
    ifMatch: request.ifMatch,
    mustBeNew: request.ifNoneMatch === "*",
  });
  await type.onChanged?.(call);
  return { status: isNew ? 201 : 200, headers: { etag: resource.etag }, body: await present(type, resource) };
}

async function remove(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType, request: ArmRequest): Promise<ArmAnswer> {
  if (type.onDelete === "refuse" || !isDeletable(type)) throw notSupported(request, ["GET", "PUT"]);
  const resource = type.source === undefined ? await hub.resources.find(call.id) : await findSourced(call, type);
  if (resource === undefined) return { status: 204 };
  refuseOtherEtag(request, resource);
  const outcome = type.onDelete === undefined ? { kind: "done" as const } : await type.onDelete(call, resource);
  if (outcome.kind === "accepted") return { status: 202, headers: operationHeaders(request, call.id, outcome.operationId) };
  await hub.resources.remove(call.id);
  await type.onChanged?.(call);
  return { status: 200 };
}

/** A GET of a part of one resource: {machine}/instanceView. Undefined: the path is a list. */
async function onRead(
  hub: ArmRouterDependencies,
  request: ArmRequest,
  { scope, provider, segment }: { readonly scope: ResourceId; readonly provider: string | undefined; readonly segment: string },
): Promise<ArmAnswer | undefined> {
  if (provider !== undefined) return undefined;
  const type = hub.types.find(scope.type);
  const found = Object.entries(type?.actions ?? {}).find(([name]) => name.toLowerCase() === segment.toLowerCase());
  if (type === undefined || found?.[1].isGet !== true) return undefined;
  const call = toCall(request, canonical(scope, type));
  await hub.authorize(request.caller, `${type.type}/${found[0]}/read`, call.id);
  return await act(hub, call, type, request, found[1]);
}

async function onTypeCall(hub: ArmRouterDependencies, request: ArmRequest, scope: ResourceId, name: string): Promise<ArmAnswer> {
  const type = hub.types.find(name);
  if (type === undefined) throw unknownType(name);
  const { onCall } = type;
  if (onCall === undefined) throw notSupported(request, ["GET"]);
  const call = toCall(request, scope);
  const run = async (): Promise<ArmAnswer> => {
    const outcome = await onCall.run(call, parseInput(onCall.body, request.body ?? {}, "the call's body"));
    return answerOf(request, scope, outcome);
  };
  if (onCall.isRead !== true) return await audited(hub, call, `${type.type}/action`, run);
  await hub.authorize(request.caller, `${type.type}/action`, scope);
  return await run();
}

async function onList(
  hub: ArmRouterDependencies,
  request: ArmRequest,
  path: { readonly scope: ResourceId; readonly provider: string | undefined; readonly segment: string },
): Promise<ArmAnswer> {
  const { scope, provider, segment } = path;
  const isGroupList = provider === undefined && segment.toLowerCase() === "resourcegroups";
  const type =
    provider !== undefined
      ? hub.types.find(`${provider}/${segment}`)
      : isGroupList
        ? hub.types.find(resourceGroupType)
        : hub.types.findListed(scope.type, segment);
  if (type === undefined) throw unknownType(provider === undefined ? `${scope.type}/${segment}` : `${provider}/${segment}`);
  const call = toCall(request, scope);
  await hub.authorize(request.caller, `${type.type}/read`, scope);
  const after = fromSkipToken(request.query["$skiptoken"] ?? request.query["skiptoken"]);
  if (type.source?.whole !== undefined) return { status: 200, body: await type.source.whole(call) };
  if (type.source !== undefined) {
    const page = await type.source.list(call, { after, countMax: pageItems });
    return { status: 200, body: { value: page.items, ...nextLink(request, page.next) } };
  }
  const isDeep = provider !== undefined || type.isListedUnderAncestors === true;
  const rows = await hub.resources.list({ under: scope.text, isDeep, type: type.type, afterKey: after ?? "", countMax: pageItems + 1 });
  const page = rows.slice(0, pageItems);
  const last = rows.length > pageItems ? page.at(-1) : undefined;
  const value = await Promise.all(page.map((resource) => present(type, resource)));
  return { status: 200, body: { value, ...nextLink(request, last?.id.key) } };
}

async function onAction(hub: ArmRouterDependencies, request: ArmRequest, scope: ResourceId, name: string): Promise<ArmAnswer> {
  const type = findType(hub, scope);
  const found = Object.entries(type.actions ?? {}).find(([action]) => action.toLowerCase() === name.toLowerCase());
  if (found === undefined || found[1].isGet === true)
    throw new Fault("OperationNotSupported", `could not call ${name}: ${type.type} has no such action`, {
      evidence: { operations: Object.keys(type.actions ?? {}) },
    });
  const [action, definition] = found;
  const call = toCall(request, canonical(scope, type));
  const run = (): Promise<ArmAnswer> => act(hub, call, type, request, definition);
  if (definition.isRead !== true) return await audited(hub, call, `${type.type}/${action}/action`, run);
  await hub.authorize(request.caller, `${type.type}/${action}/action`, call.id);
  return await run();
}

async function act(
  hub: ArmRouterDependencies,
  call: ArmCall,
  type: ResourceType,
  request: ArmRequest,
  definition: ActionDefinition,
): Promise<ArmAnswer> {
  const resource = type.source === undefined ? await hub.resources.get(call.id) : await sourced(call, type);
  const body = parseInput(definition.body, request.body ?? {}, "the action's body");
  return answerOf(request, call.id, await definition.run(call, body, resource));
}

function answerOf(request: ArmRequest, id: ResourceId, outcome: ActionOutcome): ArmAnswer {
  if (outcome.kind === "accepted") return { status: 202, headers: operationHeaders(request, id, outcome.operationId) };
  return outcome.body === undefined ? { status: 204 } : { status: 200, body: outcome.body };
}

/** What is there now, from the table or from the type's own source. */
async function findPresent(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType): Promise<Resource | undefined> {
  const stored = await hub.resources.find(call.id);
  if (stored !== undefined || type.source === undefined) return stored;
  return await findSourced(call, type);
}

/** Ids, names and stamps are the hub's; clients send back what they read, and Azure takes no notice of it. */
function withoutReadOnly<Body extends Readonly<Record<string, unknown>>>(body: Body): Body {
  const { id: _id, name: _name, type: _type, etag: _etag, systemData: _systemData, ...rest } = body;
  return rest as unknown as Body; // Only optional members that the callers do not read are gone.
}

/** A resource as actions get it, for types that live outside the resource table. */
async function sourced(call: ArmCall, type: ResourceType): Promise<Resource> {
  const found = await findSourced(call, type);
  if (found !== undefined) return found;
  throw new Fault("NotFound", `could not find ${call.id.text}`, { evidence: { resourceId: call.id.text } });
}

async function findSourced(call: ArmCall, type: ResourceType): Promise<Resource | undefined> {
  const shown = await type.source?.get(call);
  if (shown === undefined) return undefined;
  const properties = z.record(z.string(), z.unknown()).parse(shown["properties"] ?? {});
  return {
    id: call.id,
    location: undefined,
    envelope: {},
    properties,
    provisioningState: "Succeeded",
    etag: "",
    createdAt: "",
    updatedAt: "",
  };
}

/** Rights first, then the audit row, then the work; the row's end tells how it went. */
async function audited(hub: ArmRouterDependencies, call: ArmCall, action: string, work: () => Promise<ArmAnswer>): Promise<ArmAnswer> {
  const entry = {
    principalId: call.caller.principalId,
    action,
    resourceId: call.id.text,
    correlationId: call.correlationId,
  };
  try {
    await hub.authorize(call.caller, action, call.id);
  } catch (error) {
    await (await hub.audit.begin(entry)).end("denied");
    throw error;
  }
  const row = await hub.audit.begin(entry);
  try {
    const answer = await work();
    await row.end(String(answer.status));
    return answer;
  } catch (error) {
    await row.end(asFault(error, action).code);
    throw error;
  }
}

async function present(type: ResourceType, resource: Resource): Promise<JsonObject> {
  return presentResource(resource, type.type, type.present === undefined ? resource.properties : await type.present(resource));
}

function toCall(request: ArmRequest, id: ResourceId): ArmCall {
  const { caller, query, correlationId, log, signal } = request;
  return { caller, id, apiVersion: query["api-version"] ?? "", query, correlationId, log, signal };
}

function findType(hub: ArmRouterDependencies, id: ResourceId): ResourceType {
  const type = hub.types.find(id.type);
  if (type === undefined) throw unknownType(id.type);
  const parent = id.parentText === "" ? "" : parseResourceId(id.parentText).type;
  const isAtHome =
    type.within === "anything" ||
    type.within === "parent" ||
    (type.within === "resourceGroup" && parent === resourceGroupType) ||
    type.within === "subscription";
  if (isAtHome) return type;
  throw new Fault("InputInvalid", `could not call ${id.text}: a resource of type ${type.type} lives in a resource group`, {
    evidence: { resourceId: id.text },
  });
}

/** The id with the type's own casing; names stay as given. */
function canonical(id: ResourceId, type: ResourceType): ResourceId {
  if (id.type === type.type || type.within === "parent") return id;
  const at = id.text.toLowerCase().lastIndexOf(`/${type.type.toLowerCase()}/`);
  return at === -1 ? id : parseResourceId(`${id.text.slice(0, at + 1)}${type.type}${id.text.slice(at + 1 + type.type.length)}`);
}

/** Reads of a type with a source come from it; with a hook for PUT, what is written is still stored in the resource table. */
function isWritable(type: ResourceType): boolean {
  return type.onPut !== "refuse" && (type.source === undefined || type.onPut !== undefined);
}

/** Types with a source are deleted by their hook, if they have one. */
function isDeletable(type: ResourceType): boolean {
  return type.onDelete !== "refuse" && (type.source === undefined || type.onDelete !== undefined);
}

async function checkContainer(hub: ArmRouterDependencies, call: ArmCall): Promise<void> {
  const { id } = call;
  const container = parseResourceId(id.parentText);
  if ((await hub.resources.find(container)) !== undefined) return;
  if ((await hub.types.find(container.type)?.source?.get({ ...call, id: container })) !== undefined) return;
  throw new Fault("NotFound", `could not create ${id.text}: ${container.text} does not exist`, {
    evidence: { resourceId: container.text },
    action: "create what contains the resource first",
  });
}

function refuseOtherEtag(request: ArmRequest, existing: Resource | undefined): void {
  const isOther =
    request.ifMatch !== undefined && request.ifMatch !== existing?.etag && !(request.ifMatch === "*" && existing !== undefined);
  if (!isOther && !(request.ifNoneMatch === "*" && existing !== undefined)) return;
  throw new Fault("PreconditionFailed", `could not change ${request.path}: it is not in the state that the caller expects`, {
    evidence: { presentEtag: existing?.etag ?? "none", expectedEtag: request.ifMatch ?? "none" },
  });
}

/** RFC 7396: null removes, objects merge, anything else replaces. */
function mergePatch(present: JsonObject, change: JsonObject): JsonObject {
  const merged: Record<string, unknown> = { ...present };
  for (const [name, value] of Object.entries(change)) {
    const before = merged[name];
    if (value === null) delete merged[name];
    else merged[name] = isObject(value) && isObject(before) ? mergePatch(before, value) : value;
  }
  return merged;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function nextLink(request: ArmRequest, after: string | undefined): { readonly nextLink?: string } {
  if (after === undefined) return {};
  const query = new URLSearchParams({ ...request.query, $skiptoken: Buffer.from(after, "utf8").toString("base64url") });
  query.delete("skiptoken");
  return { nextLink: `${request.origin}${encodeURI(request.path)}?${query.toString()}` };
}

function fromSkipToken(token: string | undefined): string | undefined {
  return token === undefined ? undefined : Buffer.from(token, "base64url").toString("utf8");
}

function unknownType(type: string): Fault {
  return new Fault("NotFound", `could not call the resource type ${type}: this hub does not have it`, { evidence: { resourceType: type } });
}

function notSupported(request: ArmRequest, operations: readonly string[]): Fault {
  return new Fault("OperationNotSupported", `could not ${request.method} ${request.path}: this is not supported here`, {
    evidence: { operations },
  });
}
