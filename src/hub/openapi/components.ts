// What every document shares: parameters, the error envelope, the resource envelope, the security scheme.

export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };

/** "Error" is the default answer; the others are those that clients treat apart. */
export const problems = ["400", "401", "403", "404", "405", "409", "412", "415", "429", "Error"] as const;

const text: Json = { type: "string" };
const object: Json = { type: "object", additionalProperties: true };

function query(name: string, schema: Json, required = false): Json {
  return { name, in: "query", required, schema };
}

function header(name: string): Json {
  return { name, in: "header", required: false, schema: text };
}

const faultSchema: Json = {
  type: "object",
  required: ["id", "message", "causes", "action", "evidence", "retry"],
  properties: {
    id: text,
    message: text,
    causes: { type: "array", items: text },
    action: text,
    evidence: object,
    retry: { enum: ["never", "later", "now"] },
  },
};

const errorSchema: Json = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["code", "message"],
      properties: {
        code: text,
        message: text,
        target: text,
        details: { type: "array", items: { type: "object", properties: { code: text, message: text, target: text } } },
        additionalInfo: {
          type: "array",
          items: { type: "object", properties: { type: text, info: { $ref: "#/components/schemas/Fault" } } },
        },
      },
    },
  },
};

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
  schemas: { Error: errorSchema, Fault: faultSchema },
} as const;

/** A resource around its properties. */
export function envelopeSchema(properties: string, isNamed: boolean): Json {
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
      properties: isNamed ? { $ref: `#/components/schemas/${properties}` } : object,
    },
  };
}
