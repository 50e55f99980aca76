// The health of a protected item as the documented health errors, and their dismissal.

import { createHash } from "node:crypto";
import { fromTimestamp } from "../../base/clock.ts";
import { Fault, type FaultReport } from "../../contract/errors.ts";
import { lockKey } from "../db/locks.ts";
import type { MachineState } from "../db/appliances.ts";
import { openHealthErrors } from "../db/health-errors.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import { parseItem, patchItem, readItem, type Item } from "./item.ts";
import { vaultOf } from "./names.ts";
import type { ReplicationFront } from "./world.ts";

/** An agent or appliance that has not been heard of for this long is critical (documented: 15 minutes). */
const silentMs = 15 * 60_000;

export interface ItemHealth {
  readonly level: "None" | "Normal" | "Warning" | "Critical";
  readonly failoverLevel: "None" | "Normal" | "Warning" | "Critical";
  readonly errors: readonly JsonObject[];
}

export function healthOf(seen: {
  readonly item: Item;
  readonly machine: MachineState | undefined;
  readonly nowMs: number;
  readonly resource: Resource;
}): ItemHealth {
  const { item, machine, resource } = seen;
  const agentFault = machine?.report.state.fault;
  const at = item.scenario?.startTime ?? resource.updatedAt;
  return {
    level: levelOf(seen),
    failoverLevel: item.faults.length > 0 ? "Warning" : "Normal",
    errors: [
      ...item.faults.map((fault) => toHealthError(resource, fault, { at, category: categoryOf(item), customerResolvability: "Allowed" })),
      ...(agentFault === undefined
        ? []
        : [
            toHealthError(resource, agentFault, {
              at: machine?.lastSeenAt ?? resource.updatedAt,
              category: "Replication",
              customerResolvability: "NotAllowed",
            }),
          ]),
    ],
  };
}

function levelOf({ item, machine, nowMs }: Parameters<typeof healthOf>[0]): ItemHealth["level"] {
  const agentFault = machine?.report.state.fault;
  switch (item.protectionState) {
    case "EnablingProtection":
    case "InitialReplicationInProgress":
    case "Protected": {
      const isSilent = machine !== undefined && nowMs - fromTimestamp(machine.lastSeenAt) > silentMs;
      if (isSilent || agentFault !== undefined) return "Critical";
      return item.faults.length > 0 ? "Warning" : item.protectionState === "Protected" ? "Normal" : "None";
    }
    case "EnablingFailed":
    case "DisablingFailed":
    case "UnplannedFailoverFailed":
    case "CancelFailoverFailedOnRecovery":
    case "CommitFailoverFailedOnRecovery":
    case "ChangeRecoveryPointFailed":
      return "Critical";
    case "UnplannedFailoverInitiated":
    case "UnplannedFailoverCommitPending":
    case "ChangeRecoveryPointInitiated":
    case "CancelFailoverInProgressOnRecovery":
    case "CommitFailoverInProgressOnRecovery":
    case "CommitFailoverCompleted":
    case "DisablingProtection":
      return "None";
  }
}

/** The documented category of what the last job left. */
function categoryOf({ scenario }: Item): string {
  const kind = scenario?.scenarioName ?? "";
  if (kind.startsWith("TestFailover")) return "TestFailover";
  return kind === "EnableProtection" || kind === "DisableProtection" ? "Configuration" : "Replication";
}

/** The documented health error, from a Fault. */
function toHealthError(
  resource: Resource,
  fault: FaultReport,
  where: { readonly at: string; readonly category: string; readonly customerResolvability: "Allowed" | "NotAllowed" },
): JsonObject {
  return {
    errorSource: "Watari",
    errorType: "ReplicationError",
    errorLevel: "Error",
    errorCategory: where.category,
    errorCode: fault.id,
    errorId: errorIdOf(resource, fault),
    summaryMessage: fault.message,
    errorMessage: fault.message,
    possibleCauses: fault.causes.join("; "),
    recommendedAction: fault.action,
    creationTimeUtc: where.at,
    recoveryProviderErrorMessage: "",
    entityId: resource.id.text,
    customerResolvability: where.customerResolvability,
    innerHealthErrors: [],
  };
}

/** The same for the same fault of the same item, however often it is asked for. */
function errorIdOf(resource: Resource, fault: FaultReport): string {
  const hex = createHash("sha256").update(`${resource.id.key}\n${fault.id}\n${fault.message}`).digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** Dismisses what jobs left on the item. What the agent reports now stays until it is repaired. */
export async function resolveHealthErrors(front: ReplicationFront, resource: Resource, errorIds: readonly string[]): Promise<void> {
  const { database, appliances } = front.services;
  const { machineId, machineName } = parseItem(resource.properties);
  const machine = machineId === undefined ? undefined : await appliances.machine(vaultOf(resource.id).key, machineId);
  const live = machine?.report.state.fault;
  const raised = await openHealthErrors(database.db, resource.id.key);
  const lasting = [
    ...(live === undefined ? [] : [{ id: errorIdOf(resource, live), code: live.id, action: live.action }]),
    ...raised.map((row) => ({ id: row.errorId, code: row.code, action: "repair what it tells; the hub clears it by itself" })),
  ];
  await database.db.transaction().execute(async (db) => {
    await lockKey(db, `item:${resource.id.key}`);
    const { faults } = await readItem(db, resource.id);
    const known = new Set(faults.map((fault) => errorIdOf(resource, fault)));
    const isUnknown = (id: string): boolean => !known.has(id);
    const unknown = errorIds.filter(isUnknown);
    const there = lasting.find(({ id }) => unknown.includes(id));
    if (there !== undefined)
      throw new Fault("StateConflict", `could not dismiss the health error ${there.code} of ${machineName}: it is there still`, {
        evidence: { healthErrorId: there.id },
        action: there.action,
        retry: "later",
      });
    if (unknown.length > 0)
      throw new Fault("InputInvalid", `could not dismiss health errors of ${machineName}: it has none of these ids`, {
        evidence: { healthErrorIds: unknown, present: [...known] },
        action: "read the item's healthErrors and give their errorId",
      });
    await patchItem(db, resource.id, { faults: faults.filter((fault) => !errorIds.includes(errorIdOf(resource, fault))) });
  });
}
