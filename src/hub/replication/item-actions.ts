// The actions of a protected item: each is checked against the state and becomes a job, or is refused with what to call instead.

import { upgradeWish } from "./os-upgrade.ts";
import { Fault } from "../../contract/errors.ts";
import { requireExcludable } from "../../contract/disk-choice.ts";
import { parseApplianceId, parseDiskId, parseMachineId, type PointId } from "../../contract/ids.ts";
import { z } from "zod";
import { defineAction, noBody, type ActionDefinition, type ActionOutcome } from "../api/resource-type.ts";
import type { Resource } from "../db/resources.ts";
import { newestPoint, requirePointOf, toPointId, type RecoveryPointType } from "./choose-point.ts";
import { exportWishOf, requireExportable } from "./export-point.ts";
import { changedExclusion } from "./change-disks.ts";
import { requireAccount } from "./enable-protection.ts";
import { cardsLeftOut } from "./item-settings.ts";
import { jobLaunchOf, requireAddressing, type JobLaunch } from "./launch-settings.ts";
import { landedId, vaultOf } from "./names.ts";
import {
  addDisksBody,
  applyBody,
  cleanupBody,
  exportBody,
  failoverBody,
  refuseOtherWays,
  rehearseBody,
  removeBody,
  removeDisksBody,
  resolveBody,
  testBody,
  updateAgentBody,
  type ApplyBody,
  type FailoverBody,
  type RehearseBody,
  type TestBody,
} from "./item-bodies.ts";
import { resolveHealthErrors } from "./item-health.ts";
import { requireOperation, requireReplicating, type ItemOperation } from "./item-operations.ts";
import { answerAtOnce, machineOf, startJob, type Accepted, type ItemCall } from "./item-start.ts";
import { parseItem, type Item, type ProtectionState } from "./item.ts";
import type { FailoverParameters, TestedMachine } from "./failover-shape.ts";
import { findLanded } from "./landed.ts";
import { actionsFor, type LaunchAction } from "./launch-actions.ts";
import { predictFor } from "./predict-downtime.ts";
import { rehearsalKind } from "./rehearsal.ts";
import { defaultLandedName } from "./unplanned-failover.ts";
import { reverseActions } from "./reverse-actions.ts";
import { beginApplianceUpdate, updateApplianceBody } from "./switch-begin.ts";
import type { ReplicationFront } from "./world.ts";

export function actionsOf(front: ReplicationFront): Readonly<Record<string, ActionDefinition>> {
  return { ...migrationActions(front), ...replicationActions(front), ...reverseActions(front), ...refusedActions };
}

function migrationActions(front: ReplicationFront): Readonly<Record<string, ActionDefinition>> {
  return {
    testFailover: defineAction({
      body: testBody,
      run: async (call, body, resource) => await test(front, call, body.properties, resource),
    }),
    testFailoverCleanup: defineAction({
      body: cleanupBody,
      run: async (call, body, resource) => await cleanUp(front, call, body.properties?.comments ?? "", resource),
    }),
    /** How long the cut-over would keep the machine away, before anybody orders it. */
    predictDowntime: defineAction({
      body: noBody,
      isRead: true,
      run: async ({ id }, _body, resource) => {
        const { machineId } = parseItem(resource.properties);
        const wish = { vaultKey: vaultOf(id).key, itemId: id.text, machineId, hasFinalSync: true };
        return { kind: "done", body: await predictFor(front.services, wish) };
      },
    }),
    rehearse: defineAction({
      body: rehearseBody,
      isLong: true,
      run: async (call, body, resource) => await rehearse(front, call, body.properties, resource),
    }),
    unplannedFailover: defineAction({
      body: failoverBody,
      run: async (call, body, resource) => await migrate(front, call, body.properties, resource),
    }),
    /** A migration that lands what was tested: the test machine's definition with the final point's disks. */
    promote: defineAction({
      body: failoverBody,
      isLong: true,
      run: async (call, body, resource) => await migrate(front, call, body.properties, resource, await testedOf(front, resource)),
    }),
    applyRecoveryPoint: defineAction({
      body: applyBody,
      run: async (call, body, resource) => await applyPoint(front, call, body.properties, resource),
    }),
    failoverCommit: defineAction({
      body: noBody,
      run: async (call, _body, resource) => await finish(front, call, resource, ends.Commit),
    }),
    failoverCancel: defineAction({
      body: noBody,
      run: async (call, _body, resource) => await finish(front, call, resource, ends.CancelFailover),
    }),
  };
}

