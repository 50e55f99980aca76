// Every resource of a subscription or group in one list, the tags in use, and the tags of one resource as a resource of their own.

import { sql, type Kysely } from "kysely";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { passesFilter, type Filter } from "../api/filter.ts";
import { parseResourceId, resourceGroupType, subscriptionType } from "../api/resource-id.ts";
import { defineResource, type ArmCall, type ResourceType, type TypeTable, type WriteOutcome } from "../api/resource-type.ts";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import { listTagged, tagGrammar } from "../db/tagged-resources.ts";
import type { Tables } from "../db/tables.ts";

const grammar = tagGrammar(["tagName", "tagValue", "name", "location", "resourceType", "resourceGroup"]);
const shownMembers = ["location", "tags", "sku", "kind", "identity", "managedBy", "plan"];
const tagsMax = 50;
const tagNamesShownMax = 1000;
const tagValuesShownMax = 100;

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly resources: ResourceStore;
  readonly types: () => TypeTable;
}

export function resourceListTypes(dependencies: Dependencies): readonly ResourceType[] {
  return [
    listOf(dependencies, `${subscriptionType}/resources`),
    listOf(dependencies, `${resourceGroupType}/resources`),
    tagNameType(dependencies),
    tagsType(dependencies),
  ];
}

function listOf(dependencies: Dependencies, type: string): ResourceType {
  return defineResource({
    type,
    within: "parent",
    properties: z.looseObject({}),
    filter: grammar,
    onPut: "refuse",
    onDelete: "refuse",
    source: { get: async () => undefined, list: async (call, page) => await listResources(dependencies, call, page) },
  });
}

interface Page {
  readonly after: string | undefined;
  readonly countMax: number;
  readonly filter?: Filter | undefined;
}

/** One type after the other, in the order of their names; a token is a type and the place in its list. */
async function listResources(
  { db, types }: Dependencies,
  call: ArmCall,
  page: Page,
): Promise<{ readonly items: readonly JsonObject[]; readonly next: string | undefined }> {
  const asked = typeOf(page.filter);
  const listed = types()
    .types.filter((type) => type.within === "resourceGroup" && type.absent === undefined && type.onCall === undefined)
    .filter((type) => asked === undefined || type.type.toLowerCase() === asked)
    .toSorted((left, right) => (left.type < right.type ? -1 : 1));
  const token = page.after ?? " ";
  const [firstType, place] = [token.slice(0, token.indexOf(" ")), token.slice(token.indexOf(" ") + 1)];
  const items: JsonObject[] = [];
  for (const type of listed) {
    if (type.type < firstType) continue;
    const after = type.type === firstType && place !== "" ? place : undefined;
    const countMax = page.countMax - items.length;
    const part = await pageOf(db, call, type, { ...page, after, countMax });
    items.push(...part.items);
    if (part.next !== undefined) return { items, next: `${type.type} ${part.next}` };
    const following = listed[listed.indexOf(type) + 1];
    if (items.length >= page.countMax && following !== undefined) return { items, next: `${following.type} ` };
  }
  return { items, next: undefined };
}

/** A type that is asked for alone, as most callers do, is the only one that is looked at. */
function typeOf(filter: Filter | undefined): string | undefined {
  if (filter?.kind === "and") return filter.parts.map(typeOf).find((type) => type !== undefined);
  const isType = filter?.kind === "compare" && filter.field === "resourceType" && filter.operator === "eq";
  return isType ? String(filter.value).toLowerCase() : undefined;
}

async function pageOf(
  db: Kysely<Tables>,
  call: ArmCall,
  type: ResourceType,
  { after, countMax, filter }: Page,
): Promise<{ readonly items: readonly JsonObject[]; readonly next: string | undefined }> {
  const isExpanded = (call.query["$expand"] ?? "").toLowerCase();
  if (type.source === undefined) {
    const rows = await listTagged(db, { under: call.id.key, type: type.type, after, countMax, filter });
    return { items: rows.items.map((row) => showRow(row, type.type, isExpanded)), next: rows.next };
  }
  const part = await type.source.list(call, { after, countMax });
  const items = part.items
    .filter((item) => typeof item["id"] === "string" && passes(filter, item, type.type))
    .map((item) => showItem(item));
  return { items, next: part.next };
}

