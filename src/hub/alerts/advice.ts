// What an event's fault or health code says of causes and of what to do.

import type { HubEvent } from "../db/events.ts";
import { healthCodes, type HealthCode, type HealthErrorCode } from "../health/health-codes.ts";

export interface Advice {
  readonly causes: readonly string[];
  readonly action: string;
}

const clearedSuffix = "Cleared";

/** An event of health: its code, and whether it tells that the error is over. */
export function healthOfEvent({
  code,
}: Pick<HubEvent, "code">): { readonly code: HealthErrorCode; readonly isCleared: boolean } | undefined {
  if (isHealthCode(code)) return { code, isCleared: false };
  const raised = code.endsWith(clearedSuffix) ? code.slice(0, -clearedSuffix.length) : "";
  return isHealthCode(raised) ? { code: raised, isCleared: true } : undefined;
}

/** Empty for what is over or needs nobody. */
export function adviceOf(event: Pick<HubEvent, "code" | "fault">): Advice {
  if (event.fault !== undefined) return { causes: event.fault.causes, action: event.fault.action };
  const health = healthOfEvent(event);
  if (health === undefined || health.isCleared) return { causes: [], action: "" };
  const { causes, action }: HealthCode = healthCodes[health.code];
  return { causes, action };
}

function isHealthCode(code: string): code is HealthErrorCode {
  return Object.hasOwn(healthCodes, code);
}
