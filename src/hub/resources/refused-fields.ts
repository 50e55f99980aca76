// Fields that Azure knows and that mean nothing here: a value that asks for something is refused with the reason, never dropped.

import { ArmFault } from "../api/arm-errors.ts";
import type { JsonObject } from "../db/resources.ts";

/** Reasons by name of the field. Values that ask for nothing (absent, null, false, "", empty lists and objects) pass. */
export function refuseFields(what: string, properties: JsonObject, reasons: Readonly<Record<string, string>>, at = "properties"): void {
  const asked = Object.keys(reasons).filter((name) => !asksForNothing(properties[name]));
  if (asked.length === 0) return;
  const target = `${at}.${asked[0] ?? ""}`;
  throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not save ${what}: ${asked.join(" and ")} cannot be set here`, {
    evidence: { fields: asked },
    target,
    causes: asked.map((name) => `${name}: ${reasons[name] ?? ""}`),
    action: "leave the fields of the evidence out and call again",
  });
}

function asksForNothing(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === "") return true;
  return typeof value === "object" && Object.values(value).every(asksForNothing);
}
