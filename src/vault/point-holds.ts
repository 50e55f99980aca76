// Holds on points, and their removal: whoever comes second of a holder and a remover gives way. Keys: docs/design/vault-format.md, Holds.

import { assert } from "../base/assert.ts";
import type { MachineId, PointId } from "../contract/ids.ts";
import type { Store, StoreKey } from "../store/store.ts";
import { pointKeyOf } from "./point-format.ts";

const holdPattern = /^[a-z0-9][a-z0-9-]{0,63}$/;
/** Every hold and every mark of a removal has this content: magic, version 2, zeros. */
const content = Buffer.concat([Buffer.from("WTRMARK\0", "latin1"), Buffer.of(0, 2, 0, 0, 0, 0, 0, 0)]);

const holdPrefixOf = (machineId: MachineId, pointId: PointId): string => `holds/${machineId}/${pointId}/`;
const removalKeyOf = (machineId: MachineId, pointId: PointId): StoreKey => `removals/${machineId}/${pointId}`;

export interface PlacedPoint {
  readonly store: Store;
  readonly machineId: MachineId;
  readonly pointId: PointId;
}

/** The hold is written before the removal's mark is looked for; the remover does it the other way round, so one of them sees the other. */
export async function placeHold({ store, machineId, pointId }: PlacedPoint, holdId: string): Promise<boolean> {
  assert(holdPattern.test(holdId), "a hold id has the form of a key's segment");
  const key = holdPrefixOf(machineId, pointId) + holdId;
  // A hold of before stays, whatever a remover that was killed has left: the next removal sees it and takes its mark back.
  if ((await store.head(key)) !== undefined) return (await store.head(pointKeyOf(machineId, pointId))) !== undefined;
  await store.put(key, content);
  const isGoing = (await store.head(removalKeyOf(machineId, pointId))) !== undefined;
  if (!isGoing && (await store.head(pointKeyOf(machineId, pointId))) !== undefined) return true;
  await store.remove(key);
  return false;
}

export async function releaseHold({ store, machineId, pointId }: PlacedPoint, holdId: string): Promise<void> {
  assert(holdPattern.test(holdId), "a hold id has the form of a key's segment");
  await store.remove(holdPrefixOf(machineId, pointId) + holdId);
}

/** May be called again after a crash at any place. */
export async function removeUnheld({ store, machineId, pointId }: PlacedPoint): Promise<"removed" | "held"> {
  const mark = removalKeyOf(machineId, pointId);
  await store.put(mark, content);
  for await (const _hold of store.list(holdPrefixOf(machineId, pointId))) {
    await store.remove(mark);
    return "held";
  }
  await store.remove(pointKeyOf(machineId, pointId));
  await store.remove(mark);
  return "removed";
}