function passes(filter: Filter | undefined, item: JsonObject, type: string): boolean {
  if (filter === undefined) return true;
  const tags = z.record(z.string(), z.string()).safeParse(item["tags"]).data ?? {};
  // What is not stored by itself has few tags, or none: each is held against the filter alone.
  const pairs = Object.entries(tags).length === 0 ? [["", ""] as const] : Object.entries(tags);
  const resourceGroup = parseResourceId(String(item["id"])).resourceGroup;
  const fields = {
    ...Object.fromEntries(Object.entries(grammar.fields).map(([name, field]) => [name, field])),
    tagName: { kind: "text" as const, path: ["tagName"] },
    tagValue: { kind: "text" as const, path: ["tagValue"] },
  };
  return pairs.some(([tagName, tagValue]) => passesFilter(filter, fields, { ...item, type, resourceGroup, tagName, tagValue }));
}

function showRow(row: Resource, type: string, isExpanded: string): JsonObject {
  return {
    id: row.id.text,
    name: row.id.name,
    type,
    ...pick({ location: row.location, ...row.envelope }),
    ...(isExpanded.includes("createdtime") ? { createdTime: row.createdAt } : {}),
    ...(isExpanded.includes("changedtime") ? { changedTime: row.updatedAt } : {}),
    ...(isExpanded.includes("provisioningstate") ? { provisioningState: row.provisioningState } : {}),
  };
}

function showItem(item: JsonObject): JsonObject {
  return { id: item["id"], name: item["name"], type: item["type"], ...pick(item) };
}

function pick(from: JsonObject): JsonObject {
  return Object.fromEntries(shownMembers.flatMap((name) => (from[name] === undefined ? [] : [[name, from[name]]])));
}

/** The tags in use, with how many resources have each; a tag comes to be by being set on a resource. */
function tagNameType({ db }: Dependencies): ResourceType {
  const type = `${subscriptionType}/tagNames`;
  const refuse = (name: string): never => {
    throw new Fault("OperationNotSupported", `could not change the tag ${name}: a tag comes and goes with the resources that have it`, {
      evidence: { tag: name },
      action: "set or remove the tag on the resources themselves",
    });
  };
  return defineResource({
    type,
    within: "parent",
    properties: z.looseObject({}),
    source: {
      get: async ({ id }) => ({ id: id.text, tagName: id.name }),
      list: async ({ id }) => ({ items: await listTags(db, id.key), next: undefined }),
    },
    onPut: async ({ id }) => refuse(id.name),
    onDelete: async ({ id }) => refuse(id.name),
  });
}

async function listTags(db: Kysely<Tables>, subscriptionKey: string): Promise<readonly JsonObject[]> {
  const found = await sql<{ name: string; value: string; count: string }>`
    select min(tag.key) as name, tag.value as value, count(*) as count
    from resources, lateral jsonb_each_text(case when jsonb_typeof(envelope->'tags') = 'object' then envelope->'tags' else '{}'::jsonb end) as tag
    where envelope ? 'tags' and starts_with(resources.key, ${subscriptionKey})
    group by lower(tag.key), tag.value order by lower(tag.key), tag.value limit ${tagNamesShownMax * tagValuesShownMax}`.execute(db);
  const byName = new Map<string, { readonly name: string; readonly values: { readonly value: string; readonly count: number }[] }>();
  for (const { name, value, count } of found.rows) {
    const entry = byName.get(name.toLowerCase()) ?? { name, values: [] };
    entry.values.push({ value, count: Number(count) });
    byName.set(name.toLowerCase(), entry);
  }
  return [...byName.values()].slice(0, tagNamesShownMax).map(({ name, values }) => {
    const id = `${subscriptionKey}/tagNames/${name}`;
    const count = (sum: number): JsonObject => ({ type: "Total", value: sum });
    return {
      id,
      tagName: name,
      count: count(values.reduce((sum, each) => sum + each.count, 0)),
      values: values.slice(0, tagValuesShownMax).map((each) => ({
        id: `${id}/tagValues/${each.value}`,
        tagValue: each.value,
        count: count(each.count),
      })),
    };
  });
}

