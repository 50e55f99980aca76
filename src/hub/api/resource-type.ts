// How a resource type is told to the ARM router: its schema, its hooks, its actions. The table of types is the table of routes.

import { z } from "zod";
import type { Log } from "../../base/log.ts";
import type { CallView } from "../db/call-view.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import type { Filter, FilterGrammar } from "./filter.ts";
import type { ResourceId } from "./resource-id.ts";

/** Who calls: proved by the token, never by the request. */
export interface Caller {
  readonly principalId: string;
  readonly name: string;
  /** Groups that the identity provider says the caller is in; those made here count besides. */
  readonly groupIds: readonly string[];
}

/** One authenticated and authorised call on one resource. */
export interface ArmCall {
  readonly caller: Caller;
  /** What was read of the database when the call began; absent for calls that the hub makes itself. */
  readonly view?: CallView | undefined;
  readonly id: ResourceId;
  readonly apiVersion: string;
  /** Query parameters, names in lower case. */
  readonly query: Readonly<Record<string, string>>;
  readonly correlationId: string;
  /** "https://management.<domain>[:port]" as the caller knows it, for addresses in answers. */
  readonly origin: string;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** What a PUT or PATCH asks for, after its schema. */
export interface Desired<Properties> {
  readonly location: string | undefined;
  /** tags, sku, kind, identity as given. */
  readonly envelope: JsonObject;
  readonly properties: Properties;
  /** What is stored now; undefined when this creates the resource. */
  readonly existing: Resource | undefined;
}

/** What a hook decided about a write. */
export type WriteOutcome =
  /** Store these properties now and answer 200 or 201. */
  | { readonly kind: "done"; readonly properties: JsonObject; readonly envelope?: JsonObject }
  /** The hook stored the resource itself with a non-terminal state and began an operation (db/operations.ts): answer 201 or 202. */
  | {
      readonly kind: "accepted";
      readonly operationId: string;
      /** The resource as it is answered now, where the hook has it; otherwise it is read. */
      readonly body?: JsonObject;
    }
  /** The hook did all of it and nothing is stored by the router: answer 200 with this body, or 201. */
  | { readonly kind: "answered"; readonly body: JsonObject; readonly isNew?: boolean };

export type DeleteOutcome = { readonly kind: "done" } | { readonly kind: "accepted"; readonly operationId: string };

export type ActionOutcome =
  | { readonly kind: "done"; readonly body?: unknown }
  /** Answer 202; Location gives the operation's result once it has succeeded. */
  | { readonly kind: "accepted"; readonly operationId: string };

interface ActionTraits {
  /** Actions that only read are neither audited nor refused to readers. */
  readonly isRead?: boolean;
  /** GET instead of POST, for example instanceView, with the right `<type>/<action>/read`. "also": some clients get it and others post it. */
  readonly isGet?: boolean | "also";
  /** Every call is refused, whatever its body. */
  readonly isRefused?: boolean;
  /** May answer 202. Documented as long-running. */
  readonly isLong?: boolean;
}

/** Of an action that takes nothing: no body, or an empty one. */
export const noBody = z.strictObject({});

export interface ActionDefinition extends ActionTraits {
  /** Strict at every level: an action stores nothing, so what it does not know it would drop. z.unknown() only where `isRefused`. */
  readonly body: z.ZodType;
  readonly run: (call: ArmCall, body: unknown, resource: Resource) => Promise<ActionOutcome>;
}

/** Replaces the resource table as the place that answers reads: for recovery points, jobs and the like. */
export interface ResourceSource {
  /** Answers what clients see: whole, with id, name, type and properties. */
  readonly get: (call: ArmCall) => Promise<JsonObject | undefined>;
  /** `call.id` is the container. Ordered; `after` is the last answer's `next`. */
  readonly list: (
    call: ArmCall,
    page: {
      readonly after: string | undefined;
      readonly countMax: number;
      /** Of a type that declares `filter`: the source leaves out what does not pass. */
      readonly filter?: Filter | undefined;
    },
  ) => Promise<{ readonly items: readonly JsonObject[]; readonly next: string | undefined }>;
  /** The path of the collection answers one object in place of a list: a vault's health, for one. */
  readonly whole?: (call: ArmCall) => Promise<JsonObject>;
}

export interface Absence {
  /** Why there is none: "machines are replicated by an agent here". */
  readonly reason: string;
  /** What to do in its place. */
  readonly action: string;
}

export interface ResourceType {
  /** "Microsoft.Network/privateEndpoints"; ids are answered with this casing of the type. */
  readonly type: string;
  /** What may contain it: resource group, subscription, any resource (an extension), or the parent type of its path. */
  readonly within: "resourceGroup" | "subscription" | "anything" | "parent";
  /**
   * The whole body's `properties`; its output is what hooks get. Unknown members are a choice: z.looseObject stores and answers them,
   * z.strictObject refuses them. z.object would drop them silently: do not use it.
   */
  readonly properties: z.ZodType<JsonObject>;
  /** What PUT and PATCH take as `properties`, where hooks parse them themselves because it is not what is stored. Strict at every level. */
  readonly inputs?: { readonly put?: z.ZodType; readonly patch?: z.ZodType };
  /** It has nothing beside its properties: location, tags, sku, kind and identity are refused, because nothing would store them. */
  readonly isBare?: boolean;
  /** What `$filter` of a list may name; without it every filter is InvalidFilter. */
  readonly filter?: FilterGrammar;
  /** Writes that may go on after their answer. Documented as long-running. */
  readonly longWrites?: readonly ("PUT" | "PATCH" | "DELETE")[];
  /** As stored, from a merge patch; the merged properties are parsed again by `properties`. Undefined: no PATCH. */
  readonly canPatch?: boolean;
  /** Lists of this type may also be asked for under farther ancestors: {vault}/replicationProtectedItems. */
  readonly isListedUnderAncestors?: boolean;
  /** Called before the resource is stored. Undefined: the properties are stored as given. "refuse": only the hub makes such resources. */
  readonly onPut?: "refuse" | ((call: ArmCall, desired: Desired<JsonObject>) => Promise<WriteOutcome>);
  /** Called on PATCH with merged properties; onPut is used unless told. */
  readonly onPatch?: (call: ArmCall, desired: Desired<JsonObject>, patch: JsonObject) => Promise<WriteOutcome>;
  /** Called before the resource is removed. A type with a source can be deleted only where this is a function. */
  readonly onDelete?: "refuse" | ((call: ArmCall, resource: Resource) => Promise<DeleteOutcome>);
  /** After the stored change, for effects that follow from it (listeners, DNS). Must be repeatable. */
  readonly onChanged?: (call: ArmCall) => Promise<void>;
  /** Properties as answered; the stored ones unless told. Secrets must never be among them. */
  readonly present?: (resource: Resource) => Promise<JsonObject>;
  /** Stored properties that pages of a list are read without: large ones that presentMany needs of few rows only, and then asks for. */
  readonly unlisted?: readonly string[];
  /** As present, for a page of a list, in its order: where one question can stand for many. */
  readonly presentMany?: (resources: readonly Resource[]) => Promise<readonly JsonObject[]>;
  readonly source?: ResourceSource;
  /** By name as in the path, for example listKeys. */
  readonly actions?: Readonly<Record<string, ActionDefinition>>;
  /** POST on the collection, by the last segment of the path: export of {vault}/replicationJobs/export. No resource may have such a name. */
  readonly collectionActions?: Readonly<Record<string, NonNullable<ResourceType["onCall"]>>>;
  /**
   * Set for what Azure has and of which there is never one here: lists are empty, a GET is 404 and every write and action 405, each with this
   * reason. Such a type needs nothing else than a source that is empty.
   */
  readonly absent?: Absence;
  /** POST on the type itself under its container, for example {subscription}/providers/Microsoft.Storage/checkNameAvailability. */
  readonly onCall?: {
    readonly body: z.ZodType;
    readonly isRead?: boolean;
    /** `call.id` is the container. */
    readonly run: (call: ArmCall, body: unknown) => Promise<ActionOutcome>;
  };
}

/** Gives a definition its types: hooks receive what the schema proved. */
export function defineResource<Shape extends z.ZodType<JsonObject>>(
  definition: Omit<ResourceType, "properties" | "onPut" | "onPatch"> & {
    readonly properties: Shape;
    readonly onPut?: "refuse" | ((call: ArmCall, desired: Desired<z.infer<Shape>>) => Promise<WriteOutcome>);
    readonly onPatch?: (call: ArmCall, desired: Desired<z.infer<Shape>>, patch: JsonObject) => Promise<WriteOutcome>;
  },
): ResourceType {
  return definition as unknown as ResourceType; // The router parses with `properties` just before it calls the hooks.
}

/** Gives an action its types. */
export function defineAction<Shape extends z.ZodType>(
  action: ActionTraits & {
    readonly body: Shape;
    readonly run: (call: ArmCall, body: z.infer<Shape>, resource: Resource) => Promise<ActionOutcome>;
  },
): ActionDefinition {
  return action as ActionDefinition; // The router parses with `body` just before it calls run.
}

/** Gives a call on a type its types. */
export function defineCall<Shape extends z.ZodType>(call: {
  readonly body: Shape;
  readonly isRead?: boolean;
  readonly run: (call: ArmCall, body: z.infer<Shape>) => Promise<ActionOutcome>;
}): NonNullable<ResourceType["onCall"]> {
  return call as NonNullable<ResourceType["onCall"]>; // The router parses with `body` just before it calls run.
}

/** Types by name, and the questions that routing asks of them. */
export interface TypeTable {
  readonly types: readonly ResourceType[];
  find(type: string): ResourceType | undefined;
  /** The type that `segment` lists under a container of type `containerType`. */
  findListed(containerType: string, segment: string): ResourceType | undefined;
}

export function createTypeTable(types: readonly ResourceType[]): TypeTable {
  const byName = new Map<string, ResourceType>();
  for (const type of types) {
    const key = type.type.toLowerCase();
    if (byName.has(key)) throw new Error(`assertion failed: resource type ${type.type} is defined twice`);
    byName.set(key, type);
  }
  return {
    types,
    find: (type) => byName.get(type.toLowerCase()),
    findListed: (containerType, segment) =>
      byName.get(`${containerType}/${segment}`.toLowerCase()) ??
      types.find((type) => {
        const key = type.type.toLowerCase();
        const isBelow = key.startsWith(`${containerType.toLowerCase()}/`) && key.endsWith(`/${segment.toLowerCase()}`);
        return type.isListedUnderAncestors === true && isBelow;
      }),
  };
}
