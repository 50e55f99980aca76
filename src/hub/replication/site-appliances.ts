// The appliances that site resources stand for: found by path, shown one by one, and how well each is.

import { sql } from "kysely";
import { z } from "zod";
import { fromTimestamp } from "../../base/clock.ts";
import { Fault, toReport, type FaultReport } from "../../contract/errors.ts";
import { ancestorOfType, type ResourceId } from "../api/resource-id.ts";
import { defineAction, type ActionDefinition, type ResourceSource } from "../api/resource-type.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import { healthLimits } from "../health/health-rules.ts";
import type { HubServices } from "../services.ts";
import { containerId, fabricType, itemType, vaultOf } from "./names.ts";

/** The appliances at or under which a call looks: one for anything inside a fabric, else all of the vault. */
export async function appliancesOf(services: HubServices, id: ResourceId): Promise<readonly Appliance[]> {
  const vault = vaultOf(id);
  const all = await services.appliances.inVault(vault.key);
  if (!id.key.startsWith(`${vault.key}/replicationfabrics/`)) return all;
  const name = ancestorOfType(id, fabricType).name.toLowerCase();
  return all.filter(({ applianceId }) => applianceId === name);
}

/** Appliances of one vault are few; their lists are answered whole. */
export function sourceOf(
  services: HubServices,
  show: (vault: ResourceId, appliance: Appliance) => Promise<JsonObject>,
  nameOf: (appliance: Appliance) => string,
): ResourceSource {
  return {
    get: async ({ id }) => {
      const [appliance] = await appliancesOf(services, id);
      if (appliance === undefined || nameOf(appliance).toLowerCase() !== id.name.toLowerCase()) return undefined;
      return await show(vaultOf(id), appliance);
    },
    list: async ({ id }) => {
      const found = await appliancesOf(services, id);
      return { items: await Promise.all(found.map(async (each) => await show(vaultOf(id), each))), next: undefined };
    },
  };
}

/** By the limit of the rule that raises the error: the hub has one opinion of it. */
export function isSilent({ clock }: Pick<HubServices, "clock">, { lastSeenAt }: Appliance): boolean {
  return clock.nowMs() - fromTimestamp(lastSeenAt) > healthLimits.applianceSilentMs;
}

/** The one place that decides how well an appliance is and what is told of it. */
export function healthOf(
  services: Pick<HubServices, "clock">,
  appliance: Appliance,
): { readonly health: "Normal" | "Warning" | "Critical"; readonly errors: readonly JsonObject[] } {
  const reported = (appliance.telemetry?.healthErrors ?? []).map((fault) => toHealthError(fault, "Warning"));
  if (!isSilent(services, appliance)) return { health: reported.length > 0 ? "Warning" : "Normal", errors: reported };
  const silence = new Fault("ApplianceSilent", `nothing was heard of the appliance ${appliance.name} since ${appliance.lastSeenAt}`, {
    evidence: { applianceId: appliance.applianceId, lastSeenAt: appliance.lastSeenAt },
  });
  return { health: "Critical", errors: [toHealthError(toReport(silence), "Critical"), ...reported] };
}

export function toHealthError(fault: FaultReport, errorLevel: string): JsonObject {
  return {
    errorSource: "Appliance",
    errorType: "Health",
    errorLevel,
    errorCategory: "FabricInfrastructure",
    errorCode: fault.id,
    summaryMessage: fault.message,
    errorMessage: fault.message,
    possibleCauses: fault.causes.join("; "),
    recommendedAction: fault.action,
    errorId: fault.id,
  };
}

export async function countItems({ database }: HubServices, vault: ResourceId, { applianceId }: Appliance): Promise<number> {
  const found = await sql<{ count: number }>`select count(*)::integer as count from resources
    where type = ${itemType.toLowerCase()} and parent_key = ${containerId(vault, applianceId).key}`.execute(database.db);
  return found.rows[0]?.count ?? 0;
}

/** An action of Azure that has no meaning here: refused with the way that there is. */
export function refusedAction(doing: string, reason: string, action: string): ActionDefinition {
  return defineAction({
    isRefused: true,
    body: z.unknown(),
    run: async () => {
      throw new Fault("OperationNotSupported", `could not ${doing}: ${reason}`, { action });
    },
  });
}
