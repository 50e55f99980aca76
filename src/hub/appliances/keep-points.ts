// Takes reported points into the catalogue, and tells as an event of the machine that its applications could not be brought to rest.

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
  for (const report of reports) await tellApplicationFault(stores, vault, report);
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
  const fabricId = /^.*?\/replicationFabrics\/[^/]+/i.exec(item.id)?.[0];
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
