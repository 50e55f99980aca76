// Which recovery point a call means: one by its id, or the newest of a documented type; and its proof in the vault.

import { Fault } from "../../contract/errors.ts";
import { parseMachineId, parsePointId, type PointId } from "../../contract/ids.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import type { RecoveryPoint } from "../../vault/vault.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { HubServices } from "../services.ts";
import type { Item } from "./item.ts";
import { openPoint } from "./launch-steps.ts";
import { vaultOf } from "./names.ts";
import type { Replication } from "./world.ts";

/** InMageV2RpRecoveryPointType. "Latest" processes what is pending first: for a migration that is the final synchronisation. */
export const recoveryPointTypes = ["Latest", "LatestProcessed", "LatestApplicationConsistent", "LatestCrashConsistent"] as const;
export type RecoveryPointType = (typeof recoveryPointTypes)[number];

/** Undefined: points of any. */
export const consistenciesOf: Readonly<Record<RecoveryPointType, readonly ("crash" | "application" | "final")[] | undefined>> = {
  Latest: undefined,
  LatestProcessed: undefined,
  LatestApplicationConsistent: ["application"],
  LatestCrashConsistent: ["crash", "final"],
};

/** A recovery point's id as ARM gives it, or its last segment alone; undefined for none. */
export function toPointId(text: string | undefined): PointId | undefined {
  const name = text?.split("/").at(-1)?.toLowerCase();
  if (name === undefined || name === "") return undefined;
  const parsed = pointIdShape.safeParse(name);
  if (parsed.success) return parsed.data;
  throw new Fault("InputInvalid", "could not read the recovery point's id", { evidence: { recoveryPointId: name.slice(0, 100) } });
}

/** The newest point of a type. Fault ReplicationNotReady when the machine has none. */
export async function newestPoint(
  services: Pick<HubServices, "points">,
  { itemId, item, type }: { readonly itemId: string; readonly item: Item; readonly type: RecoveryPointType },
): Promise<PointId> {
  const vault = vaultOf(parseResourceId(itemId));
  const consistencies = consistenciesOf[type];
  const [newest] =
    item.machineId === undefined
      ? []
      : await services.points.list(vault.key, item.machineId, { countMax: 1, ...(consistencies === undefined ? {} : { consistencies }) });
  if (newest !== undefined) return newest.pointId;
  throw new Fault("ReplicationNotReady", `could not choose a recovery point of ${item.machineName}: it has none of the type ${type}`, {
    evidence: { recoveryPointType: type },
    ...(type === "LatestApplicationConsistent"
      ? { action: "choose LatestProcessed, or give the policy an application-consistent frequency and wait for a point" }
      : {}),
  });
}

/** Throws InputInvalid when the catalogue has no such point of this machine. */
export async function requirePointOf(
  services: Pick<HubServices, "points">,
  { itemId, item, pointId }: { readonly itemId: string; readonly item: Item; readonly pointId: PointId },
): Promise<void> {
  const found = await services.points.find(vaultOf(parseResourceId(itemId)).key, pointId);
  if (found !== undefined && found.machineId === item.machineId) return;
  throw new Fault("InputInvalid", `could not use the recovery point ${pointId}: ${item.machineName} has none of that id`, {
    evidence: { recoveryPointId: pointId },
    action: `list the recovery points of the item and choose one of them`,
  });
}

/** The point as the vault has it, proved to be this machine's. */
export async function openPointOf(
  world: Replication,
  { itemId, item, pointId }: { readonly itemId: string; readonly item: Item; readonly pointId: string },
): Promise<RecoveryPoint> {
  const point = await openPoint(world, vaultOf(parseResourceId(itemId)).text, parsePointId(pointId));
  if (point.machineId === parseMachineId(item.machineId ?? "")) return point;
  throw new Fault("InputInvalid", `could not use the recovery point ${pointId}: it is another machine's, not ${item.machineName}'s`, {
    evidence: { recoveryPointId: pointId },
  });
}
