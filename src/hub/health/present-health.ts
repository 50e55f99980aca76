// Health errors as ARM clients see them: the documented HealthError, and the level that they give to what they are about.

import type { HealthErrorRow } from "../db/health-errors.ts";
import type { JsonObject } from "../db/resources.ts";
import { healthCodes, type HealthCode, type HealthErrorCode } from "./health-codes.ts";

export function presentHealthError(row: HealthErrorRow): JsonObject {
  const { category, summary, causes, action, severity, component } = codeOf(row.code);
  return {
    errorSource: component,
    errorType: category === "Replication" ? "ReplicationError" : "ConfigurationError",
    errorLevel: severity === "Critical" ? "Error" : "Warning",
    errorCategory: category,
    errorCode: row.code,
    errorId: row.errorId,
    summaryMessage: summary,
    errorMessage: row.message,
    possibleCauses: causes.join("; "),
    recommendedAction: action,
    creationTimeUtc: row.raisedAt,
    recoveryProviderErrorMessage: "",
    entityId: row.entityId,
    customerResolvability: "NotAllowed",
    innerHealthErrors: [],
  };
}

/** The worst of them; Normal when there are none. */
export function healthLevel(rows: readonly HealthErrorRow[]): "Normal" | "Warning" | "Critical" {
  if (rows.some(({ code }) => codeOf(code).severity === "Critical")) return "Critical";
  return rows.length > 0 ? "Warning" : "Normal";
}

type HealthLevel = "None" | "Normal" | "Warning" | "Critical";
const levels: readonly HealthLevel[] = ["None", "Normal", "Warning", "Critical"];

/** The graver of two levels; what has not begun (None) stays so unless something is wrong. */
export function worseLevel<Level extends HealthLevel>(
  own: Level,
  found: "Normal" | "Warning" | "Critical",
): Level | "Warning" | "Critical" {
  return found === "Normal" || levels.indexOf(own) >= levels.indexOf(found) ? own : found;
}

/** An older hub's code that this one does not know is shown by its name alone. */
function codeOf(code: string): HealthCode {
  if (isKnown(code)) return healthCodes[code];
  const unknown = { severity: "Warning", category: "Configuration", kind: "ServerHealth", component: "Hub" } as const;
  return { ...unknown, summary: code, causes: [], action: "" };
}

function isKnown(code: string): code is HealthErrorCode {
  return Object.hasOwn(healthCodes, code);
}
