// Azure Resource Manager ids: parsed and compared without case, names kept as given, extension resources included.

import { Fault } from "../../contract/errors.ts";

export interface ResourceId {
  /** As given, without a trailing slash. */
  readonly text: string;
  /** Lower case; equal keys are equal ids. */
  readonly key: string;
  readonly subscriptionId: string;
  readonly resourceGroup: string | undefined;
  /** "Microsoft.RecoveryServices/vaults/replicationFabrics"; the last provider's for an extension resource. */
  readonly type: string;
  readonly name: string;
  /** Every name of the type's path: one for each segment after the provider. */
  readonly names: readonly string[];
  /** Id of what contains it: parent resource, extended resource, resource group or subscription; "" for a subscription. */
  readonly parentText: string;
  readonly parentKey: string;
}

/** A path is an id, or an id followed by one segment: a child type to list or an action to call. */
export type ArmPath =
  | { readonly kind: "resource"; readonly id: ResourceId }
  | { readonly kind: "tail"; readonly scope: ResourceId; readonly provider: string | undefined; readonly segment: string };

const idCharactersMax = 2048;
const namePattern = /^[^<>%&?/\\#\p{Cc}]{1,260}$/u;
const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const providerPattern = /^[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9]*)+$/;
const typePattern = /^[A-Za-z][A-Za-z0-9]{0,79}$/;

const ownSegments = ["providers", "tagNames"] as const;
/** Told from types of the provider, which come in the same place. */
const providerActions = ["register", "unregister", "resourceTypes", "providerPermissions"];

export const subscriptionType = "Microsoft.Resources/subscriptions";
export const resourceGroupType = "Microsoft.Resources/resourceGroups";

/** Parses a whole id; anything else is Fault InputInvalid. */
export function parseResourceId(text: string): ResourceId {
  const path = parseArmPath(text);
  return path.kind === "resource" ? path.id : refuse(text, "it ends after a type without a name");
}

/** As parseResourceId. Ids of a list mostly differ from the one before only in their last name, and then cost little. */
export function parseNextId(text: string, before: ResourceId | undefined): ResourceId {
  const parent = before === undefined ? undefined : parentOf(before);
  if (before === undefined || parent === undefined || text.length > idCharactersMax) return parseResourceId(text);
  const start = before.text.length - before.name.length;
  const name = text.slice(start);
  if (!text.startsWith(before.text.slice(0, start)) || name.includes("/")) return parseResourceId(text);
  const { type, names, subscriptionId } = before;
  const prefix = before.text.slice(parent.text.length + 1, start - 1);
  if (type === subscriptionType || type === resourceGroupType) return parseResourceId(text);
  return make({ parent, prefix, name: checkName(name, text), type, names: names.slice(0, -1), subscriptionId });
}

/** Parses the path of a call (without query). */
export function parseArmPath(text: string): ArmPath {
  if (text.length > idCharactersMax) refuse(text, `it is longer than ${idCharactersMax} characters`);
  const trimmed = text.endsWith("/") ? text.slice(0, -1) : text;
  const [first, ...segments] = trimmed.split("/");
  if (first !== "") refuse(text, "it does not begin with /");
  const reader = { segments, position: 0 };
  if (!isWord(next(reader), "subscriptions")) refuse(text, "it does not begin with /subscriptions");
  const subscriptionId = next(reader) ?? refuse(text, "the subscription is missing");
  if (!uuidPattern.test(subscriptionId)) refuse(text, "the subscription is not a UUID");
  let id = make({ parent: undefined, prefix: "/subscriptions", name: subscriptionId, type: subscriptionType, names: [], subscriptionId });
  if (isWord(segments[2], "resourceGroups")) {
    reader.position = 3;
    const group = next(reader);
    if (group === undefined) return { kind: "tail", scope: id, provider: undefined, segment: "resourceGroups" };
    id = make({ parent: id, prefix: "resourceGroups", name: checkName(group, text), type: resourceGroupType, names: [], subscriptionId });
  }
  return readOfSubscription(id, segments.slice(reader.position), text) ?? readProviders(id, reader, text);
}

