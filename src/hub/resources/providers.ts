// Resource providers as ARM clients ask for them: the namespaces, types and api-versions that this hub really answers, and where.

import { sql, type Kysely } from "kysely";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { resourceGroupType, subscriptionType } from "../api/resource-id.ts";
import { defineAction, defineResource, noBody, type ResourceType, type TypeTable } from "../api/resource-type.ts";
import { dialectOf } from "../api/type-dialect.ts";
import { operationsOf } from "./provider-operations.ts";
import type { JsonObject } from "../db/resources.ts";
import type { Tables } from "../db/tables.ts";

const locationsMax = 200;

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly types: () => TypeTable;
}

/** Every provider is the hub's own, so no consent to a third party is ever needed. */
const registerBody = z.strictObject({
  thirdPartyProviderConsent: z.strictObject({ consentToAuthorization: z.boolean().optional() }).optional(),
});
export function providerTypes({ db, types }: Dependencies): readonly ResourceType[] {
  const show = (subscription: string, namespace: string): JsonObject | undefined => {
    const provider = showProvider(types(), namespace);
    return provider === undefined ? undefined : { id: `${subscription}/providers/${String(provider["namespace"])}`, ...provider };
  };
  const get: NonNullable<ResourceType["source"]>["get"] = async ({ id }) => show(id.parentText, id.name);
  return [
    defineResource({
      type: `${subscriptionType}/providers`,
      within: "parent",
      properties: z.looseObject({}),
      onPut: "refuse",
      onDelete: "refuse",
      source: {
        get,
        list: async ({ id }) => {
          const shown = namespacesOf(types()).map((name) => show(id.text, name));
          return { items: shown.filter((provider) => provider !== undefined), next: undefined };
        },
      },
      actions: {
        register: defineAction({ body: registerBody, run: async (call) => ({ kind: "done", body: await get(call) }) }),
        unregister: defineAction({
          isRefused: true,
          body: z.unknown(),
          run: async ({ id }) => {
            throw new Fault("OperationNotSupported", `could not unregister ${id.name}: every provider of the hub is always there`, {
              evidence: { namespace: id.name },
            });
          },
        }),
        resourceTypes: defineAction({
          body: noBody,
          isRead: true,
          isGet: true,
          run: async (call) => ({ kind: "done", body: { value: (await get(call))?.["resourceTypes"] ?? [] } }),
        }),
        providerPermissions: defineAction({
          body: noBody,
          isRead: true,
          isGet: true,
          run: async () => ({ kind: "done", body: { value: [] } }),
        }),
      },
    }),
    defineResource({
      type: `${subscriptionType}/locations`,
      within: "parent",
      properties: z.looseObject({}),
      onPut: "refuse",
      onDelete: "refuse",
      source: { get: async () => undefined, list: async ({ id }) => ({ items: await listLocations(db, id.text), next: undefined }) },
    }),
  ];
}

/** What the tenant-level addresses answer: without a subscription in the id. */
export function tenantReads(
  types: TypeTable,
  tenantId: string,
): {
  readonly operationsOf: (namespace: string) => readonly JsonObject[] | undefined;
  readonly namespaces: () => readonly string[];
  readonly providerOf: (namespace: string) => JsonObject | undefined;
  readonly tenant: JsonObject;
} {
  return {
    operationsOf: (namespace) => operationsOf(types, namespace),
    namespaces: () => namespacesOf(types),
    providerOf: (namespace) => {
      const provider = showProvider(types, namespace);
      return provider === undefined ? undefined : { id: `/providers/${String(provider["namespace"])}`, ...provider };
    },
    tenant: { id: `/tenants/${tenantId}`, tenantId, displayName: "Watari", tenantCategory: "Home" },
  };
}

function namespacesOf(types: TypeTable): readonly string[] {
  return [...new Set(types.types.map(({ type }) => type.split("/", 1)[0] ?? ""))].toSorted();
}

function showProvider(types: TypeTable, wanted: string): JsonObject | undefined {
  const namespace = namespacesOf(types).find((name) => name.toLowerCase() === wanted.toLowerCase());
  if (namespace === undefined) return undefined;
  const own = types.types.filter(({ type, absent }) => type.startsWith(`${namespace}/`) && absent === undefined);
  return {
    namespace,
    registrationState: "Registered",
    registrationPolicy: "RegistrationFree",
    resourceTypes: own.map(showType).toSorted((left, right) => (String(left["resourceType"]) < String(right["resourceType"]) ? -1 : 1)),
  };
}

function showType({ type, within, canPatch, properties: _properties }: ResourceType): JsonObject {
  const { apiVersions } = dialectOf(type);
  const isTracked = within === "resourceGroup" || type === resourceGroupType;
  return {
    resourceType: type.slice(type.indexOf("/") + 1),
    locations: [],
    apiVersions: [...apiVersions].toReversed(),
    defaultApiVersion: apiVersions.at(-1) ?? "",
    capabilities: isTracked && canPatch === true ? "SupportsTags, SupportsLocation" : isTracked ? "SupportsLocation" : "None",
  };
}

/** Locations are words of the operator, so those are told that something is at. */
async function listLocations(db: Kysely<Tables>, subscriptionId: string): Promise<readonly JsonObject[]> {
  const found = await sql<{
    location: string;
  }>`select min(location) as location from resources where location is not null and location <> ''
    group by lower(location) order by lower(location) limit ${locationsMax}`.execute(db);
  return found.rows.map(({ location }) => {
    const name = location.toLowerCase().replace(/[^a-z0-9]/g, "");
    return {
      id: `${subscriptionId}/locations/${name}`,
      name,
      type: "Region",
      displayName: location,
      regionalDisplayName: location,
      metadata: { regionType: "Physical", regionCategory: "Other" },
    };
  });
}
