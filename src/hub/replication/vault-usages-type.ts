// How much of a vault is used: machines, appliances and jobs, counted at the call; and appliances as registered identities.

import { sql } from "kysely";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { unregister } from "./fabric-type.ts";
import { fabricId, vaultOf, vaultType } from "./names.ts";
import { healthOf } from "./site-appliances.ts";
import { lookAtItems } from "./vault-health-type.ts";

const properties = z.record(z.string(), z.unknown());

export function vaultUsageTypes(services: HubServices): readonly ResourceType[] {
  const listed = (name: string, list: (vault: ResourceId) => Promise<readonly JsonObject[]>): ResourceType =>
    defineResource({
      type: `${vaultType}/${name}`,
      within: "parent",
      properties,
      source: { get: async () => undefined, list: async ({ id }) => ({ items: await list(vaultOf(id)), next: undefined }) },
    });
  return [
    listed("usages", async (vault) => await usagesOf(services, vault)),
    listed("replicationUsages", async (vault) => [await replicationUsageOf(services, vault)]),
    identityResource(services),
  ];
}

async function usagesOf(services: HubServices, vault: ResourceId): Promise<readonly JsonObject[]> {
  const usage = (value: string, localizedValue: string, currentValue: number): JsonObject => ({
    unit: "Count",
    currentValue,
    name: { value, localizedValue },
  });
  return [
    usage("ProtectedItems", "protected machines", (await lookAtItems(services, vault)).length),
    usage("RegisteredServers", "registered appliances", (await services.appliances.inVault(vault.key)).length),
  ];
}

async function replicationUsageOf(services: HubServices, vault: ResourceId): Promise<JsonObject> {
  const items = await lookAtItems(services, vault);
  const appliances = await services.appliances.inVault(vault.key);
  const found = await sql<{ failed: number; suspended: number; running: number }>`select
      count(*) filter (where state = 'failed' and ended_at > clock_timestamp() - interval '1 day')::integer as failed,
      count(*) filter (where state = 'suspended')::integer as suspended,
      count(*) filter (where state in ('notStarted', 'inProgress', 'undoing'))::integer as running
    from jobs where scope = ${vault.key}`.execute(services.database.db);
  const jobs = found.rows[0];
  return {
    monitoringSummary: {
      unHealthyVmCount: items.filter(({ level }) => level !== "Normal").length,
      unHealthyProviderCount: appliances.filter((appliance) => healthOf(services, appliance).health !== "Normal").length,
      supportedProviderCount: appliances.length,
      deprecatedProviderCount: 0,
      unsupportedProviderCount: 0,
    },
    jobsSummary: { failedJobs: jobs?.failed ?? 0, suspendedJobs: jobs?.suspended ?? 0, inProgressJobs: jobs?.running ?? 0 },
    protectedItemCount: items.length,
    registeredServersCount: appliances.length,
    recoveryServicesProviderAuthType: 1,
  };
}

/** By an appliance's id, or its name while only one has it. */
function identityResource(services: HubServices): ResourceType {
  const find = async (id: ResourceId): Promise<Appliance | undefined> => {
    const name = id.name.toLowerCase();
    const all = await services.appliances.inVault(vaultOf(id).key);
    const named = all.filter((each) => each.applianceId === name || each.name.toLowerCase() === name);
    if (named.length < 2) return named[0];
    throw new Fault("StateConflict", `could not tell which appliance ${id.name} is: several have the name`, {
      evidence: { appliances: named.map(({ applianceId }) => applianceId) },
      action: "call with the appliance's id",
      retry: "never",
    });
  };
  const type = `${vaultType}/registeredIdentities`;
  const show = (vault: ResourceId, { applianceId, name }: Appliance): JsonObject => ({
    id: `${vault.text}/registeredIdentities/${applianceId}`,
    name: applianceId,
    type,
    properties: { friendlyName: name },
  });
  return defineResource({
    type,
    within: "parent",
    properties,
    source: {
      get: async ({ id }) => {
        const appliance = await find(id);
        return appliance === undefined ? undefined : show(vaultOf(id), appliance);
      },
      list: async ({ id }) => ({
        items: (await services.appliances.inVault(vaultOf(id).key)).map((appliance) => show(vaultOf(id), appliance)),
        next: undefined,
      }),
    },
    onDelete: async ({ id }) => {
      const appliance = await find(id);
      if (appliance !== undefined) await unregister(services, fabricId(vaultOf(id), appliance.applianceId));
      return { kind: "done" };
    },
  });
}
