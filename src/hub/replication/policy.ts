// A replication policy as it is stored: how often a machine makes recovery points, and which machines follow it.

import { sql } from "kysely";
import { z } from "zod";
import type { ReplicationPolicy } from "../../contract/agent-control.ts";
import { Fault } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";
import { parseItem, type Item } from "./item.ts";
import { itemType, policyType, provider, vaultOf } from "./names.ts";

export const defaultPolicyName = "default";

export const settingsShape = z.strictObject({
  instanceType: z.literal(provider, `the provider must be ${provider}`).default(provider),
  recoveryPointThresholdInMinutes: z.number().int().min(1).max(1440).default(15),
  recoveryPointHistory: z.number().int().min(0).max(21_600).default(1440),
  crashConsistentFrequencyInMinutes: z.number().min(0.01).max(1440).optional(),
  /** Between points for which the guest's scripts bring its applications to rest; 0 makes none. */
  appConsistentFrequencyInMinutes: z.number().min(0).max(1440).default(0),
  /** Machines that are put into a group when they are enabled make their points at one moment. */
  multiVmSyncStatus: z.enum(["Enable", "Disable"]).default("Disable"),
  /** Ours: seconds between points, finer than Azure's minutes; it wins when both are given. */
  pointIntervalSeconds: z.number().min(1).max(86_400).optional(),
  freezeMsMax: z.number().int().min(50).max(10_000).default(1000),
  /** Ours: hours between rehearsals of each machine that follows the policy; absent or 0: none by the clock. */
  rehearsalIntervalHours: z.number().min(0).max(8784).optional(),
});
export type Settings = z.infer<typeof settingsShape>;

/** Of a PATCH: only what it names changes, and the whole is judged again. */
export const settingsChangeShape = z.strictObject({
  instanceType: settingsShape.shape.instanceType.unwrap().optional(),
  recoveryPointThresholdInMinutes: z.number().optional(),
  recoveryPointHistory: z.number().optional(),
  crashConsistentFrequencyInMinutes: z.number().optional(),
  appConsistentFrequencyInMinutes: z.number().optional(),
  multiVmSyncStatus: z.string().optional(),
  pointIntervalSeconds: z.number().optional(),
  freezeMsMax: z.number().optional(),
  rehearsalIntervalHours: z.number().optional(),
});

/** As users of Azure know it. */
const intervalSecondsDefault = 300;

/** Fault NotFound for a policy that does not exist; the default one always does. */
export async function settingsOfPolicy(services: Pick<HubServices, "resources">, id: ResourceId): Promise<Settings> {
  const stored = await services.resources.find(id);
  if (stored !== undefined) return settingsOf(stored);
  if (id.name.toLowerCase() === defaultPolicyName) return settingsShape.parse({});
  throw new Fault("NotFound", `could not find the replication policy ${id.name}`, { evidence: { policyId: id.text } });
}

/** What a policy tells an agent. Fault NotFound for one that does not exist. */
export async function agentPolicyOf(
  services: Pick<HubServices, "resources">,
  id: ResourceId,
  group: ReplicationPolicy["group"],
): Promise<ReplicationPolicy> {
  return toAgentPolicy(await settingsOfPolicy(services, id), group);
}

/** A group counts as long as the policy wants points of several machines. */
export function toAgentPolicy(settings: Settings, group: ReplicationPolicy["group"]): ReplicationPolicy {
  const { appConsistentFrequencyInMinutes: applicationIntervalMinutes, freezeMsMax, recoveryPointHistory: historyMinutes } = settings;
  const common = { pointIntervalSeconds: intervalOf(settings), freezeMsMax, historyMinutes, applicationIntervalMinutes };
  return group === undefined || settings.multiVmSyncStatus !== "Enable" ? common : { ...common, group };
}

/** What a change leaves: minutes given without seconds replace seconds that were given before. */
export function changeSettings(present: Settings, change: JsonObject): JsonObject {
  const isInMinutes = change["crashConsistentFrequencyInMinutes"] !== undefined && change["pointIntervalSeconds"] === undefined;
  const { pointIntervalSeconds, ...rest } = present;
  return { ...(isInMinutes || pointIntervalSeconds === undefined ? rest : present), ...change };
}

function intervalOf(settings: Settings): number {
  const minutes = settings.crashConsistentFrequencyInMinutes;
  return settings.pointIntervalSeconds ?? (minutes === undefined ? intervalSecondsDefault : Math.max(1, minutes * 60));
}

export function settingsOf(resource: Resource): Settings {
  return settingsShape.parse(resource.properties["settings"] ?? {});
}

export function presentPolicy(resource: Resource): JsonObject {
  return presentResource(resource, policyType, shownProperties(resource.id, settingsOf(resource)));
}

export function presentDefault(id: ResourceId): JsonObject {
  const properties = { ...shownProperties(id, settingsShape.parse({})), provisioningState: "Succeeded" };
  return { id: id.text, name: id.name, type: policyType, properties };
}

export function shownProperties(id: ResourceId, settings: Settings): JsonObject {
  const pointIntervalSeconds = intervalOf(settings);
  const crashConsistentFrequencyInMinutes = pointIntervalSeconds / 60;
  return { friendlyName: id.name, providerSpecificDetails: { ...settings, pointIntervalSeconds, crashConsistentFrequencyInMinutes } };
}

/** The protected items of the vault that follow the policy. */
export async function itemsUnder(db: Queryable, policyId: ResourceId): Promise<readonly { readonly id: string; readonly item: Item }[]> {
  const found = await sql<{ id: string; properties: JsonObject }>`select id, properties from resources
    where properties->>'policyName' is not null and type = ${itemType.toLowerCase()} and starts_with(key, ${`${vaultOf(policyId).key}/`})
      and lower(properties->>'policyName') = ${policyId.name.toLowerCase()} order by key`.execute(db);
  return found.rows.map(({ id, properties }) => ({ id, item: parseItem(properties) }));
}
