// A protected item as ARM clients see it: documented states, health and details, from the stored item and what its appliance last said.

import type { AgentState } from "../../contract/agent-control.ts";
import { upgradesOf } from "../../contract/os-upgrade.ts";
import type { SealedPointReport } from "../../contract/appliance-protocol.ts";
import type { MachineState } from "../db/appliances.ts";
import { readItemFacts, type ItemFacts } from "../db/item-facts.ts";
import { openResourceStore, presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";
import { healthLevel, presentHealthError, worseLevel } from "../health/present-health.ts";
import { healthOf } from "./item-health.ts";
import { allowedOperations } from "./item-operations.ts";
import { parseItem, type Item } from "./item.ts";
import { containerName, itemType, landedId, protectableType, provider, vaultOf } from "./names.ts";
import { presentDiskNames, presentLaunch, presentManagedDisks, presentNics, presentSettings } from "./present-settings.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import type { Replication } from "./world.ts";

const mebibyte = 1 << 20;

/** The item's properties as answered. Inside a transaction, by that transaction. */
export async function presentItem(services: HubServices, resource: Resource, transaction?: Queryable): Promise<JsonObject> {
  const [shown] = await presentItems(services, [resource], transaction);
  if (shown === undefined) throw new Error("assertion failed: each item is shown");
  return shown;
}

/** As presentItem, of many by as many questions as of one. In the order of `resources`. */
export async function presentItems(
  { clock, database }: Pick<HubServices, "clock" | "database">,
  resources: readonly Resource[],
  transaction?: Queryable,
): Promise<readonly JsonObject[]> {
  const nowMs = clock.nowMs();
  const asked = resources.map((resource) => ({ resource, item: parseItem(resource.properties), vaultKey: vaultOf(resource.id).key }));
  const facts = await readItemFacts(
    transaction ?? database.db,
    asked.map(({ resource, item: { machineId, applianceId }, vaultKey }) => ({ key: resource.id.key, vaultKey, machineId, applianceId })),
  );
  return asked.flatMap(({ resource, item }, index) => {
    const known = facts[index];
    return known === undefined ? [] : [show({ item, resource, nowMs, facts: known })];
  });
}

interface Seen {
  readonly item: Item;
  readonly facts: ItemFacts;
  readonly nowMs: number;
  readonly resource: Resource;
}

function show({ item, facts, nowMs, resource }: Seen): JsonObject {
  const { machine, applianceName, raised } = facts;
  const vault = vaultOf(resource.id);
  const applianceId = parseApplianceId(item.applianceId);
  const health = healthOf({ item, machine, nowMs, resource });
  const container = resource.id.parentText;
  return {
    friendlyName: item.machineName,
    protectedItemType: "VMwareVirtualMachine",
    protectableItemId: `${container}/${protectableType.split("/").at(-1)}/${item.infrastructureId}`,
    primaryFabricFriendlyName: applianceName ?? item.applianceId,
    primaryFabricProvider: "VMware",
    recoveryFabricFriendlyName: "Watari",
    primaryProtectionContainerFriendlyName: containerName(applianceId),
    protectionState: item.protectionState,
    protectionStateDescription: item.protectionState.replaceAll(/([a-z])([A-Z])/g, "$1 $2"),
    activeLocation: item.protectionState === "CommitFailoverCompleted" ? "Recovery" : "Primary",
    testFailoverState: item.testFailoverState,
    testFailoverStateDescription: item.testFailoverState.replaceAll(/([a-z])([A-Z])/g, "$1 $2"),
    allowedOperations: allowedOperations(item),
    replicationHealth: worseLevel(health.level, healthLevel(raised)),
    failoverHealth: health.failoverLevel,
    healthErrors: [...raised.map(presentHealthError), ...health.errors],
    policyId: `${vault.text}/replicationPolicies/${item.policyName}`,
    policyFriendlyName: item.policyName,
    ...(item.lastSuccessfulFailoverTime === undefined ? {} : { lastSuccessfulFailoverTime: item.lastSuccessfulFailoverTime }),
    ...(item.lastSuccessfulTestFailoverTime === undefined ? {} : { lastSuccessfulTestFailoverTime: item.lastSuccessfulTestFailoverTime }),
    ...(item.scenario === undefined ? {} : { currentScenario: item.scenario }),
    ...(item.failover === undefined ? {} : { failoverRecoveryPointId: `${resource.id.text}/recoveryPoints/${item.failover.pointId}` }),
    providerSpecificDetails: details({ item, facts, nowMs, resource }),
  };
}

function details({ item, facts: { machine, stored, newestPoint: point }, nowMs, resource }: Seen): JsonObject {
  const state = machine?.report.state;
  const facts = machine?.report.facts ?? item.facts ?? stored;
  const lagSeconds = point === undefined ? undefined : Math.max(0, Math.round((nowMs - point.timeMs) / 1000));
  const landed = item.failover ?? item.test;
  const vault = vaultOf(resource.id);
  return {
    ...presentSettings(item),
    instanceType: provider,
    multiVmGroupId: item.group?.groupId ?? "",
    multiVmGroupName: item.group?.name ?? "",
    multiVmSyncStatus: item.group === undefined ? "Disabled" : "Enabled",
    infrastructureVmId: item.infrastructureId,
    vCenterInfrastructureId: item.infrastructureId,
    vmId: item.machineId ?? "",
    protectionStage: item.protectionState,
    vmProtectionState: item.protectionState,
    resyncProgressPercentage: percentOf(state),
    ...(lagSeconds === undefined ? {} : { rpoInSeconds: lagSeconds }),
    ipAddress: facts?.addresses[0] ?? item.address ?? "",
    agentVersion: machine?.report.agentVersion ?? "",
    ...(machine === undefined ? {} : { lastHeartbeat: machine.lastSeenAt, lastUpdateReceivedTime: machine.lastSeenAt }),
    processServerId: item.applianceId,
    sourceVmCpuCount: facts?.cpuCount ?? 0,
    sourceVmRamSizeInMB: Math.round((facts?.memoryBytes ?? 0) / mebibyte),
    osType: "Linux",
    osVersion: facts?.osName ?? "",
    supportedOSVersions: [...upgradesOf(facts?.osName ?? "")],
    firmwareType: facts?.firmware === "efi" ? "UEFI" : "BIOS",
    discoveryType: "vCenter",
    totalDataTransferred: state?.sentBytes ?? 0,
    totalProgressHealth: state?.phase === "initial" ? "InProgress" : "None",
    recoveryAzureVMName: item.target.name ?? item.machineName,
    recoveryAzureVMSize: item.target.size ?? "",
    selectedRecoveryAzureNetworkId: item.target.networkId ?? "",
    selectedTfoAzureNetworkId: item.target.testNetworkId ?? "",
    ...(landed === undefined ? {} : { targetVmId: landedId(vault, landed.landedName).text }),
    vmNics: presentNics(item, facts),
    azureVMDiskDetails: presentDiskNames(item, facts),
    protectedManagedDisks: presentManagedDisks(item, state?.disks ?? []),
    protectedDisks: disksOf(state, lagSeconds),
    validationErrors: [],
    watari: extension({ item, machine, point, state, lagSeconds }),
  };
}

/** What ARM has no word for. */
function extension(seen: {
  readonly item: Item;
  readonly machine: MachineState | undefined;
  readonly point: SealedPointReport | undefined;
  readonly state: AgentState | undefined;
  readonly lagSeconds: number | undefined;
}): JsonObject {
  const { item, point, state, lagSeconds, machine } = seen;
  return {
    ...(machine?.report.flow === undefined ? {} : { flow: machine.report.flow }),
    phase: state?.phase ?? "unknown",
    residentBytes: state?.residentBytes ?? 0,
    cpuSeconds: state?.cpuSeconds ?? 0,
    readBytes: state?.readBytes ?? 0,
    sentBytes: state?.sentBytes ?? 0,
    dirtyBytes: (state?.disks ?? []).reduce((sum, disk) => sum + disk.dirtyBytes, 0),
    pointCount: state?.pointCount ?? 0,
    ...(lagSeconds === undefined ? {} : { lagSeconds }),
    ...(point === undefined ? {} : { lastRecoveryPoint: point }),
    ...(item.test === undefined ? {} : { test: item.test }),
    ...(item.rehearsal === undefined ? {} : { rehearsal: item.rehearsal }),
    ...(item.reverse === undefined ? {} : { reverse: item.reverse }),
    ...(item.settings.postLaunchActions.length === 0 ? {} : { postLaunchActions: item.settings.postLaunchActions }),
    ...presentLaunch(item),
    ...(item.failover === undefined ? {} : { failover: item.failover }),
  };
}

function disksOf(state: AgentState | undefined, lagSeconds: number | undefined): readonly JsonObject[] {
  return (state?.disks ?? []).map((disk) => ({
    diskId: disk.diskId,
    diskName: disk.diskId,
    diskCapacityInBytes: disk.sizeBytes,
    resyncRequired: "false",
    resyncProcessedBytes: disk.copiedBytes,
    resyncProgressPercentage: disk.sizeBytes === 0 ? 100 : Math.floor((100 * disk.copiedBytes) / disk.sizeBytes),
    sourceDataInMegaBytes: disk.dirtyBytes / mebibyte,
    progressHealth: state?.phase === "initial" ? "InProgress" : "None",
    progressStatus: `${disk.tracking.rung}: ${disk.tracking.reason}`,
    ...(lagSeconds === undefined ? {} : { rpoInSeconds: lagSeconds }),
  }));
}

function percentOf(state: AgentState | undefined): number {
  if (state === undefined) return 0;
  if (state.phase !== "initial") return 100;
  const sizeBytes = state.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
  const copiedBytes = state.disks.reduce((sum, disk) => sum + disk.copiedBytes, 0);
  return sizeBytes === 0 ? 0 : Math.floor((100 * copiedBytes) / sizeBytes);
}

/** The item as a job's operation answers it when it ends. */
export async function presentAfter(world: Replication, db: Queryable, itemId: string): Promise<JsonObject> {
  const { services } = world;
  const resource = await openResourceStore({ db, clock: services.clock, random: services.random }).get(itemId);
  return presentResource(resource, itemType, await presentItem(services, resource, db));
}