function replicationActions(front: ReplicationFront): Readonly<Record<string, ActionDefinition>> {
  return {
    repairReplication: defineAction({
      body: noBody,
      run: async (call, _body, resource) => {
        const item = parseItem(resource.properties);
        requireOperation(item, "RepairReplication", "resynchronize");
        const change = { busyWith: "RepairReplication" };
        return await startJob(front, call, item, { kind: "RepairReplication", parameters: machineOf(item), change });
      },
    }),
    updateMobilityService: defineAction({
      body: updateAgentBody,
      run: async (call, body, resource) => await updateAgent(front, call, body.properties?.runAsAccountId, resource),
    }),
    addDisks: defineAction({
      body: addDisksBody,
      run: async (call, { properties: { providerSpecificDetails: details } }, resource) => {
        const diskIds = [...details.disksToInclude, ...details.vmManagedDisks].map((disk) => disk.diskId);
        return await changeDisks(front, call, resource, { kind: "AddDisks", diskIds });
      },
    }),
    removeDisks: defineAction({
      body: removeDisksBody,
      run: async (call, { properties: { providerSpecificDetails: details } }, resource) => {
        const diskIds = [...details.disksToRemove.map((disk) => disk.diskId), ...details.vmManagedDisksIds];
        return await changeDisks(front, call, resource, { kind: "RemoveDisks", diskIds });
      },
    }),
    updateAppliance: defineAction({
      body: updateApplianceBody,
      isLong: true,
      run: async (call, { properties }, resource) => await beginApplianceUpdate(front, call, properties, resource),
    }),
    resolveHealthErrors: defineAction({
      body: resolveBody,
      run: async (_call, body, resource) => {
        await resolveHealthErrors(
          front,
          resource,
          body.properties.healthErrors.map((each) => each.healthErrorId),
        );
        return await answerAtOnce(front, await front.services.resources.get(resource.id), "ResolveHealthErrors");
      },
    }),
    export: defineAction({
      body: exportBody,
      run: async (call, body, resource) => {
        const item = parseItem(resource.properties);
        requireExportable(item);
        const details = body.properties.providerSpecificDetails;
        const pointId = toPointId(details.recoveryPointId);
        const parameters = { ...exportWishOf(details), ...(pointId === undefined ? {} : { pointId }) };
        return await startJob(front, call, item, { kind: "ExportPoint", parameters, change: {} });
      },
    }),
    remove: defineAction({
      body: removeBody,
      run: async (call, body, resource) =>
        await disable(front, call, resource, { reason: body.properties?.disableProtectionReason ?? "NotSpecified", isPurge: false }),
    }),
  };
}

async function updateAgent(
  front: ReplicationFront,
  call: ItemCall,
  runAsAccountId: string | undefined,
  resource: Resource,
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireReplicating(item, "update the agent of");
  if (runAsAccountId !== undefined)
    requireAccount(await front.services.appliances.inventory(parseApplianceId(item.applianceId)), runAsAccountId);
  const parameters = { ...machineOf(item), ...(runAsAccountId === undefined ? {} : { runAsAccountId }) };
  return await startJob(front, call, item, { kind: "UpdateMobilityService", parameters, change: { busyWith: "UpdateMobilityService" } });
}

