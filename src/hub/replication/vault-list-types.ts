// What a vault lists besides fabrics: settings, supported systems, appliances; and Azure's kinds that are absent here.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import { presentResource, type JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { absentTypes } from "./absent-types.ts";
import { fabricId, provider, vaultOf, vaultType } from "./names.ts";
import { spaceOf } from "./process-server.ts";
import { countItems, healthOf } from "./site-appliances.ts";

const anything = z.record(z.string(), z.unknown());

export function vaultListTypes(services: HubServices): readonly ResourceType[] {
  return [settingResource(services), systemsResource(), appliancesResource(services), ...absentTypes];
}

const settingName = "default";
const settingType = `${vaultType}/replicationVaultSettings`;
const settingShape = z.looseObject({
  migrationSolutionId: z.string().max(2048).optional(),
  vmwareToAzureProviderType: z.literal(provider, `the provider must be ${provider}`).default(provider),
});

function settingResource({ resources }: HubServices): ResourceType {
  const show = async (vault: ResourceId): Promise<JsonObject> => {
    const stored = await resources.find(`${vault.text}/replicationVaultSettings/${settingName}`);
    if (stored !== undefined) return presentResource(stored, settingType, stored.properties);
    const id = `${vault.text}/replicationVaultSettings/${settingName}`;
    return { id, name: settingName, type: settingType, properties: settingShape.parse({}) };
  };
  return defineResource({
    type: settingType,
    isBare: true,
    within: "parent",
    properties: settingShape,
    onPut: async ({ id }, { properties }) => {
      if (id.name.toLowerCase() === settingName) return { kind: "done", properties };
      throw new Fault("InputInvalid", `could not store the setting ${id.name}: a vault has one, named ${settingName}`);
    },
    source: {
      get: async ({ id }) => (id.name.toLowerCase() === settingName ? await show(vaultOf(id)) : undefined),
      list: async ({ id }) => ({ items: [await show(vaultOf(id))], next: undefined }),
    },
  });
}

/** What the agent needs; its prerequisites are checked on each machine before anything is installed. */
const supportedSystems = [
  {
    osName: "Linux, x86-64, with systemd",
    osType: "Linux",
    osVersions: [{ version: "kernel 4.18 or newer, glibc 2.28 or newer", servicePack: "" }],
  },
];

function systemsResource(): ResourceType {
  const type = `${vaultType}/replicationSupportedOperatingSystems`;
  const show = ({ id, query }: ArmCall): JsonObject => {
    const isAsked = (query["instancetype"] ?? provider).toLowerCase() === provider.toLowerCase();
    const supportedOsList = isAsked ? [{ instanceType: provider, supportedOs: supportedSystems }] : [];
    return { id: `${vaultOf(id).text}/replicationSupportedOperatingSystems`, name: "default", type, properties: { supportedOsList } };
  };
  return defineResource({
    type,
    within: "parent",
    properties: anything,
    source: {
      get: async () => undefined,
      list: async (call) => ({ items: [show(call)], next: undefined }),
      whole: async (call) => show(call),
    },
  });
}

/** Azure documents one shape for appliances in this list; ours are answered in it. */
const applianceInstanceType = "InMageRcm";

function appliancesResource(services: HubServices): ResourceType {
  return defineResource({
    type: `${vaultType}/replicationAppliances`,
    within: "parent",
    properties: anything,
    source: {
      get: async () => undefined,
      list: async (call) => {
        const vault = vaultOf(call.id);
        const found = isWanted(call.query["$filter"]) ? await services.appliances.inVault(vault.key) : [];
        const appliances = await Promise.all(found.map(async (appliance) => await showAppliance(services, vault, appliance)));
        const details = { instanceType: applianceInstanceType, appliances };
        return { items: appliances.length === 0 ? [] : [{ properties: { providerSpecificDetails: details } }], next: undefined };
      },
    },
  });
}

function isWanted(filter: string | undefined): boolean {
  if (filter === undefined || filter.trim() === "") return true;
  const wanted = /^\s*(?:instanceType|providerType)\s+eq\s+'([^']*)'\s*$/i.exec(filter)?.[1];
  if (wanted !== undefined) return [provider, applianceInstanceType].some((each) => each.toLowerCase() === wanted.toLowerCase());
  throw new Fault("InputInvalid", "could not read the filter of appliances", {
    evidence: { filter: filter.slice(0, 200) },
    action: "filter by instanceType eq 'InMageRcm', or not at all",
  });
}

async function showAppliance(services: HubServices, vault: ResourceId, appliance: Appliance): Promise<JsonObject> {
  const { applianceId, name, version, lastSeenAt } = appliance;
  const { health, errors } = healthOf(services, appliance);
  const protectedItemCount = await countItems(services, vault, appliance);
  const common = { id: applianceId, name, version, lastHeartbeatUtc: lastSeenAt, health, healthErrors: errors };
  const { totalSpaceInBytes, availableSpaceInBytes } = spaceOf(appliance.telemetry);
  return {
    id: applianceId,
    name,
    fabricArmId: fabricId(vault, applianceId).text,
    processServer: { ...common, totalSpaceInBytes, availableSpaceInBytes, protectedItemCount },
    dra: { ...common, forwardProtectedItemCount: protectedItemCount, reverseProtectedItemCount: 0 },
  };
}
