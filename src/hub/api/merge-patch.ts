// How a PATCH changes what is stored: JSON merge patch (RFC 7396) for properties, ARM's own rule for tags and the other members.

import type { JsonObject } from "../db/resources.ts";

/** RFC 7396: null removes, objects merge, anything else replaces. */
export function mergePatch(present: JsonObject, change: JsonObject): JsonObject {
  const merged: Record<string, unknown> = { ...present };
  for (const [name, value] of Object.entries(change)) {
    const before = merged[name];
    if (value === null) delete merged[name];
    else merged[name] = isObject(value) ? mergePatch(isObject(before) ? before : {}, value) : value;
  }
  return merged;
}

/** Tags are replaced as a whole, as Azure's resource providers do; sku, identity and the rest are merged. */
export function mergeEnvelope(present: JsonObject, change: JsonObject): JsonObject {
  const { tags, ...others } = change;
  const merged = mergePatch(present, others);
  return tags === undefined ? merged : { ...merged, tags: tags ?? {} };
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
