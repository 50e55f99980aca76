// Replication policies: how often a recovery point is made. The default one exists from the start and can be replaced.

import { z } from "zod";
import type { ReplicationPolicy } from "../../contract/agent-control.ts";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import { childId, type ResourceId } from "../api/resource-id.ts";
import { presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { policyType, provider, vaultOf } from "./names.ts";

export const defaultPolicyName = "default";

const settingsShape = z.looseObject({
  instanceType: z.literal(provider).default(provider),
  recoveryPointThresholdInMinutes: z.number().int().min(1).max(1440).default(15),
  recoveryPointHistory: z.number().int().min(1).max(21_600).default(1440),
  crashConsistentFrequencyInMinutes: z.number().min(0.01).max(1440).optional(),
  appConsistentFrequencyInMinutes: z.number().min(0).max(1440).default(0),
  multiVmSyncStatus: z.string().max(20).default("Disable"),
  /** Ours: seconds between points, finer than Azure's minutes; it wins when both are given. */
  pointIntervalSeconds: z.number().min(1).max(86_400).optional(),
  freezeMsMax: z.number().int().min(50).max(10_000).default(2000),
});
type Settings = z.infer<typeof settingsShape>;

const intervalSecondsDefault = 10;
const policyShape = z.looseObject({ providerSpecificInput: settingsShape.optional() });

export function policyResource(services: HubServices): ResourceType {
  const show = async (id: ResourceId): Promise<JsonObject | undefined> => {
    const stored = await services.resources.find(id);
    if (stored !== undefined) return present(stored);
    return id.name.toLowerCase() === defaultPolicyName ? showDefault(id) : undefined;
  };
  return defineResource({
    type: policyType,
    within: "parent",
    properties: policyShape,
    onPut: async (_call, desired) => {
      const settings = settingsShape.parse(desired.properties.providerSpecificInput ?? {});
      return { kind: "done", properties: { settings } };
    },
    present: async (resource) => shownProperties(resource.id, settingsOf(resource)),
    source: {
      get: async ({ id }) => await show(id),
      list: async ({ id }, { after, countMax }) => {
        const vault = vaultOf(id);
        const rows = await services.resources.list({ under: vault.text, type: policyType, afterKey: after ?? "", countMax: countMax + 1 });
        const page = rows.slice(0, countMax);
        const defaultId = childId(vault, "replicationPolicies", defaultPolicyName);
        const isDefaultStored = (await services.resources.find(defaultId)) !== undefined;
        const first = after === undefined && !isDefaultStored ? [showDefault(defaultId)] : [];
        return { items: [...first, ...page.map(present)], next: rows.length > countMax ? page.at(-1)?.id.key : undefined };
      },
    },
  });
}

/** What a policy tells an agent. Fault NotFound for one that does not exist. */
export async function agentPolicyOf(services: HubServices, id: ResourceId): Promise<ReplicationPolicy> {
  const stored = await services.resources.find(id);
  if (stored === undefined && id.name.toLowerCase() !== defaultPolicyName)
    throw new Fault("NotFound", `could not find the replication policy ${id.name}`, { evidence: { policyId: id.text } });
  const settings = stored === undefined ? settingsShape.parse({}) : settingsOf(stored);
  return { pointIntervalSeconds: intervalOf(settings), freezeMsMax: settings.freezeMsMax };
}

function intervalOf(settings: Settings): number {
  const minutes = settings.crashConsistentFrequencyInMinutes;
  return settings.pointIntervalSeconds ?? (minutes === undefined ? intervalSecondsDefault : Math.max(1, minutes * 60));
}

function settingsOf(resource: Resource): Settings {
  return settingsShape.parse(resource.properties["settings"] ?? {});
}

function present(resource: Resource): JsonObject {
  return presentResource(resource, policyType, shownProperties(resource.id, settingsOf(resource)));
}

function showDefault(id: ResourceId): JsonObject {
  const properties = { ...shownProperties(id, settingsShape.parse({})), provisioningState: "Succeeded" };
  return { id: id.text, name: id.name, type: policyType, properties };
}

function shownProperties(id: ResourceId, settings: Settings): JsonObject {
  const pointIntervalSeconds = intervalOf(settings);
  const crashConsistentFrequencyInMinutes = pointIntervalSeconds / 60;
  return { friendlyName: id.name, providerSpecificDetails: { ...settings, pointIntervalSeconds, crashConsistentFrequencyInMinutes } };
}