/** What a subscription has that stands behind no provider: the providers themselves, and the names of tags. */
function readOfSubscription(id: ResourceId, segments: readonly string[], text: string): ArmPath | undefined {
  const [first, name, action] = segments;
  const segment = ownSegments.find((own) => isWord(first, own));
  if (id.type !== subscriptionType || segment === undefined) return undefined;
  if (name === undefined) return { kind: "tail", scope: id, provider: undefined, segment };
  const isAction = segment === "tagNames" || providerActions.some((each) => isWord(action, each));
  if (segments.length > (isAction ? 3 : 2) && (segment === "providers" || segments.length > 4)) return undefined;
  if (segment === "providers" && !providerPattern.test(name)) refuse(text, "the provider is not a name like Microsoft.Network");
  const { subscriptionId } = id;
  const own = make({
    parent: id,
    prefix: segment,
    name: checkName(name, text),
    type: `${subscriptionType}/${segment}`,
    names: [],
    subscriptionId,
  });
  if (action === undefined) return { kind: "resource", id: own };
  const value = segments[3];
  if (value === undefined) return { kind: "tail", scope: own, provider: undefined, segment: checkType(action, text) };
  const type = `${own.type}/${checkType(action, text)}`;
  return {
    kind: "resource",
    id: make({ parent: own, prefix: action, name: checkName(value, text), type, names: own.names, subscriptionId }),
  };
}

/** The id of a resource below `parent`: "replicationFabrics", "site1". */
export function childId(parent: ResourceId, segment: string, name: string): ResourceId {
  return parseResourceId(`${parent.text}/${segment}/${name}`);
}

/** The id of the nearest container of the type, the id itself included; Fault InputInvalid when there is none. */
export function ancestorOfType(id: ResourceId, type: string): ResourceId {
  let present: ResourceId = id;
  const wanted = type.toLowerCase();
  while (present.type.toLowerCase() !== wanted) {
    present = parentOf(present) ?? refuse(id.text, `it is not inside a resource of type ${type}`);
  }
  return present;
}

/** What contains it; undefined for a subscription. */
export function parentOf(id: ResourceId): ResourceId | undefined {
  return parents.get(id) ?? (id.parentText === "" ? undefined : parseResourceId(id.parentText));
}

/** A parsed id has parsed what contains it too. Not a member: ids are compared and stored. */
const parents = new WeakMap<ResourceId, ResourceId>();

interface Reader {
  readonly segments: readonly string[];
  position: number;
}

function next(reader: Reader): string | undefined {
  const segment = reader.segments[reader.position];
  reader.position += 1;
  return segment;
}

function readProviders(scope: ResourceId, reader: Reader, text: string): ArmPath {
  let id = scope;
  let provider: string | undefined;
  let isFresh = false;
  while (reader.position < reader.segments.length) {
    const segment = next(reader) ?? "";
    if (isWord(segment, "providers")) {
      provider = next(reader) ?? refuse(text, "the provider is missing");
      if (!providerPattern.test(provider)) refuse(text, "the provider is not a name like Microsoft.Network");
      isFresh = true;
      continue;
    }
    const name = next(reader);
    if (name === undefined) return { kind: "tail", scope: id, provider: isFresh ? provider : undefined, segment: checkType(segment, text) };
    if (provider === undefined) refuse(text, "a provider must come before a type");
    const prefix = isFresh ? `providers/${provider}/${checkType(segment, text)}` : checkType(segment, text);
    const type = isFresh ? `${provider}/${segment}` : `${id.type}/${segment}`;
    const names = isFresh ? [] : id.names;
    id = make({ parent: id, prefix, name: checkName(name, text), type, names, subscriptionId: scope.subscriptionId });
    isFresh = false;
  }
  if (isFresh) refuse(text, "the type after the provider is missing");
  return { kind: "resource", id };
}

function make(parts: {
  readonly parent: ResourceId | undefined;
  readonly prefix: string;
  readonly name: string;
  readonly type: string;
  readonly names: readonly string[];
  readonly subscriptionId: string;
}): ResourceId {
  const parentText = parts.parent?.text ?? "";
  const text = parts.parent === undefined ? `${parts.prefix}/${parts.name}` : `${parentText}/${parts.prefix}/${parts.name}`;
  const isGroup = parts.type === resourceGroupType;
  const id = {
    text,
    key: text.toLowerCase(),
    subscriptionId: parts.subscriptionId,
    resourceGroup: isGroup ? parts.name : parts.parent?.resourceGroup,
    type: parts.type,
    name: parts.name,
    names: [...parts.names, parts.name],
    parentText,
    parentKey: parts.parent?.key ?? "",
  };
  if (parts.parent !== undefined) parents.set(id, parts.parent);
  return id;
}

function isWord(segment: string | undefined, word: string): boolean {
  return segment?.toLowerCase() === word.toLowerCase();
}

function checkName(name: string, text: string): string {
  return namePattern.test(name) && name !== "." && name !== ".."
    ? name
    : refuse(text, "a name is empty, too long or holds a forbidden character");
}

function checkType(segment: string, text: string): string {
  return typePattern.test(segment) ? segment : refuse(text, "a type has a forbidden character");
}

function refuse(text: string, reason: string): never {
  throw new Fault("InputInvalid", `could not read the resource id: ${reason}`, { evidence: { resourceId: text.slice(0, 300) } });
}
