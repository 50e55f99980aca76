// The recovery points of several machines that show one moment, for a plan that asks for them (useMultiVmSyncPoint).

import { Fault } from "../../contract/errors.ts";
import { parseMachineId, type PointId } from "../../contract/ids.ts";
import { openPointCatalogue } from "../db/points.ts";
import type { Queryable } from "../jobs/job.ts";
import { consistenciesOf, type RecoveryPointType } from "./choose-point.ts";
import type { PlanItem } from "./plan.ts";

/** Throws InputInvalid for a type that has no point yet. */
export function requireMultiVmType(type: RecoveryPointType | undefined): void {
  if (type !== "Latest") return;
  throw new Fault("InputInvalid", "could not use one moment of several machines: Latest makes each machine's point anew", {
    evidence: { recoveryPointType: type, useMultiVmSyncPoint: "Enable" },
    action: "choose LatestProcessed or LatestApplicationConsistent, or set useMultiVmSyncPoint to Disable",
  });
}

/** By item id. Machines of no group are left out: they have a moment of their own. Fault ReplicationNotReady names a group without such a point. */
export async function chooseGroupPoints(
  db: Queryable,
  wish: { readonly vaultKey: string; readonly items: readonly PlanItem[]; readonly type: RecoveryPointType },
): Promise<ReadonlyMap<string, PointId>> {
  const { vaultKey, items, type } = wish;
  const chosen = new Map<string, PointId>();
  const groups = Map.groupBy(
    items.filter(({ item }) => item.group !== undefined),
    ({ item }) => item.group?.groupId,
  );
  for (const members of groups.values()) {
    const machineIds = members.flatMap(({ item }) => (item.machineId === undefined ? [] : [parseMachineId(item.machineId)]));
    const points = await openPointCatalogue({ db }).newestTogether(vaultKey, machineIds, consistenciesOf[type]);
    for (const { id, item } of members) {
      const pointId = item.machineId === undefined ? undefined : points?.get(parseMachineId(item.machineId));
      if (pointId === undefined) throw noCommonPoint(members, type);
      chosen.set(id, pointId);
    }
  }
  return chosen;
}

function noCommonPoint(members: readonly PlanItem[], type: RecoveryPointType): Fault {
  const group = members[0]?.item.group?.name ?? "";
  return new Fault(
    "ReplicationNotReady",
    `could not choose one moment for the group ${group}: its machines have no such recovery point together`,
    {
      evidence: { group, recoveryPointType: type, machines: members.map(({ item }) => item.machineName) },
      action: "wait for the group's next point, see the events of its machines, or set useMultiVmSyncPoint to Disable",
    },
  );
}
