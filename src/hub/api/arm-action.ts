// Actions: a name after a resource's id, posted, or read by GET where the type says so.

import {
  canonicalId,
  findResource,
  findType,
  missing,
  missingAbove,
  notSupported,
  refuseAbsent,
  toCall,
  unknownType,
  type ArmAnswer,
  type ArmRequest,
  type ArmRouterDependencies,
} from "./arm-call.ts";
import { audited } from "./audited.ts";
import { listedType, type ListPath } from "./arm-list.ts";
import { parseInput } from "./arm-errors.ts";
import { operationHeaders } from "./arm-operations.ts";
import type { ResourceId } from "./resource-id.ts";
import type { ActionDefinition, ActionOutcome, ArmCall, ResourceType } from "./resource-type.ts";
import { requireSupportedVersion } from "./type-dialect.ts";

export interface FoundAction {
  readonly name: string;
  readonly definition: ActionDefinition;
}

/** The action that the path's last segment names. */
export function findAction(hub: ArmRouterDependencies, { scope, provider, segment }: ListPath): FoundAction | undefined {
  if (provider !== undefined) return undefined;
  const actions = Object.entries(hub.types.find(scope.type)?.actions ?? {});
  const found = actions.find(([name]) => name.toLowerCase() === segment.toLowerCase());
  return found === undefined ? undefined : { name: found[0], definition: found[1] };
}

export function methodsOfAction({ isGet }: ActionDefinition): readonly string[] {
  return isGet === "also" ? ["GET", "POST"] : [isGet === true ? "GET" : "POST"];
}

export async function act(hub: ArmRouterDependencies, request: ArmRequest, path: ListPath, found: FoundAction): Promise<ArmAnswer> {
  const { name, definition } = found;
  const type = findType(hub, path.scope, request.query["api-version"] ?? "");
  if (!methodsOfAction(definition).includes(request.method)) throw notSupported(request, methodsOfAction(definition));
  const call = toCall(request, await canonicalId(hub, path.scope, request.view));
  const run = async (): Promise<ArmAnswer> => await perform(hub, call, type, request, definition);
  const answer = await gate(hub, call, `${type.type}/${name}`, request.method, definition, run);
  hub.onAnswer?.({ type, what: "action", method: request.method, action: name, sent: request.body, answer });
  return answer;
}

async function gate(
  hub: ArmRouterDependencies,
  call: ArmCall,
  operation: string,
  method: string,
  definition: Pick<ActionDefinition, "isRead">,
  run: () => Promise<ArmAnswer>,
): Promise<ArmAnswer> {
  const action = method === "GET" ? `${operation}/read` : `${operation}/action`;
  if (method !== "GET" && definition.isRead !== true) return await audited(hub, { call, action, work: run });
  await hub.authorize(call, action, call.id);
  return await run();
}

/** What to say about a POST to something that is no action: a list that can only be read, or nothing at all. */
function refuseAction(hub: ArmRouterDependencies, request: ArmRequest, path: ListPath): never {
  if (listedType(hub, path) !== undefined) throw notSupported(request, ["GET"]);
  if (hub.types.find(path.scope.type) === undefined) throw unknownType(path.scope.type);
  throw unknownType(path.provider === undefined ? `${path.scope.type}/${path.segment}` : `${path.provider}/${path.segment}`);
}

async function perform(
  hub: ArmRouterDependencies,
  call: ArmCall,
  type: ResourceType,
  request: ArmRequest,
  definition: ActionDefinition,
): Promise<ArmAnswer> {
  if (type.absent !== undefined) refuseAbsent(call, type.absent);
  const resource = await findResource(hub, call, type);
  if (resource === undefined) throw (await missingAbove(hub, call)) ?? missing(hub, call.id);
  const body = parseInput(definition.body, request.body ?? {}, "the action's body");
  return answerOf(request, call.id, await definition.run(call, body, resource));
}

/** A POST on a type under its container: {subscription}/providers/Microsoft.Storage/checkNameAvailability. */
export async function callType(hub: ArmRouterDependencies, request: ArmRequest, path: ListPath): Promise<ArmAnswer> {
  const type = hub.types.find(`${path.provider ?? ""}/${path.segment}`);
  const onCall = type?.onCall;
  if (type === undefined || onCall === undefined) return refuseAction(hub, request, path);
  requireSupportedVersion(type.type, request.query["api-version"] ?? "");
  const call = toCall(request, await canonicalId(hub, path.scope, request.view));
  const run = async (): Promise<ArmAnswer> =>
    answerOf(request, call.id, await onCall.run(call, parseInput(onCall.body, request.body ?? {}, "the call's body")));
  const answer = await gate(hub, call, type.type, "POST", onCall, run);
  hub.onAnswer?.({ type, what: "call", method: "POST", sent: request.body, answer });
  return answer;
}

/** POST {container}/{type}/{action}: a path that looks like one of a resource, because the collection has no name of its own. */
export async function callCollection(
  hub: ArmRouterDependencies,
  request: ArmRequest,
  given: ResourceId,
  type: ResourceType,
): Promise<ArmAnswer> {
  const found = findCollectionAction(type, given);
  if (found === undefined) throw unknownType(given.type);
  const { name, definition } = found;
  const call = toCall(request, await canonicalId(hub, given, request.view));
  const run = async (): Promise<ArmAnswer> =>
    answerOf(request, call.id, await definition.run(call, parseInput(definition.body, request.body ?? {}, "the action's body")));
  const answer = await gate(hub, call, `${type.type}/${name}`, "POST", definition, run);
  hub.onAnswer?.({ type, what: "collectionAction", method: "POST", action: name, sent: request.body, answer });
  return answer;
}

export function findCollectionAction(
  type: ResourceType,
  id: ResourceId,
): { readonly name: string; readonly definition: NonNullable<ResourceType["onCall"]> } | undefined {
  const found = Object.entries(type.collectionActions ?? {}).find(([name]) => name.toLowerCase() === id.name.toLowerCase());
  return found === undefined ? undefined : { name: found[0], definition: found[1] };
}

function answerOf(request: ArmRequest, id: ResourceId, outcome: ActionOutcome): ArmAnswer {
  if (outcome.kind === "accepted") return { status: 202, headers: operationHeaders(request, id, outcome.operationId) };
  return outcome.body === undefined ? { status: 204 } : { status: 200, body: outcome.body };
}