async function changeDisks(
  front: ReplicationFront,
  call: ItemCall,
  resource: Resource,
  change: Parameters<typeof changedExclusion>[0],
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  const { kind } = change;
  requireReplicating(item, kind === "AddDisks" ? "add disks to" : "remove disks from");
  const { machineName, excludedDiskIds: excludedBefore } = item;
  const machine = await front.services.appliances.machine(vaultOf(resource.id).key, parseMachineId(machineOf(item).machineId));
  const disks = machine?.report.facts.disks ?? item.facts?.disks ?? [];
  const diskIds = disks.map(({ diskId }) => diskId);
  const excludedDiskIds = changedExclusion(change, { machineName, diskIds, excludedDiskIds: excludedBefore }).map(parseDiskId);
  requireExcludable(excludedDiskIds, disks);
  const parameters = { ...machineOf(item), excludedDiskIds, excludedBefore };
  return await startJob(front, call, item, { kind, parameters, change: { busyWith: kind } });
}

/** Documented for other providers or for the way back. */
const refusedActions: Readonly<Record<string, ActionDefinition>> = {
  plannedFailover: refused("plan a failover of", {
    reason: "a migration loses nothing in any case",
    action: "call unplannedFailover: it makes a final point of the frozen source",
  }),
  reProtect: refused("reverse the replication of", {
    reason: "machines are moved one way",
    action: "before the commit, failoverCancel goes back",
  }),
  switchProvider: refused("switch the provider of", {
    reason: "InMageAzureV2 is the one provider here",
    action: "keep the provider",
  }),
};

function refused(doing: string, { reason, action }: { readonly reason: string; readonly action: string }): ActionDefinition {
  return defineAction({
    isRefused: true,
    body: z.unknown(),
    run: async (_call, _body, resource) => {
      const { machineName } = parseItem(resource.properties);
      return await Promise.reject(new Fault("OperationNotSupported", `could not ${doing} ${machineName}: ${reason}`, { action }));
    },
  });
}

export type ItemWish =
  | { readonly operation: "TestFailover"; readonly input: TestBody }
  | { readonly operation: "TestFailoverCleanup"; readonly comments: string }
  | { readonly operation: "UnplannedFailover"; readonly input: FailoverBody }
  | { readonly operation: "Commit" | "CancelFailover" };

/** For who runs operations of several items: the same checks and the same jobs as those of a call. */
export async function operateItem(front: ReplicationFront, call: ItemCall, resource: Resource, wish: ItemWish): Promise<ActionOutcome> {
  switch (wish.operation) {
    case "TestFailover":
      return await test(front, call, wish.input, resource);
    case "TestFailoverCleanup":
      return await cleanUp(front, call, wish.comments, resource);
    case "UnplannedFailover":
      return await migrate(front, call, wish.input, resource);
    case "Commit":
    case "CancelFailover":
      return await finish(front, call, resource, ends[wish.operation]);
  }
}

const ends = {
  Commit: { operation: "Commit", kind: "CommitFailover", state: "CommitFailoverInProgressOnRecovery" },
  CancelFailover: { operation: "CancelFailover", kind: "CancelFailover", state: "CancelFailoverInProgressOnRecovery" },
} as const;

async function test(front: ReplicationFront, call: ItemCall, body: TestBody, resource: Resource): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, "TestFailover", "test the migration of");
  refuseOtherWays(body);
  const details = body.providerSpecificDetails;
  const pointId = await wishedPoint(front, resource, item, details ?? {});
  const asInput = body.networkType === "VmNetworkAsInput";
  const networkId = details?.network ?? body.networkId ?? (asInput ? item.target.testNetworkId : undefined);
  if (asInput && (networkId === undefined || networkId === ""))
    throw new Fault("InputInvalid", `could not test the migration of ${item.machineName}: no network was named`, {
      action: "give networkId, set selectedTfoAzureNetworkId on the item, or call with networkType NoNetworkAttachAsInput",
    });
  const parameters = {
    ...(pointId === undefined ? {} : { pointId }),
    ...(networkId === undefined ? {} : { networkId }),
    ...(details?.probe === undefined ? {} : { probe: details.probe }),
    actions: actionsFor(front, item, details?.actions),
    ...launchOfCall(item, details ?? {}),
    ...upgradeWish(front, item, details?.osUpgradeVersion),
  };
  return await startJob(front, call, item, {
    kind: "TestFailover",
    unlockKeys: details?.unlockKeys,
    parameters,
    change: { testFailoverState: "TestMigrationInProgress" },
  });
}