const tagsShape = z.record(
  z
    .string()
    .min(1)
    .max(512)
    .regex(/^[^<>%&\\?/]+$/, "no < > % & \\ ? /"),
  z.string().max(256),
);
const tagsPropertiesShape = z.strictObject({ tags: tagsShape.optional() });
const operationShape = z.enum(["Merge", "Replace", "Delete"]);

/** Microsoft.Resources/tags/default: the tags of the scope, and nothing else of it. */
function tagsType({ resources }: Dependencies): ResourceType {
  const type = "Microsoft.Resources/tags";
  const show = async (id: ArmCall["id"]): Promise<JsonObject | undefined> => {
    const resource = id.name.toLowerCase() === "default" ? await resources.find(id.parentText) : undefined;
    if (resource === undefined) return undefined;
    return { id: `${resource.id.text}/providers/${type}/default`, name: "default", type, properties: { tags: tagsOf(resource) } };
  };
  const change = async (
    call: ArmCall,
    work: (before: Readonly<Record<string, string>>) => Readonly<Record<string, string>>,
  ): Promise<WriteOutcome> => {
    if (call.id.name.toLowerCase() !== "default")
      throw new Fault("InputInvalid", "could not set the tags: the tags of a resource are named default");
    const changed = await resources.update(call.id.parentText, (resource) => {
      const tags = work(tagsOf(resource));
      if (Object.keys(tags).length > tagsMax)
        throw new Fault("InputInvalid", `could not set the tags: a resource has at most ${tagsMax}`, {
          evidence: { given: Object.keys(tags).length, most: tagsMax },
        });
      return { envelope: { ...resource.envelope, tags } };
    });
    if (changed === undefined)
      throw new Fault("OperationNotSupported", "could not set the tags: this resource is part of another and has none of its own", {
        evidence: { resourceId: call.id.parentText },
      });
    return { kind: "answered", body: (await show(call.id)) ?? {} };
  };
  return defineResource({
    type,
    within: "anything",
    canPatch: true,
    properties: tagsPropertiesShape,
    source: {
      get: async ({ id }) => await show(id),
      list: async ({ id }) => {
        const shown = await show(parseResourceId(`${id.text}/providers/${type}/default`));
        return { items: shown === undefined ? [] : [shown], next: undefined };
      },
    },
    onPut: async (call, { properties }) => await change(call, () => properties.tags ?? {}),
    onPatch: async (call, { envelope }, patch) => {
      const operation = operationShape.safeParse(envelope["operation"]).data;
      if (operation === undefined)
        throw new Fault("InputInvalid", "could not change the tags: operation is not Merge, Replace or Delete", {
          evidence: { allowed: operationShape.options },
        });
      const tags = tagsPropertiesShape.parse(patch).tags ?? {};
      return await change(call, (before) => {
        if (operation === "Replace") return tags;
        if (operation === "Merge") return { ...before, ...tags };
        // A tag is deleted when its value is the one that is named.
        return Object.fromEntries(Object.entries(before).filter(([name, value]) => tags[name] !== value));
      });
    },
    onDelete: async (call) => {
      await change(call, () => ({}));
      return { kind: "done" };
    },
  });
}

function tagsOf({ envelope }: Resource): Readonly<Record<string, string>> {
  return z.record(z.string(), z.string()).safeParse(envelope["tags"]).data ?? {};
}
