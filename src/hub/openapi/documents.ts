// OpenAPI 3.1 of the management API, made from the table of types alone: one document for each provider namespace.

import type { z } from "zod";
import { listRoutes } from "../api/arm-router.ts";
import { resourceGroupType, subscriptionType } from "../api/resource-id.ts";
import type { ActionDefinition, ResourceType, TypeTable } from "../api/resource-type.ts";
import { dialectOf } from "../api/type-dialect.ts";
import { answersOf } from "./answers/answers.ts";
import { bodyOf, commonComponents, envelopeSchema, reference, responsesOf, toAnswerSchema, toSchema, type Json } from "./components.ts";
import { fixedPaths } from "./fixed-paths.ts";

export interface ApiDocument {
  /** "Microsoft.Network". */
  readonly namespace: string;
  readonly document: Json;
}

export function makeDocuments(table: TypeTable): readonly ApiDocument[] {
  const namespaces = [...new Set(table.types.map((type) => namespaceOf(type)))].toSorted();
  return namespaces.map((namespace) => {
    const types = table.types
      .filter((type) => namespaceOf(type) === namespace)
      .toSorted((left, right) => (left.type < right.type ? -1 : 1));
    return { namespace, document: makeDocument(table, namespace, types) };
  });
}

/** All namespaces in one document, as a hub serves it. */
export function makeWholeDocument(table: TypeTable): Json {
  return makeDocument(table, "Watari", table.types);
}

function makeDocument(table: TypeTable, title: string, types: readonly ResourceType[]): Json {
  const paths: Record<string, Record<string, Json>> = {};
  const schemas: Record<string, Json> = {};
  const homes = types.map((type) => withHome(table, type));
  const actions = new Set(listRoutes(table).map((route) => `${route.method} ${route.action}`));
  for (const type of homes) {
    for (const { path, method, operation } of operationsOf(type, actions)) (paths[path] ??= parametersOf(path))[method] = operation;
    schemas[`${schemaName(type)}Properties`] = toSchema(type.inputs?.put ?? type.properties, "input");
    if (type.inputs?.patch !== undefined) schemas[`${schemaName(type)}Change`] = toSchema(type.inputs.patch, "input");
    const answers = answersOf(type);
    if (answers !== undefined) schemas[`${schemaName(type)}Answer`] = toAnswerSchema(answers.resource, type);
  }
  Object.assign(paths, fixedPaths(title));
  const info = { title: `${title} as Watari answers it`, version: types.map(newestVersion).toSorted().at(-1) ?? "" };
  return {
    openapi: "3.1.1",
    info,
    servers: [{ url: "https://management.{domain}", variables: { domain: { default: "watari.test" } } }],
    security: [{ token: [] }],
    paths,
    components: { ...commonComponents, schemas: { ...commonComponents.schemas, ...schemas } },
  };
}

/** What is inside a type of a subscription or of any scope stands where that stands. */
function withHome(table: TypeTable, type: ResourceType): ResourceType {
  if (type.within !== "parent") return type;
  const within = table.find(type.type.split("/").slice(0, 2).join("/"))?.within;
  return within === "subscription" || within === "anything" ? { ...type, within } : type;
}

interface Operation {
  readonly path: string;
  readonly method: string;
  readonly operation: Json;
}

