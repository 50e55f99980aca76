// Lists: pages by an opaque token, filtered by the fields that the type names, each page at the same price.

import { ZodError } from "zod";
import {
  missing,
  missingAbove,
  presentMany,
  toCall,
  unknownType,
  canonicalId,
  type ArmAnswer,
  type ArmRequest,
  type ArmRouterDependencies,
} from "./arm-call.ts";
import { ArmFault } from "./arm-errors.ts";
import { parseFilter, refuseFilter, type Filter } from "./filter.ts";
import { resourceGroupType, type ResourceId } from "./resource-id.ts";
import type { ArmCall, ResourceType } from "./resource-type.ts";
import { requireSupportedVersion } from "./type-dialect.ts";

export interface ListPath {
  readonly scope: ResourceId;
  readonly provider: string | undefined;
  readonly segment: string;
}

interface Page {
  readonly after: string | undefined;
  readonly countMax: number;
  readonly filter: Filter | undefined;
}

const pageItems = 100;
const topMax = 1000;
const tokenCharactersMax = 4096;

/** The type that a path lists; undefined when it names none. */
export function listedType(hub: ArmRouterDependencies, { scope, provider, segment }: ListPath): ResourceType | undefined {
  if (provider !== undefined) return hub.types.find(`${provider}/${segment}`);
  return segment.toLowerCase() === "resourcegroups" ? hub.types.find(resourceGroupType) : hub.types.findListed(scope.type, segment);
}

export async function list(hub: ArmRouterDependencies, request: ArmRequest, path: ListPath): Promise<ArmAnswer> {
  const { provider, segment } = path;
  const type = listedType(hub, path);
  if (type === undefined) throw unknownType(provider === undefined ? `${path.scope.type}/${segment}` : `${provider}/${segment}`);
  requireSupportedVersion(type.type, request.query["api-version"] ?? "");
  const scope = await canonicalId(hub, path.scope, request.view);
  const call = toCall(request, scope);
  await hub.authorize(call, `${type.type}/read`, scope);
  await requireScope(hub, call);
  if (type.source?.whole !== undefined) return { status: 200, body: await type.source.whole(call) };
  const page = readPage(request, type);
  const answer = type.source === undefined ? await storedPage(hub, call, type, page, path) : await sourcePage(call, type.source, page);
  return { status: 200, body: { value: answer.items, ...nextLink(request, answer.next) } };
}

interface Items {
  readonly items: readonly unknown[];
  readonly next: string | undefined;
}

async function storedPage(hub: ArmRouterDependencies, call: ArmCall, type: ResourceType, page: Page, path: ListPath): Promise<Items> {
  const { after, countMax, filter } = page;
  const isDeep = path.provider !== undefined || type.isListedUnderAncestors === true;
  const rows = await hub.resources.list({
    under: call.id.text,
    isDeep,
    type: type.type,
    afterKey: after ?? "",
    countMax: countMax + 1,
    ...(type.presentMany === undefined ? {} : { without: type.unlisted }),
    ...(filter === undefined ? {} : { filter: { filter, fields: type.filter?.fields ?? {} } }),
  });
  const shown = rows.slice(0, countMax);
  const items = await presentMany(type, shown);
  return { items, next: rows.length > countMax ? shown.at(-1)?.id.key : undefined };
}

/** A token is only a place in an order, but it comes back from outside: one that its source cannot read is the caller's fault. */
async function sourcePage(call: ArmCall, source: NonNullable<ResourceType["source"]>, page: Page): Promise<Items> {
  try {
    return await source.list(call, page);
  } catch (error) {
    if (page.after !== undefined && error instanceof ZodError) refuseToken();
    throw error;
  }
}

/** A list under something that does not exist is an error, never an empty list. */
async function requireScope(hub: ArmRouterDependencies, call: ArmCall): Promise<void> {
  const { id, view } = call;
  if ((view?.keys[0] === id.key ? view.texts : await hub.resources.textsOf([id.key])).has(id.key)) return;
  const above = await missingAbove(hub, call);
  if (above !== undefined) throw above;
  if ((await hub.types.find(id.type)?.source?.get(call)) === undefined) throw missing(hub, id);
}

function readPage(request: ArmRequest, type: ResourceType): Page {
  const { query } = request;
  const text = query["$filter"] ?? query["filter"];
  return {
    after: readToken(query["$skiptoken"] ?? query["skiptoken"]),
    countMax: readTop(query["$top"] ?? query["top"] ?? query["take"]),
    filter: text === undefined || text.trim() === "" ? undefined : readFilter(text, type),
  };
}

/** A source without a grammar of its own reads `$filter` from the call's query, if it knows filters at all. */
function readFilter(text: string, type: ResourceType): Filter | undefined {
  if (type.filter === undefined && type.source !== undefined) return undefined;
  if (type.filter === undefined) refuseFilter(text, `lists of ${type.type} cannot be filtered`, []);
  return parseFilter(text, type.filter);
}

/** The most that one page shows. Clients follow nextLink for the rest. */
function readTop(top: string | undefined): number {
  if (top === undefined || top === "") return pageItems;
  const count = /^\d{1,6}$/.test(top) ? Number(top) : 0;
  if (count >= 1 && count <= topMax) return Math.min(count, pageItems);
  throw new ArmFault("InputInvalid", "InvalidTopParameter", "could not read $top: it is not a whole number in its bounds", {
    evidence: { top: top.slice(0, 100), smallest: 1, largest: topMax },
    target: "$top",
  });
}

function readToken(token: string | undefined): string | undefined {
  if (token === undefined || token === "") return undefined;
  if (token.length > tokenCharactersMax || !/^[\w-]+$/.test(token)) refuseToken();
  return Buffer.from(token, "base64url").toString("utf8");
}

function refuseToken(): never {
  throw new ArmFault("InputInvalid", "InvalidSkipToken", "could not read $skipToken: it is not one that this list gave", {
    action: "begin the list again without a token, and follow its nextLink unchanged",
    target: "$skipToken",
  });
}

function nextLink(request: ArmRequest, after: string | undefined): { readonly nextLink?: string } {
  if (after === undefined) return {};
  const query = new URLSearchParams({ ...request.query, $skiptoken: Buffer.from(after, "utf8").toString("base64url") });
  query.delete("skiptoken");
  return { nextLink: `${request.origin}${encodeURI(request.path)}?${query.toString()}` };
}
