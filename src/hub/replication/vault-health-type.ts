// The health of a vault, counted anew at each call: its machines, its appliances and what is wrong with them.

import { z } from "zod";
import { defineAction, defineResource, noBody, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { JsonObject } from "../db/resources.ts";
import { openHealthErrors } from "../db/health-errors.ts";
import { presentHealthError } from "../health/present-health.ts";
import type { HubServices } from "../services.ts";
import { containerType, fabricType, itemType, vaultHealthType, vaultOf } from "./names.ts";
import { presentItems } from "./present-item.ts";
import { healthOf } from "./site-appliances.ts";

const pageRows = 500;
const namesMax = 100;
const errorsShape = z.array(z.looseObject({ errorCode: z.string().optional(), errorMessage: z.string().optional() })).default([]);
const itemHealthShape = z.looseObject({ replicationHealth: z.string(), healthErrors: errorsShape });

interface Seen {
  readonly name: string;
  readonly level: string;
  readonly errors: z.infer<typeof errorsShape>;
}

export function vaultHealthResource(services: HubServices): ResourceType {
  const show = async (id: ResourceId): Promise<JsonObject> => await showHealth(services, vaultOf(id));
  return defineResource({
    type: vaultHealthType,
    within: "parent",
    properties: z.record(z.string(), z.unknown()),
    source: {
      get: async ({ id }) => (id.name.toLowerCase() === "default" ? await show(id) : undefined),
      list: async ({ id }) => ({ items: [await show(id)], next: undefined }),
      whole: async ({ id }) => await show(id),
    },
    actions: {
      refresh: defineAction({ body: noBody, isRead: true, run: async ({ id }) => ({ kind: "done", body: await show(id) }) }),
    },
  });
}

async function showHealth(services: HubServices, vault: ResourceId): Promise<JsonObject> {
  const appliances = (await services.appliances.inVault(vault.key)).map((appliance): Seen => {
    const { health, errors } = healthOf(services, appliance);
    return { name: appliance.applianceId, level: health, errors: errorsShape.parse(errors) };
  });
  return {
    id: `${vault.text}/replicationVaultHealth/default`,
    name: "default",
    type: vaultHealthType,
    properties: {
      vaultErrors: (await openHealthErrors(services.database.db, vault.key)).map(presentHealthError),
      protectedItemsHealth: summarise(await lookAtItems(services, vault), itemType),
      fabricsHealth: summarise(appliances, fabricType),
      containersHealth: summarise(appliances, containerType),
    },
  };
}

export async function lookAtItems(services: HubServices, vault: ResourceId): Promise<readonly Seen[]> {
  const seen: Seen[] = [];
  for (let afterKey = ""; ;) {
    const page = await services.resources.list({ under: vault.text, isDeep: true, type: itemType, afterKey, countMax: pageRows });
    for (const [index, shown] of (await presentItems(services, page)).entries()) {
      const { replicationHealth, healthErrors } = itemHealthShape.parse(shown);
      seen.push({ name: page[index]?.id.text ?? "", level: replicationHealth, errors: healthErrors });
    }
    const last = page.at(-1);
    if (last === undefined || page.length < pageRows) return seen;
    afterKey = last.id.key;
  }
}

function summarise(seen: readonly Seen[], affectedResourceType: string): JsonObject {
  const levels = Object.groupBy(seen, ({ level }) => level);
  const byCode = Object.groupBy(
    seen.flatMap(({ name, level, errors }) => errors.map((error) => ({ name, level, ...error }))),
    ({ errorCode }) => errorCode ?? "Unknown",
  );
  return {
    resourceCount: seen.length,
    categorizedResourceCounts: Object.fromEntries(Object.entries(levels).map(([level, all]) => [level, all?.length ?? 0])),
    issues: Object.entries(byCode).map(([summaryCode, all = []]) => ({
      summaryCode,
      category: "Replication",
      severity: all.some(({ level }) => level === "Critical") ? "Error" : "Warning",
      summaryMessage: all[0]?.errorMessage ?? summaryCode,
      affectedResourceType,
      affectedResourceCorrelationIds: [...new Set(all.map(({ name }) => name))].slice(0, namesMax),
    })),
  };
}