function operationsOf(type: ResourceType, actions: ReadonlySet<string>): readonly Operation[] {
  const name = schemaName(type);
  const path = pathOf(type);
  const answers = answersOf(type);
  const resource = answers === undefined ? {} : reference("schemas", `${name}Answer`);
  const common = { tags: [type.type], "x-watari-api-versions": dialectOf(type.type).apiVersions };
  const make = (method: string, verb: string, details: Record<string, Json>, at = path): Operation => ({
    path: at,
    method,
    operation: { operationId: `${name}_${verb}`, ...common, ...details },
  });
  const write = (method: "PUT" | "PATCH" | "DELETE", verb: string, right: string): readonly Operation[] => {
    if (!actions.has(`${method} ${type.type}/${right}`)) return [];
    const isLong = type.longWrites?.includes(method) === true;
    const body = {
      requestBody: bodyOf(
        envelopeSchema(`${name}${method === "PATCH" && type.inputs?.patch !== undefined ? "Change" : "Properties"}`),
        method === "PUT",
      ),
    };
    const details = {
      parameters: [reference("parameters", "IfMatch"), ...(method === "PUT" ? [reference("parameters", "IfNoneMatch")] : [])],
      ...(method === "DELETE" ? {} : body),
      ...long(isLong, "location"),
      "x-watari-right": `${type.type}/${right}`,
      responses: responsesOf(method === "DELETE" ? undefined : resource, writeStatuses(type, method)),
    };
    return [make(method.toLowerCase(), verb, details)];
  };
  return [
    make("get", "Get", { "x-watari-right": `${type.type}/read`, responses: responsesOf(resource, ["200", "304"]) }),
    make("head", "CheckExistence", { "x-watari-right": `${type.type}/read`, responses: responsesOf(undefined, ["204"]) }),
    ...write("PUT", "CreateOrUpdate", "write"),
    ...write("PATCH", "Update", "write"),
    ...write("DELETE", "Delete", "delete"),
    ...listPaths(type).map(({ at, suffix }) => make("get", `List${suffix}`, listDetails(type, resource), at)),
    ...Object.entries(type.actions ?? {}).flatMap(([action, definition]) => actionOperations(type, action, definition, make)),
    ...(type.onCall === undefined
      ? []
      : [
          make(
            "post",
            "Call",
            callDetails(type.type, type.onCall.body, answers?.call),
            listPathAt(type, "/subscriptions/{subscriptionId}"),
          ),
        ]),
    ...Object.entries(type.collectionActions ?? {}).map(([action, { body }]) => {
      const details = callDetails(`${type.type}/${action}`, body, answers?.collectionActions?.[action]);
      return make("post", `List_${action}`, details, `${collectionOf(type)}/${action}`);
    }),
  ];
}

function actionOperations(
  type: ResourceType,
  action: string,
  definition: ActionDefinition,
  make: (method: string, verb: string, details: Record<string, Json>, at?: string) => Operation,
): readonly Operation[] {
  const methods = definition.isGet === "also" ? ["get", "post"] : [definition.isGet === true ? "get" : "post"];
  const answer = answersOf(type)?.actions?.[action];
  const responses =
    definition.isRefused === true || type.absent !== undefined
      ? responsesOf(undefined, [])
      : answer === undefined || answer === "nothing"
        ? responsesOf(undefined, ["202", "204"])
        : responsesOf(schemaOf(type, answer), ["200", "202"]);
  return methods.map((method) =>
    make(
      method,
      `${method === "get" ? "Get" : ""}${action.slice(0, 1).toUpperCase()}${action.slice(1)}`,
      {
        ...(method === "get" ? {} : { requestBody: bodyOf(toSchema(definition.body, "input"), false) }),
        ...long(definition.isLong === true, "location"),
        "x-watari-right": `${type.type}/${action}/${method === "get" ? "read" : "action"}`,
        responses,
      },
      `${pathOf(type)}/${action}`,
    ),
  );
}

/** Most actions answer what they work on. */
function schemaOf(type: ResourceType, answer: z.ZodType): Json {
  return answer === answersOf(type)?.resource ? reference("schemas", `${schemaName(type)}Answer`) : toSchema(answer, "output");
}

function callDetails(name: string, body: z.ZodType, answer: z.ZodType | undefined): Record<string, Json> {
  const responses = responsesOf(answer === undefined ? undefined : toSchema(answer, "output"), ["200"]);
  return { requestBody: bodyOf(toSchema(body, "input"), false), "x-watari-right": `${name}/action`, responses };
}

function listDetails(type: ResourceType, resource: Json): Record<string, Json> {
  const page = {
    type: "object",
    additionalProperties: false,
    required: ["value"],
    properties: { value: { type: "array", items: resource }, nextLink: { type: "string", format: "uri" } },
  };
  const filterable = type.filter === undefined ? {} : { "x-watari-filterable": Object.keys(type.filter.fields) };
  return {
    parameters: [reference("parameters", "Top"), reference("parameters", "SkipToken"), reference("parameters", "Filter")],
    ...filterable,
    "x-ms-pageable": { nextLinkName: "nextLink" },
    "x-watari-right": `${type.type}/read`,
    responses: responsesOf(type.source?.whole === undefined ? page : resource, ["200"]),
  };
}