async function rehearse(front: ReplicationFront, call: ItemCall, body: RehearseBody, resource: Resource): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, "TestFailover", "rehearse the migration of");
  const pointId = await wishedPoint(front, resource, item, body);
  const actions = actionsFor(front, item, body.actions);
  const parameters = {
    actions,
    isKept: body.isKept,
    ...launchOfCall(item, body, "properties"),
    ...(pointId === undefined ? {} : { pointId }),
  };
  const { unlockKeys } = body;
  return await startJob(front, call, item, { kind: rehearsalKind, unlockKeys, parameters, change: { busyWith: rehearsalKind } });
}

/** What a call says of the clone, checked against the machine's cards. */
function launchOfCall(item: Item, wish: JobLaunch, at = "properties.providerSpecificDetails"): JobLaunch {
  const cards = { known: (item.facts?.nics ?? []).map(({ name }) => name), left: cardsLeftOut(item.settings) };
  requireAddressing(wish.nicAddressing ?? [], cards, `${at}.nicAddressing`);
  return jobLaunchOf(wish);
}

async function cleanUp(front: ReplicationFront, call: ItemCall, comments: string, resource: Resource): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, "TestFailoverCleanup", "clean up the test of");
  const parameters = { landedName: item.test?.landedName ?? "", comments };
  const change = { testFailoverState: "TestMigrationCleanupInProgress" } as const;
  return await startJob(front, call, item, { kind: "TestFailoverCleanup", parameters, change });
}

async function migrate(
  front: ReplicationFront,
  call: ItemCall,
  body: FailoverBody,
  resource: Resource,
  promotes?: TestedMachine,
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  if (promotes === undefined) requireOperation(item, "UnplannedFailover", "migrate");
  refuseOtherWays(body);
  const { sourceSiteOperations, providerSpecificDetails: details } = body;
  // Without the site nothing more can be sent: the latest point is the latest processed one.
  const wish = sourceSiteOperations === "Required" ? details : { recoveryPointType: "LatestProcessed" as const, ...details };
  const pointId = await wishedPoint(front, resource, item, wish, sourceSiteOperations === "NotRequired");
  const networkId = details.network ?? item.target.networkId;
  if (networkId === undefined || networkId === "")
    throw new Fault("InputInvalid", `could not migrate ${item.machineName}: no network was named`, {
      action: "set the network on the item (PATCH selectedRecoveryAzureNetworkId) or give it with the call",
    });
  const parameters = {
    ...machineOf(item),
    networkId,
    landedName: defaultLandedName(item),
    sourceSiteOperations,
    ...(pointId === undefined ? {} : { pointId }),
    ...(details.probe === undefined ? {} : { probe: details.probe }),
    ...endOfCutOver(item, details, actionsFor(front, item, details.actions)),
    ...launchOfCall(item, details),
    ...upgradeWish(front, item, details.osUpgradeVersion),
    ...(promotes === undefined ? {} : { promotes }),
  };
  return await startJob(front, call, item, {
    kind: "UnplannedFailover",
    unlockKeys: details.unlockKeys,
    parameters,
    change: { protectionState: "UnplannedFailoverInitiated" },
  });
}

/** The test machine that stands, by what it landed with. Fault StateConflict where none does. */
async function testedOf({ services }: ReplicationFront, resource: Resource): Promise<TestedMachine> {
  const item = parseItem(resource.properties);
  requireOperation(item, "TestFailoverCleanup", "promote the test machine of");
  const landedName = item.test?.landedName ?? "";
  const tested = await findLanded(services.database.db, landedId(vaultOf(resource.id), landedName).text);
  if (tested === undefined)
    throw new Fault("StateConflict", `could not promote the test machine of ${item.machineName}: it is gone`, {
      evidence: { landedName },
      action: "clean the test up, then test again or migrate",
    });
  const { cpuCount, memoryBytes, firmware, nics } = tested.launch;
  return { landedName, cpuCount, memoryBytes, firmware, macs: nics.map(({ mac }) => mac) };
}

