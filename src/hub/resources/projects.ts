// Migration projects: what an operator opens first; their machines are those that the vaults of the same resource group replicate.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import { projectType } from "../private-link/link-target.ts";
import { groupIds } from "../private-link/names.ts";
import type { PrivateLink } from "../private-link/private-link.ts";
import { connectionResource, linkResourceType, presentConnections, refuseWhileConnected } from "./connections.ts";

const protectedItemType = "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers/replicationProtectedItems";
const machineType = `${projectType}/machines`;
const solutionName = "Servers-Migration-ServerMigration";
/** Those that the hub is; other makers' tools register themselves with Azure alone. */
const tools = ["ServerMigration", "ServerMigration_Replication", "ServerDiscovery"] as const;
const countedMax = 10_000;

const projectShape = z.looseObject({
  publicNetworkAccess: z.enum(["Enabled", "Disabled"]).default("Disabled"),
  registeredTools: z
    .array(z.enum(tools, `the hub is ${tools.join(", ")} and no other tool`))
    .max(tools.length)
    .nullish(),
});
/** What is read of a protected item. */
const itemShape = z.looseObject({
  machineName: z.string(),
  machineId: z.string().optional(),
  infrastructureId: z.string().default(""),
  smbiosUuid: z.string().default(""),
  address: z.string().optional(),
  protectionState: z.string(),
  testFailoverState: z.string().default("None"),
  lastSuccessfulTestFailoverTime: z.string().optional(),
  target: z.looseObject({ name: z.string().optional(), resourceGroupId: z.string().optional() }).default({}),
  failover: z.looseObject({ landedName: z.string() }).optional(),
});
const migratedStates = ["CommitFailoverCompleted", "UnplannedFailoverCommitPending"];
const startingStates = ["EnablingProtection", "EnablingFailed", "InitialReplicationInProgress"];

interface Dependencies {
  readonly resources: ResourceStore;
  readonly privateLink: () => PrivateLink;
  readonly domain: string;
}

export function projectTypes({ resources, privateLink, domain }: Dependencies): readonly ResourceType[] {
  return [
    defineResource({
      type: projectType,
      within: "resourceGroup",
      properties: projectShape,
      canPatch: true,
      onDelete: async (_call, project) => {
        await refuseWhileConnected(resources, project);
        return { kind: "done" };
      },
      present: async (project) => ({
        ...project.properties,
        refreshSummaryState: "Completed",
        lastSummaryRefreshedTime: project.updatedAt,
        summary: { Servers: await summarise(resources, project.id) },
        privateEndpointConnections: await presentConnections(resources, project),
      }),
      actions: {
        // Summaries are counted at each read, so there is nothing to begin.
        refreshSummary: defineAction({
          body: z.strictObject({ goal: z.literal("Servers", "there are servers and no databases").optional() }),
          run: async () => ({ kind: "done", body: { isRefreshed: true } }),
        }),
        registerTool: defineAction({
          body: z.strictObject({ tool: z.enum(tools, `the hub is ${tools.join(", ")} and no other tool`) }),
          run: async (_call, { tool }, project) => {
            const changed = await resources.update(project.id, ({ properties }) => {
              const present = projectShape.parse(properties).registeredTools ?? [];
              return { properties: { ...properties, registeredTools: [...new Set([...present, tool])] } };
            });
            if (changed === undefined)
              throw new Fault("NotFound", `could not find ${project.id.text}`, { evidence: { resourceId: project.id.text } });
            return { kind: "done", body: { isRegistered: true } };
          },
        }),
      },
    }),
    connectionResource({ targetType: projectType, resources, privateLink }),
    linkResourceType(projectType, { groupId: groupIds.project, zone: `privatelink.prod.migration.${domain}` }),
    machineResource(resources),
  ];
}

async function summarise(resources: ResourceStore, project: ResourceId): Promise<JsonObject> {
  const rows = await resources.list({ under: project.parentText, isDeep: true, type: protectedItemType, countMax: countedMax });
  const items = rows.map(({ properties }) => itemShape.parse(properties));
  const migratedCount = items.filter(({ protectionState }) => migratedStates.includes(protectionState)).length;
  return {
    instanceType: "Servers",
    discoveredCount: items.length,
    assessedCount: 0,
    replicatingCount: items.length - migratedCount,
    testMigratedCount: items.filter(({ lastSuccessfulTestFailoverTime }) => lastSuccessfulTestFailoverTime !== undefined).length,
    migratedCount,
    refreshSummaryState: "Completed",
  };
}

function machineResource(resources: ResourceStore): ResourceType {
  return defineResource({
    type: machineType,
    within: "parent",
    properties: z.looseObject({}),
    onPut: "refuse",
    onDelete: "refuse",
    source: {
      get: async ({ id }) => {
        const group = parseResourceId(id.parentText).parentKey;
        const named = await resources.having({ type: protectedItemType, property: "name", value: id.name });
        const item = named.find((each) => each.id.key.startsWith(`${group}/`));
        return item === undefined ? undefined : showMachine(id.parentText, item);
      },
      list: async ({ id }, { after, countMax }) => {
        const wanted = { under: id.parentText, isDeep: true, type: protectedItemType, countMax: countMax + 1 };
        const rows = await resources.list(after === undefined ? wanted : { ...wanted, afterKey: after });
        const shown = rows.slice(0, countMax);
        return {
          items: shown.map((row) => showMachine(id.text, row)),
          next: rows.length > countMax ? shown.at(-1)?.id.key : undefined,
        };
      },
    },
  });
}

/** Where its replication stands, in the words of the protected item. */
function showMachine(projectId: string, row: Resource): JsonObject {
  const item = itemShape.parse(row.properties);
  const { machineName, address, protectionState, testFailoverState, target, failover } = item;
  const common = {
    solutionName,
    machineId: item.machineId ?? item.infrastructureId,
    machineName,
    fabricType: "VMware",
    biosId: item.smbiosUuid,
    ipAddresses: address === undefined ? [] : [address],
    lastUpdatedTime: row.updatedAt,
  };
  const landedIn = target.resourceGroupId ?? `/subscriptions/${row.id.subscriptionId}/resourceGroups/${row.id.resourceGroup ?? ""}`;
  return {
    id: `${projectId}/machines/${row.id.name}`,
    name: row.id.name,
    type: machineType,
    properties: {
      discoveryData: [common],
      assessmentData: [],
      migrationData: [
        {
          ...common,
          migrationPhase: protectionState,
          migrationTested: item.lastSuccessfulTestFailoverTime !== undefined,
          ...(startingStates.includes(protectionState) ? {} : { replicationProgressPercentage: 100 }),
          targetVMName: failover?.landedName ?? target.name ?? machineName,
          ...(failover === undefined
            ? {}
            : { targetVMArmId: `${landedIn}/providers/Microsoft.Compute/virtualMachines/${failover.landedName}` }),
          extendedInfo: { protectedItemId: row.id.text, protectionState, testFailoverState },
        },
      ],
      lastUpdatedTime: row.updatedAt,
    },
  };
}
