// Pages of resources of one type by their tags, names and places, as ARM's own lists filter them; each page by one query.

import { sql, type Kysely, type RawBuilder } from "kysely";
import type { Comparison, Filter, FilterGrammar } from "../api/filter.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { ProvisioningState, Resource } from "./resources.ts";
import type { Tables } from "./tables.ts";

const paths = {
  tagName: ["tags"],
  tagValue: ["tags"],
  name: ["name"],
  location: ["location"],
  resourceType: ["type"],
  resourceGroup: ["resourceGroup"],
} as const;
type TagField = keyof typeof paths;

/** What a `$filter` of these lists may name. */
export function tagGrammar(names: readonly TagField[]): FilterGrammar {
  return { fields: Object.fromEntries(names.map((name) => [name, { kind: "text" as const, path: paths[name] }])) };
}

export interface TaggedPage {
  /** Key of what the resources stand in, however deep. */
  readonly under: string;
  readonly type: string;
  readonly after?: string | undefined;
  readonly countMax: number;
  readonly filter?: Filter | undefined;
}

/** In key order; `next` is the last key when there may be more. */
export async function listTagged(
  db: Kysely<Tables>,
  { under, type, after, countMax, filter }: TaggedPage,
): Promise<{ readonly items: readonly Resource[]; readonly next: string | undefined }> {
  const rows = await db
    .selectFrom("resources")
    .selectAll()
    .where("type", "=", type.toLowerCase())
    .where(sql<boolean>`key ~>~ ${after ?? `${under}/`} and key ~<~ ${`${under}0`}`)
    .where(filter === undefined ? sql<boolean>`true` : toCondition(filter))
    .orderBy(sql`key using ~<~`)
    .limit(countMax + 1)
    .execute();
  const items = rows.slice(0, countMax).map((row): Resource => ({
    id: parseResourceId(row.id),
    location: row.location ?? undefined,
    envelope: row.envelope,
    properties: row.properties,
    provisioningState: row.provisioning_state as ProvisioningState, // Only resources.ts and jobs write the column.
    etag: row.etag,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }));
  return { items, next: rows.length > countMax ? items.at(-1)?.id.key : undefined };
}

const tags = sql`case when jsonb_typeof(envelope->'tags') = 'object' then envelope->'tags' else '{}'::jsonb end`;

function toCondition(filter: Filter): RawBuilder<boolean> {
  switch (filter.kind) {
    case "call":
      return sql<boolean>`true`;
    case "compare":
      return toComparison(filter);
    case "or":
      return sql<boolean>`(${sql.join(filter.parts.map(toCondition), sql` or `)})`;
    case "and": {
      // tagName and tagValue together mean one tag that has both.
      const name = filter.parts.find((part) => isEqual(part, "tagName"));
      const value = filter.parts.find((part) => isEqual(part, "tagValue"));
      if (name === undefined || value === undefined) return sql<boolean>`(${sql.join(filter.parts.map(toCondition), sql` and `)})`;
      const rest = filter.parts.filter((part) => part !== name && part !== value).map(toCondition);
      return sql<boolean>`(${sql.join([hasTag({ name: String(name.value), value: String(value.value) }), ...rest], sql` and `)})`;
    }
  }
}

function isEqual(part: Filter, field: TagField): part is Comparison {
  return part.kind === "compare" && part.field === field && part.operator === "eq";
}

/** Names of tags have no case; values have. */
function hasTag(tag: { readonly name?: string; readonly value?: string }): RawBuilder<boolean> {
  const name = tag.name === undefined ? sql`true` : sql`lower(tag.key) = ${tag.name.toLowerCase()}`;
  const value = tag.value === undefined ? sql`true` : sql`tag.value = ${tag.value}`;
  return sql<boolean>`exists (select 1 from jsonb_each_text(${tags}) as tag where ${name} and ${value})`;
}

function toComparison({ field, operator, value }: Comparison): RawBuilder<boolean> {
  const found = conditionOf(field, String(value));
  return operator === "ne" ? sql<boolean>`not coalesce(${found}, false)` : found;
}

function conditionOf(field: string, value: string): RawBuilder<boolean> {
  switch (field) {
    case "tagName":
      return hasTag({ name: value });
    case "tagValue":
      return hasTag({ value });
    case "resourceType":
      return sql<boolean>`type = ${value.toLowerCase()}`;
    case "resourceGroup":
      return sql<boolean>`lower(split_part(key, '/', 5)) = ${value.toLowerCase()}`;
    case "name":
      return sql<boolean>`lower(name) = ${value.toLowerCase()}`;
    default:
      return sql<boolean>`lower(location) = ${value.toLowerCase()}`;
  }
}