/** Fault InputInvalid for a commit after probes where nothing would be asked that must pass. */
function endOfCutOver(
  item: Item,
  { commit = { mode: "byHand" }, fence = "automatic", probe }: FailoverBody["providerSpecificDetails"],
  actions: readonly LaunchAction[],
): Pick<FailoverParameters, "commit" | "fence"> & { readonly actions: readonly LaunchAction[] } {
  if (commit.mode === "afterProbes" && probe === undefined && !actions.some(({ isRequired }) => isRequired))
    throw new Fault("InputInvalid", `could not migrate ${item.machineName} with a commit after probes: nothing is asked that must pass`, {
      action: "give a probe or an action that is required, or set postLaunchActions on the item",
    });
  return { commit, fence, actions };
}

/** Undefined for "Latest", which each operation makes in its own way unless it needs a point that is there. */
async function wishedPoint(
  { services }: ReplicationFront,
  resource: Resource,
  item: Item,
  wish: { readonly recoveryPointId?: string | undefined; readonly recoveryPointType?: RecoveryPointType | undefined },
  mustExist = false,
): Promise<PointId | undefined> {
  const itemId = resource.id.text;
  const pointId = toPointId(wish.recoveryPointId);
  if (pointId !== undefined) {
    await requirePointOf(services, { itemId, item, pointId });
    return pointId;
  }
  const type = wish.recoveryPointType ?? "Latest";
  return type === "Latest" && !mustExist ? undefined : await newestPoint(services, { itemId, item, type });
}

async function applyPoint(front: ReplicationFront, call: ItemCall, body: ApplyBody, resource: Resource): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, "ChangePit", "change the recovery point of");
  const { recoveryPointType, probe, unlockKeys } = body.providerSpecificDetails;
  if (body.recoveryPointId === undefined && recoveryPointType === undefined)
    throw new Fault("InputInvalid", `could not change the recovery point of ${item.machineName}: none was named`, {
      action: "give recoveryPointId, one of the item's recoveryPoints",
    });
  const pointId = await wishedPoint(front, resource, item, { recoveryPointId: body.recoveryPointId, recoveryPointType }, true);
  const landedName = item.failover?.landedName ?? defaultLandedName(item);
  return await startJob(front, call, item, {
    kind: "ApplyRecoveryPoint",
    unlockKeys,
    parameters: { landedName, pointId, ...(probe === undefined ? {} : { probe }) },
    change: { protectionState: "ChangeRecoveryPointInitiated" },
  });
}

async function finish(
  front: ReplicationFront,
  call: ItemCall,
  resource: Resource,
  end: { readonly operation: ItemOperation; readonly kind: string; readonly state: ProtectionState },
): Promise<ActionOutcome> {
  const item = parseItem(resource.properties);
  requireOperation(item, end.operation, end.operation === "Commit" ? "commit the migration of" : "cancel the migration of");
  const parameters = { ...machineOf(item), landedName: item.failover?.landedName ?? defaultLandedName(item) };
  return await startJob(front, call, item, { kind: end.kind, parameters, change: { protectionState: end.state } });
}

/** Ends the replication: by `remove`, or by DELETE, which also works without the appliance and leaves behind what is on site. */
export async function disable(
  front: ReplicationFront,
  call: ItemCall,
  resource: Resource,
  how: { readonly reason: string; readonly isPurge: boolean },
): Promise<Accepted> {
  const item = parseItem(resource.properties);
  requireOperation(item, how.reason === "MigrationComplete" ? "CompleteMigration" : "DisableProtection", "stop the replication of");
  const { applianceId, machineId } = item;
  const parameters = { applianceId, ...how, ...(machineId === undefined ? {} : { machineId }) };
  return await startJob(front, call, item, {
    kind: "DisableProtection",
    parameters,
    change: { protectionState: "DisablingProtection" },
  });
}
