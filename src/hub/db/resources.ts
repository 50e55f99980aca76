// Resources of every type in one table: the intent that ARM clients stated, with etag and provisioning state.

import { sql, type Kysely, type Selectable, type SqlBool } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import type { Filter, FilterFields } from "../api/filter.ts";
import { parseNextId, parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { toCondition } from "./resource-filter.ts";
import type { ResourceTable, Tables } from "./tables.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

/** Accepted, Updating and the like are named by the type; Succeeded, Failed and Canceled are ARM's terminal states. */
export type ProvisioningState = "Succeeded" | "Failed" | "Canceled" | "Accepted" | "Creating" | "Updating" | "Deleting";

export interface Resource {
  readonly id: ResourceId;
  readonly location: string | undefined;
  /** tags, sku, kind, identity as answered to clients. */
  readonly envelope: JsonObject;
  readonly properties: JsonObject;
  readonly provisioningState: ProvisioningState;
  readonly etag: string;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export interface SaveResource {
  readonly id: ResourceId;
  readonly location?: string | undefined;
  readonly envelope?: JsonObject;
  readonly properties: JsonObject;
  readonly provisioningState?: ProvisioningState;
  /** Refuses with PreconditionFailed unless the stored etag is this one; undefined skips the check. */
  readonly ifMatch?: string | undefined;
  /** Refuses with PreconditionFailed when the resource exists. */
  readonly mustBeNew?: boolean;
}

export interface ListResources {
  /** Everything directly under this id; or, with isDeep, anywhere below it. */
  readonly under: string;
  readonly isDeep?: boolean;
  readonly type: string;
  readonly afterKey?: string;
  readonly countMax: number;
  /** Properties that the caller does without: they are neither sent nor parsed. */
  readonly without?: readonly string[] | undefined;
  /** Leaves out what does not pass. */
  readonly filter?: { readonly filter: Filter; readonly fields: FilterFields };
}

/** What is not named stays as it is. */
export type ResourceChange = (present: Resource) => {
  readonly properties?: JsonObject;
  readonly envelope?: JsonObject;
  readonly provisioningState?: ProvisioningState;
};

/** The resource store. Every call is one statement or one transaction; durable on return. */
export interface ResourceStore {
  find(id: ResourceId | string): Promise<Resource | undefined>;
  /** As find, but an unknown id is Fault NotFound. */
  get(id: ResourceId | string): Promise<Resource>;
  /** Creates or replaces. Answers the stored resource and whether it is new. */
  save(wanted: SaveResource): Promise<{ readonly resource: Resource; readonly isNew: boolean }>;
  /** Changes properties by a pure function under a row lock; undefined when the resource is gone. */
  update(id: ResourceId | string, change: ResourceChange): Promise<Resource | undefined>;
  /**
   * For a removal under a condition: from here on, until `remove` or `release`, nobody else writes or claims the resource. False when it no
   * longer has this etag, or another has claimed it. A claim whose hub died ends by itself.
   */
  claim(id: ResourceId, etag: string): Promise<boolean>;
  /** Ends a claim without removing. */
  release(id: ResourceId): Promise<void>;
  /** Removes the resource and everything below it; false when it was not there. */
  remove(id: ResourceId | string): Promise<boolean>;
  list(wanted: ListResources): Promise<readonly Resource[]>;
  /** Of these keys, the stored ids as they were first written: key → text. One statement. */
  textsOf(keys: readonly string[]): Promise<ReadonlyMap<string, string>>;
  /** Every resource of a type, in key order; for start-up and reconcilers. */
  all(type: string): AsyncIterable<Resource>;
  /** How many children of each type, in lower case, stand directly under an id. */
  countChildren(id: ResourceId | string): Promise<ReadonlyMap<string, number>>;
  /** Those of a type that have this value, compared without case, by an index: as quick with many as with few. In key order. */
  having(wanted: HavingResources): Promise<readonly Resource[]>;
}

export interface HavingResources {
  readonly type: string;
  readonly property: IndexedProperty;
  readonly value: string;
}

/**
 * name; what a private endpoint leads to; the zone group that made a DNS record; a vault's own id. Each has an index in
 * migrations.ts with the same expression.
 */
export type IndexedProperty = "name" | "linkedTo" | "creator" | "vaultId";

const indexedProperties: Readonly<Record<IndexedProperty, string>> = {
  name: "lower(name)",
  linkedTo: "lower(properties->'privateLinkServiceConnections'->0->'properties'->>'privateLinkServiceId')",
  creator: "lower(properties->'metadata'->>'creator')",
  vaultId: "lower(properties->>'watariVaultId')",
};

/** Longer than any call that removes a resource at once may take. */
const claimMs = 180_000;
const pageRows = 200;
/** More than one endpoint leads to a resource, or more than one record is made by a group, but never this many. */
const havingMax = 10_000;

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly clock: Clock;
  readonly random: Random;
}

export function openResourceStore(dependencies: Dependencies): ResourceStore {
  const { db } = dependencies;
  const find = async (id: ResourceId | string): Promise<Resource | undefined> => {
    const row = await db.selectFrom("resources").selectAll().where("key", "=", toKey(id)).executeTakeFirst();
    return row === undefined ? undefined : fromRow(row);
  };
  return {
    find,
    get: async (id) => (await find(id)) ?? refuseUnknown(typeof id === "string" ? id : id.text),
    save: (wanted) => save(dependencies, wanted),
    update: (id, change) => update(dependencies, toKey(id), change),
    claim: async (id, etag) => {
      const claimed = await sql`update resources set removal_until = clock_timestamp() + ${claimMs} * interval '1 ms'
        where key = ${id.key} and etag = ${etag} and (removal_until is null or removal_until < clock_timestamp()) returning key`.execute(
        db,
      );
      return claimed.rows.length > 0;
    },
    release: async (id) => {
      await db.updateTable("resources").set({ removal_until: null }).where("key", "=", id.key).execute();
    },
    remove: async (id) => {
      const key = toKey(id);
      const removed = await db
        .deleteFrom("resources")
        .where((where) => where.or([where("key", "=", key), where("key", "like", `${escapeLike(key)}/%`)]))
        .returning("key")
        .execute();
      return removed.some((row) => row.key === key);
    },
    list: async (wanted) => {
      const found: Resource[] = [];
      for (const row of await pageOf(db, wanted)) found.push({ ...fromColumns(row), id: parseNextId(row.id, found.at(-1)?.id) });
      return found;
    },
    textsOf: async (keys) => {
      const rows = await db
        .selectFrom("resources")
        .select(["key", "id"])
        .where("key", "in", [...keys])
        .execute();
      return new Map(rows.map((row) => [row.key, row.id]));
    },
    all: (type) => allOf(db, type),
    countChildren: async (id) => {
      const query = db.selectFrom("resources").select(["type", (select) => select.fn.countAll<string>().as("count")]);
      const rows = await query.where("parent_key", "=", toKey(id)).groupBy("type").execute();
      return new Map(rows.map((row) => [row.type, Number(row.count)]));
    },
    having: async ({ type, property, value }) => {
      const query = db.selectFrom("resources").selectAll().where("type", "=", type.toLowerCase());
      const rows = await query
        .where(sql.raw<string>(indexedProperties[property]), "=", value.toLowerCase())
        .orderBy("key")
        .limit(havingMax)
        .execute();
      return rows.map(fromRow);
    },
  };
}

/** How often a save is tried when it neither found what it wanted nor a reason why not: others made and removed the resource meanwhile. */
const saveAttemptsMax = 10;

async function save(dependencies: Dependencies, wanted: SaveResource): Promise<{ readonly resource: Resource; readonly isNew: boolean }> {
  const { db } = dependencies;
  for (let attempt = 1; ; attempt++) {
    const stored = await saveAtOnce(dependencies, wanted);
    if (stored !== undefined) return stored;
    // It is not what the caller expects, or it is being removed; which of them is only of use for telling.
    const present = await db.selectFrom("resources").select("etag").where("key", "=", wanted.id.key).executeTakeFirst();
    checkPreconditions(wanted, present?.etag);
    await refuseClaimed(db, wanted.id.key);
    if (attempt === saveAttemptsMax) throw new Fault("StateConflict", `could not save ${wanted.id.text}: others change it at once`);
  }
}

/** One statement: what is expected is looked at where it is written. undefined when it was not so, or the resource is claimed. */
async function saveAtOnce(
  { db, clock, random }: Dependencies,
  wanted: SaveResource,
): Promise<{ readonly resource: Resource; readonly isNew: boolean } | undefined> {
  const now = toTimestamp(clock.nowMs());
  const change = {
    type: wanted.id.type.toLowerCase(),
    parent_key: wanted.id.parentKey,
    location: wanted.location ?? null,
    envelope: JSON.stringify(wanted.envelope ?? {}),
    properties: JSON.stringify(wanted.properties),
    provisioning_state: wanted.provisioningState ?? "Succeeded",
    etag: `"${random.uuid()}"`,
    updated_at: now,
    removal_until: null,
  };
  const isFree = sql<SqlBool>`(resources.removal_until is null or resources.removal_until <= clock_timestamp())`;
  if (wanted.ifMatch !== undefined) {
    if (wanted.mustBeNew === true) return undefined;
    const query = db.updateTable("resources").set(change).where("key", "=", wanted.id.key).where(isFree);
    const row = await (wanted.ifMatch === "*" ? query : query.where("etag", "=", wanted.ifMatch)).returningAll().executeTakeFirst();
    return row === undefined ? undefined : { resource: fromRow(row), isNew: false };
  }
  const first = { key: wanted.id.key, created_at: now, id: wanted.id.text, name: wanted.id.name };
  const row = await db
    .insertInto("resources")
    .values({ ...first, ...change })
    .onConflict((conflict) =>
      wanted.mustBeNew === true ? conflict.column("key").doNothing() : conflict.column("key").doUpdateSet(change).where(isFree),
    )
    .returningAll()
    // PostgreSQL's documentation, "System Columns": no transaction has locked or replaced a row version that was inserted.
    .returning(sql<boolean>`xmax = 0`.as("is_new"))
    .executeTakeFirst();
  return row === undefined ? undefined : { resource: fromRow(row), isNew: row.is_new };
}

async function update({ db, clock, random }: Dependencies, key: string, change: ResourceChange): Promise<Resource | undefined> {
  return await db.transaction().execute(async (transaction) => {
    const present = await transaction.selectFrom("resources").selectAll().where("key", "=", key).forUpdate().executeTakeFirst();
    if (present === undefined) return undefined;
    if (present.removal_until !== null) await refuseClaimed(transaction, key);
    const before = fromRow(present);
    const after = change(before);
    const stored = await transaction
      .updateTable("resources")
      .set({
        properties: JSON.stringify(after.properties ?? before.properties),
        envelope: JSON.stringify(after.envelope ?? before.envelope),
        provisioning_state: after.provisioningState ?? before.provisioningState,
        etag: `"${random.uuid()}"`,
        updated_at: toTimestamp(clock.nowMs()),
      })
      .where("key", "=", key)
      .returningAll()
      .executeTakeFirstOrThrow();
    return fromRow(stored);
  });
}

async function* allOf(db: Kysely<Tables>, type: string): AsyncIterable<Resource> {
  for (let afterKey = ""; ;) {
    const page = await pageOf(db, { under: "", isDeep: true, type, afterKey, countMax: pageRows });
    for (const row of page) yield fromRow(row);
    const last = page.at(-1);
    if (last === undefined || page.length < pageRows) return;
    afterKey = last.key;
  }
}

/** Where ARM wants the provisioning state in an answer; used by the API and by jobs that answer a resource. */
export function presentResource(resource: Resource, type: string, properties: JsonObject = resource.properties): JsonObject {
  const location = resource.location === undefined ? {} : { location: resource.location };
  return {
    id: resource.id.text,
    name: resource.id.name,
    type,
    etag: resource.etag,
    ...location,
    ...resource.envelope,
    properties: { ...properties, provisioningState: resource.provisioningState },
  };
}

async function refuseClaimed(db: Kysely<Tables>, key: string): Promise<void> {
  const claimed = await db
    .selectFrom("resources")
    .select("id")
    .where("key", "=", key)
    .where(sql<boolean>`removal_until > clock_timestamp()`)
    .executeTakeFirst();
  if (claimed === undefined) return;
  throw new Fault("StateConflict", `could not change ${claimed.id}: it is being deleted`, {
    evidence: { resourceId: claimed.id },
    causes: ["another call deletes it under a condition"],
    action: "call again when it is gone",
    retry: "later",
  });
}

function refuseUnknown(id: string): never {
  throw new Fault("NotFound", `could not find the resource ${id}`, { evidence: { resourceId: id } });
}

function toKey(id: ResourceId | string): string {
  return typeof id === "string" ? id.toLowerCase() : id.key;
}

function checkPreconditions(wanted: SaveResource, etag: string | undefined): void {
  const isMatched = wanted.ifMatch === undefined || wanted.ifMatch === etag || (wanted.ifMatch === "*" && etag !== undefined);
  if (isMatched && !(wanted.mustBeNew === true && etag !== undefined)) return;
  throw new Fault("PreconditionFailed", `could not save ${wanted.id.text}: it is not in the state that the caller expects`, {
    evidence: { resourceId: wanted.id.text, presentEtag: etag ?? "none", expectedEtag: wanted.ifMatch ?? "none" },
  });
}

async function pageOf(db: Kysely<Tables>, wanted: ListResources): Promise<readonly Selectable<ResourceTable>[]> {
  const under = wanted.under.toLowerCase();
  const { afterKey = "", filter } = wanted;
  let query = db
    .selectFrom("resources")
    .select(columnsWithout(wanted.without))
    .where("type", "=", wanted.type.toLowerCase())
    .limit(wanted.countMax);
  if (filter !== undefined) query = query.where(toCondition(filter.filter, filter.fields));
  if (wanted.isDeep !== true) return await query.where("parent_key", "=", under).where("key", ">", afterKey).orderBy("key").execute();
  // One range of the index by type, whatever the database's collation: "0" is the character after "/". So each page costs the same.
  const from = afterKey === "" ? `${under}/` : afterKey;
  return await query
    .where(sql<boolean>`key ~>~ ${from} and key ~<~ ${`${under}0`}`)
    .orderBy(sql`key using ~<~`)
    .execute();
}

const columns = [
  ...([
    "key",
    "id",
    "type",
    "name",
    "parent_key",
    "location",
    "envelope",
    "provisioning_state",
    "etag",
    "created_at",
    "updated_at",
  ] as const),
  "removal_until",
] as const;

function columnsWithout(names: readonly string[] | undefined) {
  const properties = names === undefined ? sql<JsonObject>`properties` : sql<JsonObject>`properties - ${names}::text[]`;
  return [...columns, properties.as("properties")] as const;
}

function escapeLike(text: string): string {
  return text.replace(/[\\%_]/g, (character) => `\\${character}`);
}

export function fromRow(row: Selectable<ResourceTable>): Resource {
  return { id: parseResourceId(row.id), ...fromColumns(row) };
}

function fromColumns(row: Selectable<ResourceTable>): Omit<Resource, "id"> {
  return {
    location: row.location ?? undefined,
    envelope: row.envelope,
    properties: row.properties,
    provisioningState: row.provisioning_state as ProvisioningState, // Only this file writes the column.
    etag: row.etag,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
