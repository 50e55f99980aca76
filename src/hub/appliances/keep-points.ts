// Takes reported points into the catalogue, and tells as an event of the machine that its applications could not be brought to rest.

import { createHash } from "node:crypto";
import type { SealedPointReport } from "../../contract/appliance-protocol.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { EventStore } from "../db/events.ts";
import type { ItemLookup } from "../db/item-lookup.ts";
import type { PointCatalogue } from "../db/points.ts";

interface Stores {
  readonly points: Pick<PointCatalogue, "add">;
  readonly events: Pick<EventStore, "record">;
  readonly itemOf: ItemLookup;
}

/** The same points again change nothing. */
export async function keepPoints(stores: Stores, vault: ResourceId, reports: readonly SealedPointReport[]): Promise<void> {
  await stores.points.add(vault.text, reports);
  for (const report of reports) {
    await tellApplicationFault(stores, vault, report);
    await tellGroupFault(stores, vault, report);
  }
}

/** Once for each point, however often it is reported. A machine that no item names any more has nobody to tell. */
async function tellApplicationFault(
  { events, itemOf }: Stores,
  vault: ResourceId,
  { pointId, machineId, application }: SealedPointReport,
): Promise<void> {
  if (application?.fault === undefined) return;
  const item = await itemOf(vault.key, machineId);
  if (item === undefined) return;
  const fabricId = fabricOf(item.id);
  const kept = application.isConsistent ? "the point is application-consistent all the same" : "the point is crash-consistent";
  await events.record({
    vaultKey: vault.key,
    dedupKey: `application:${pointId}`,
    code: application.isConsistent ? "ApplicationRestNotEnded" : "ApplicationConsistentPointMissed",
    kind: "VmHealth",
    severity: "Warning",
    description: `${item.machineName}: ${application.fault.message}; ${kept}`,
    affected: { id: item.id, name: item.machineName },
    ...(fabricId === undefined ? {} : { fabricId }),
    component: "Agent",
    fault: application.fault,
  });
}

/** Once an hour for each reason: a group with a machine that is off would tell it with every point. */
async function tellGroupFault(
  { events, itemOf }: Stores,
  vault: ResourceId,
  { machineId, groupFault, timeMs }: SealedPointReport,
): Promise<void> {
  if (groupFault === undefined) return;
  const item = await itemOf(vault.key, machineId);
  if (item === undefined) return;
  const fabricId = fabricOf(item.id);
  await events.record({
    vaultKey: vault.key,
    dedupKey: `group:${machineId}:${Math.floor(timeMs / 3_600_000)}:${createHash("sha256").update(groupFault.message).digest("hex").slice(0, 16)}`,
    code: "MultiVmPointMissed",
    kind: "VmHealth",
    severity: "Warning",
    description: `${item.machineName}: ${groupFault.message}; the point is this machine's alone`,
    affected: { id: item.id, name: item.machineName },
    ...(fabricId === undefined ? {} : { fabricId }),
    component: "Appliance",
    fault: groupFault,
  });
}

function fabricOf(itemId: string): string | undefined {
  return /^.*?\/replicationFabrics\/[^/]+/i.exec(itemId)?.[0];
}
