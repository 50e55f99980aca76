// Points whose objects are lost, found again in the packs that were sealed with them.

import { Fault } from "../contract/errors.ts";
import { parseAreaId, parsePackId, type AreaId } from "../contract/ids.ts";
import type { Store } from "../store/store.ts";
import type { Entries } from "./entries.ts";
import type { EntryReader } from "./entry-reader.ts";
import { markLive } from "./mark-live.ts";
import { openStoredPack } from "./pack.ts";
import type { PointCatalogue } from "./point-catalogue.ts";
import { parsePointText, type StoredPoint } from "./point-format.ts";
import type { VaultSecret } from "./sealing.ts";

export interface LostPartsOptions {
  readonly store: Store;
  readonly secret: VaultSecret;
  readonly entries: Entries;
  readonly catalogue: PointCatalogue;
  readonly readerOf: (areaIds: readonly AreaId[]) => EntryReader;
}

export interface LostPoint {
  readonly stored: Omit<StoredPoint, "generation">;
  /** Every page can be read and every block has its place; whether the blocks are undamaged, a verification tells. */
  readonly isWhole: boolean;
}

/**
 * Looks into every pack of the vault. Gives points that were removed on purpose too, while their packs are there, and points that never
 * came to be sealed: the operator chooses. Points that added nothing to the vault left no trace in a pack and are not found.
 */
export async function* findLostPoints(options: LostPartsOptions): AsyncGenerator<LostPoint, void, undefined> {
  const { store, secret, catalogue } = options;
  const seen = new Set<string>();
  for await (const { key, sizeBytes } of store.list("packs/")) {
    const [, areaText = "", packText = ""] = key.split("/");
    const found = { key, sizeBytes, areaId: parseAreaId(areaText), packId: parsePackId(packText) };
    const opened = await openStoredPack({ store, secret }, found).catch(passDamage);
    for (const text of opened?.index.pointsText.split("\n") ?? []) {
      const stored = parsePointText(text);
      if (stored === undefined || seen.has(stored.point.pointId)) continue;
      seen.add(stored.point.pointId);
      if ((await catalogue.get(stored.point.machineId, stored.point.pointId)) !== undefined) continue;
      yield { stored, isWhole: await isWhole(options, stored) };
    }
  }
}

async function isWhole({ entries, readerOf }: LostPartsOptions, stored: Omit<StoredPoint, "generation">): Promise<boolean> {
  const [areaId] = stored.areaIds;
  if (areaId === undefined) return false;
  try {
    await entries.refresh(stored.areaIds);
    await markLive({ entries, areaId, readerOf, points: [{ ...stored, generation: 1 }], onPoint: () => undefined });
    return true;
  } catch (error) {
    passDamage(error);
    return false;
  }
}

/** A damaged pack is one that tells nothing. */
function passDamage(error: unknown): undefined {
  if (!(error instanceof Fault) || error.code !== "DataDamaged") throw error;
  return undefined;
}
