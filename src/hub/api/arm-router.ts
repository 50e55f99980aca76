// Dispatch of ARM calls: path → type → rights → audit → hook → answer. The only way from a request to a change.

import type { JsonObject } from "../db/resources.ts";
import { act, callCollection, callType, findAction, findCollectionAction, methodsOfAction } from "./arm-action.ts";
import {
  canonicalId,
  findType,
  missing,
  missingAbove,
  notSupported,
  present,
  refuseAbsent,
  storedAtBegin,
  toCall,
  type ArmAnswer,
  type ArmRequest,
  type ArmRouterDependencies,
} from "./arm-call.ts";
import { list, listedType } from "./arm-list.ts";
import { audited } from "./audited.ts";
import { findOperation } from "./arm-operations.ts";
import { isDeletable, isPatchable, isWritable, methodsOf, patch, put, remove } from "./arm-write.ts";
import { etagOf, namesEtag } from "./etags.ts";
import { parseArmPath, type ResourceId } from "./resource-id.ts";
import type { ArmCall, ResourceType, TypeTable } from "./resource-type.ts";
import { requireApiVersion } from "./type-dialect.ts";

export type ArmRouter = (request: ArmRequest) => Promise<ArmAnswer>;

export function createArmRouter(dependencies: ArmRouterDependencies): ArmRouter {
  const show = async (id: ResourceId): Promise<JsonObject | undefined> => {
    const [type, resource] = [dependencies.types.find(id.type), await dependencies.resources.find(id)];
    return type === undefined || resource === undefined ? undefined : await present(type, resource);
  };
  return async (request) => {
    requireApiVersion(request.query["api-version"]);
    const path = parseArmPath(request.path);
    if (path.kind === "resource") {
      const found = await findOperation({ ...dependencies, show }, request, path.id);
      if (found === undefined) return await onResource(dependencies, request, path.id);
      const type = dependencies.types.find(found.type);
      if (type !== undefined) dependencies.onAnswer?.({ type, what: found.what, method: "GET", sent: undefined, answer: found.answer });
      return found.answer;
    }
    const action = findAction(dependencies, path);
    const type = listedType(dependencies, path);
    if (request.method === "GET" && type !== undefined && (action === undefined || !methodsOfAction(action.definition).includes("GET"))) {
      const answer = await list(dependencies, request, path);
      dependencies.onAnswer?.({ type, what: "list", method: "GET", sent: undefined, answer });
      return answer;
    }
    return action === undefined ? await callType(dependencies, request, path) : await act(dependencies, request, path, action);
  };
}

/** The route table as rights see it: one line for each thing that can be asked. For the rights tests and the documents of docs/api. */
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
      ...(isPatchable(type) ? [route("PATCH", "write")] : []),
      ...(isDeletable(type) ? [route("DELETE", "delete")] : []),
      ...Object.entries(type.actions ?? {}).flatMap(([name, definition]) =>
        methodsOfAction(definition).map((method) => route(method, method === "GET" ? `${name}/read` : `${name}/action`)),
      ),
      ...Object.keys(type.collectionActions ?? {}).map((name) => route("POST", `${name}/action`)),
      ...(type.onCall === undefined ? [] : [route("POST", "action")]),
    ];
  });
}

async function onResource(hub: ArmRouterDependencies, request: ArmRequest, given: ResourceId): Promise<ArmAnswer> {
  const type = findType(hub, given, request.query["api-version"] ?? "");
  if (request.method === "POST" && findCollectionAction(type, given) !== undefined) return await callCollection(hub, request, given, type);
  const methods = methodsOf(type);
  if (!methods.includes(request.method)) throw notSupported(request, methods);
  const call = toCall(request, await canonicalId(hub, given, request.view));
  const answer = await dispatch(hub, request, call, type);
  hub.onAnswer?.({ type, what: "resource", method: request.method, sent: request.body, answer });
  return answer;
}

async function dispatch(hub: ArmRouterDependencies, request: ArmRequest, call: ArmCall, type: ResourceType): Promise<ArmAnswer> {
  const before = async (): Promise<JsonObject | undefined> => await shown(hub, call, type);
  const change = async (verb: "write" | "delete", write: typeof put): Promise<ArmAnswer> => {
    const work = async (): Promise<ArmAnswer> =>
      type.absent === undefined ? await write(hub, call, type, request) : refuseAbsent(call, type.absent);
    return await audited(hub, { call, action: `${type.type}/${verb}`, before, work });
  };
  switch (request.method) {
    case "PUT":
      return await change("write", put);
    case "PATCH":
      return await change("write", patch);
    case "DELETE":
      return await change("delete", remove);
    default:
      await hub.authorize(call, `${type.type}/read`, call.id);
      return await read(hub, request, call, type);
  }
}

/** HEAD asks whether it is there: 204. A GET whose If-None-Match names the present tag is 304. */
async function read(hub: ArmRouterDependencies, request: ArmRequest, call: ArmCall, type: ResourceType): Promise<ArmAnswer> {
  const body = await shown(hub, call, type);
  if (body === undefined) throw (type.absent === undefined ? await missingAbove(hub, call) : undefined) ?? missing(hub, call.id);
  const etag = typeof body["etag"] === "string" ? body["etag"] : etagOf(body);
  const headers = { etag };
  if (request.method === "HEAD") return { status: 204, headers };
  if (request.ifNoneMatch !== undefined && namesEtag(request.ifNoneMatch, etag)) return { status: 304, headers };
  return { status: 200, headers, body };
}

async function shown(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType): Promise<JsonObject | undefined> {
  if (type.source !== undefined) return await type.source.get(call);
  const resource = await storedAtBegin(hub.resources, call);
  return resource === undefined ? undefined : await present(type, resource);
}
