// For what cannot be changed and may be sent all the same: clients send back what they read. Anything else is refused by its path.

import { isDeepStrictEqual } from "node:util";
import { ArmFault } from "../api/arm-errors.ts";
import type { JsonObject } from "../db/resources.ts";

/** Fault InputInvalid unless every member of `given` is as in `present`. */
export function requireSame(what: string, given: unknown, present: unknown, at = "properties"): void {
  if (given === undefined || given === null || isDeepStrictEqual(given, present)) return;
  if (isObject(given) && (isObject(present) || Object.keys(given).length === 0)) {
    for (const [name, value] of Object.entries(given))
      requireSame(what, value, isObject(present) ? present[name] : undefined, `${at}.${name}`);
    return;
  }
  if (Array.isArray(given) && given.length === 0) return;
  throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not save ${what}: ${at} cannot be set here`, {
    evidence: { member: at },
    action: "leave the member out, or send it as it is answered",
    target: at,
  });
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
