// What every document shares: parameters, the error envelope, the resource envelope, the security scheme, and how shapes become schemas.

import { z } from "zod";
import type { ResourceType } from "../api/resource-type.ts";
import { errorAnswer, keptOf } from "./answers/answers.ts";

export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };

/** "Error" is the default answer; the others are those that clients treat apart. */
const problems = ["400", "401", "403", "404", "405", "409", "412", "415", "429", "Error"] as const;

const text: Json = { type: "string" };
const object: Json = { type: "object", additionalProperties: true };

function query(name: string, schema: Json, required = false): Json {
  return { name, in: "query", required, schema };
}

function header(name: string): Json {
  return { name, in: "header", required: false, schema: text };
}

export const commonComponents = {
  securitySchemes: { token: { type: "http", scheme: "bearer", bearerFormat: "JWT" } },
  parameters: {
    ApiVersion: query("api-version", { type: "string", pattern: "^\\d{4}-\\d{2}-\\d{2}(-[a-z]+)?$" }, true),
    Top: query("$top", { type: "integer", minimum: 1, maximum: 1000 }),
    SkipToken: query("$skipToken", text),
    Filter: query("$filter", { type: "string", maxLength: 4096 }),
    IfMatch: header("If-Match"),
    IfNoneMatch: header("If-None-Match"),
  },
  responses: {
    Error: {
      description: "refused or failed; the code is Azure's where it documents one (docs/api/errors.md)",
      content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
    },
  },
  schemas: { Error: toSchema(errorAnswer, "output") },
};

/** A resource around its properties, as it is sent. */
export function envelopeSchema(properties: string): Json {
  return {
    type: "object",
    additionalProperties: true,
    properties: {
      id: { type: "string", readOnly: true },
      name: { type: "string", readOnly: true },
      type: { type: "string", readOnly: true },
      etag: { type: "string", readOnly: true },
      location: text,
      tags: { type: "object", additionalProperties: text },
      sku: object,
      kind: text,
      identity: object,
      properties: reference("schemas", properties),
    },
  };
}

export function responsesOf(body: Json | undefined, statuses: readonly string[]): Json {
  const shown = (status: string): Json => {
    const hasBody = body !== undefined && (status === "200" || status === "201" || status === "202");
    const headers = status === "202" || status === "201" ? { headers: reference202 } : {};
    return { description: descriptions[status] ?? "answered", ...headers, ...(hasBody ? { content: json(body) } : {}) };
  };
  const good = Object.fromEntries(statuses.toSorted().map((status) => [status, shown(status)]));
  return { ...good, ...Object.fromEntries(problems.map((name) => [name === "Error" ? "default" : name, reference("responses", "Error")])) };
}

const descriptions: Readonly<Record<string, string>> = {
  "200": "done",
  "201": "made",
  "202": "begun: follow Azure-AsyncOperation or Location",
  "204": "done, or there is nothing",
  "304": "not changed since",
};
const reference202: Json = {
  "Azure-AsyncOperation": { schema: { type: "string", format: "uri" } },
  Location: { schema: { type: "string", format: "uri" } },
  "Retry-After": { schema: { type: "integer" } },
};

export function toSchema(shape: z.ZodType, io: "input" | "output"): Json {
  const { $schema: _schema, ...schema } = z.toJSONSchema(shape, { io, unrepresentable: "any", target: "draft-2020-12" });
  return JSON.parse(JSON.stringify(schema)) as Json; // What zod makes is JSON.
}

/** Of a resource as it is answered; open where the type keeps what it was sent. */
export function toAnswerSchema(shape: z.ZodType, type: ResourceType): Json {
  const schema = toSchema(shape, "output");
  const kept = keptOf(type);
  return kept === "nothing" ? schema : opened(schema, kept);
}

function opened(schema: Json, kept: "beside" | "everything"): Json {
  if (Array.isArray(schema)) return schema.map((each: Json) => opened(each, kept));
  if (!isObject(schema)) return schema;
  const { additionalProperties, ...members } = schema;
  const isClosed = additionalProperties === false;
  const inner = kept === "beside" ? members : Object.fromEntries(Object.entries(members).map(([name, each]) => [name, opened(each, kept)]));
  return additionalProperties === undefined || isClosed ? inner : { ...inner, additionalProperties };
}

function isObject(value: Json): value is { readonly [name: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function bodyOf(schema: Json, required: boolean): Json {
  return { required, content: json(schema) };
}

function json(schema: Json): Json {
  return { "application/json": { schema } };
}

export function reference(kind: string, name: string): Json {
  return { $ref: `#/components/${kind}/${name}` };
}