function writeStatuses(type: ResourceType, method: "PUT" | "PATCH" | "DELETE"): readonly string[] {
  const { createdStatus, creatingStatus, deleted } = dialectOf(type.type);
  const isLong = type.longWrites?.includes(method) === true || typeof type.onPut === "function" || typeof type.onDelete === "function";
  if (method === "DELETE") return [...new Set([deleted === "resource" ? 200 : deleted, 204, ...(isLong ? [202] : [])])].map(String);
  if (method === "PATCH") return isLong ? ["200", "202"] : ["200"];
  return [...new Set([200, createdStatus, ...(isLong ? [creatingStatus, 202] : [])])].map(String);
}

/** Where the resource stands; the names are parameters. */
function pathOf(type: ResourceType): string {
  if (type.type === subscriptionType) return "/subscriptions/{subscriptionId}";
  if (type.type === resourceGroupType) return "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}";
  for (const container of [subscriptionType, resourceGroupType])
    if (type.type.startsWith(`${container}/`)) {
      const rest = type.type.slice(container.length + 1);
      return `${container === subscriptionType ? "/subscriptions/{subscriptionId}" : groupPath}/${rest}/{${parameterName(rest)}}`;
    }
  const [provider = "", ...segments] = type.type.split("/");
  const home = { resourceGroup: groupPath, parent: groupPath, subscription: "/subscriptions/{subscriptionId}", anything: "/{scope}" }[
    type.within
  ];
  return `${home}/providers/${provider}${segments.map((segment) => `/${segment}/{${parameterName(segment)}}`).join("")}`;
}

const groupPath = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}";

function listPaths(type: ResourceType): readonly { readonly at: string; readonly suffix: string }[] {
  if (type.type === subscriptionType) return [{ at: "/subscriptions", suffix: "" }];
  if (type.type === resourceGroupType) return [{ at: "/subscriptions/{subscriptionId}/resourcegroups", suffix: "" }];
  const own = { at: collectionOf(type), suffix: "" };
  if (type.within === "resourceGroup") return [own, { at: listPathAt(type, "/subscriptions/{subscriptionId}"), suffix: "BySubscription" }];
  if (type.isListedUnderAncestors !== true) return [own];
  const segments = own.at.split("/");
  const last = segments.at(-1) ?? "";
  // {vault}/replicationProtectedItems beside {container}/replicationProtectedItems.
  const vault = segments.slice(0, segments.indexOf("providers") + 4).join("/");
  return [own, { at: `${vault}/${last}`, suffix: "ByAncestor" }];
}

function collectionOf(type: ResourceType): string {
  return pathOf(type).replace(/\/\{[^}]+\}$/, "");
}

function listPathAt(type: ResourceType, scope: string): string {
  const [provider = "", ...segments] = type.type.split("/");
  return `${scope}/providers/${provider}/${segments.join("/")}`;
}

function parametersOf(path: string): Record<string, Json> {
  const names = [...path.matchAll(/\{([^}]+)\}/g)].map((found) => found[1] ?? "");
  const own = names.map((name) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string", maxLength: name === "scope" ? 2048 : 260 },
  }));
  return { parameters: [reference("parameters", "ApiVersion"), ...own] };
}

function parameterName(segment: string): string {
  const singular = segment.endsWith("ies")
    ? `${segment.slice(0, -3)}y`
    : segment.endsWith("sses")
      ? segment.slice(0, -2)
      : segment.replace(/s$/, "");
  return `${singular}Name`;
}

function long(isLong: boolean, finalState: string): Record<string, Json> {
  if (!isLong) return {};
  return { "x-ms-long-running-operation": true, "x-ms-long-running-operation-options": { "final-state-via": finalState } };
}

function newestVersion(type: ResourceType): string {
  return dialectOf(type.type).apiVersions.at(-1) ?? "";
}

function namespaceOf({ type }: ResourceType): string {
  return type.split("/")[0] ?? type;
}

function schemaName({ type }: ResourceType): string {
  return type
    .replace(/^Microsoft\./, "")
    .replaceAll(".", "/")
    .split("/")
    .map((part) => `${part.slice(0, 1).toUpperCase()}${part.slice(1)}`)
    .join("");
}
