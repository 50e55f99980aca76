// Finds what sealed points rely on: every entry that a reader of them may need, bases of patches included.

import { Fault } from "../contract/errors.ts";
import type { AreaId } from "../contract/ids.ts";
import { idFromHex, isZeroId, toHex } from "../disk/digest.ts";
import { blockCountOf, idsPerPage } from "../disk/geometry.ts";
import { idAt, pageLevelsOf } from "../disk/page-tree.ts";
import type { Entries } from "./entries.ts";
import type { EntryReader } from "./entry-reader.ts";
import { NumberSet } from "./number-set.ts";
import type { Pack } from "./pack.ts";
import type { EntryKind } from "./patch.ts";
import type { StoredPoint } from "./point-format.ts";

/** Pages that are read together: 256 KiB. */
const batchPages = 64;

export interface MarkOptions {
  readonly entries: Entries;
  /** Entries of this area are chosen before equal ones of others. */
  readonly areaId: AreaId;
  readonly readerOf: (areaIds: readonly AreaId[]) => EntryReader;
  readonly points: readonly StoredPoint[];
  readonly onPoint: (doneCount: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Numbers of the entries that live. Of equal entries one is chosen. Throws DataDamaged when a point refers to what is not there or cannot
 * be read: then nothing may be removed, because what lies behind it is unknown.
 */
export async function markLive(options: MarkOptions): Promise<NumberSet> {
  const marking = new Marking(options);
  for (const [index, stored] of options.points.entries()) {
    for (const { root, sizeBytes } of stored.point.disks) {
      const id = idFromHex(root);
      if (!isZeroId(id)) await marking.markTree(stored, { id, level: pageLevelsOf(blockCountOf(sizeBytes)) });
    }
    options.onPoint(index + 1);
  }
  return marking.live;
}

interface TreePlace {
  readonly id: Uint8Array;
  /** 1: its ids are blocks. */
  readonly level: number;
}

class Marking {
  readonly live = new NumberSet();
  /** Pages whose children are marked; a page that only bears a patch is live and not among them. */
  readonly #visited = new NumberSet();
  readonly #options: MarkOptions;

  constructor(options: MarkOptions) {
    this.#options = options;
  }

  async markTree(stored: StoredPoint, root: TreePlace): Promise<void> {
    const reader = this.#options.readerOf(stored.areaIds);
    await this.#options.entries.prepare(stored.areaIds);
    const open: TreePlace[] = [];
    this.#enter(stored, root, open);
    while (open.length > 0) {
      this.#options.signal?.throwIfAborted();
      const batch = open.splice(-batchPages);
      const pages = await reader.loadMany(
        "page",
        batch.map(({ id }) => id),
        "forget",
      );
      for (const [index, page] of pages.entries()) this.#markChildren(stored, { page, level: batch[index]?.level ?? 1 }, open);
    }
  }

  #markChildren(stored: StoredPoint, { page, level }: { readonly page: Uint8Array; readonly level: number }, open: TreePlace[]): void {
    for (let slot = 0; slot < idsPerPage; slot++) {
      const id = idAt(page, slot);
      if (isZeroId(id)) continue;
      if (level === 1) this.#mark(stored, "block", id);
      else this.#enter(stored, { id, level: level - 1 }, open);
    }
  }

  #enter(stored: StoredPoint, place: TreePlace, open: TreePlace[]): void {
    const number = this.#mark(stored, "page", place.id);
    if (this.#visited.add(number)) open.push({ ...place, id: Uint8Array.from(place.id) });
  }

  #mark(stored: StoredPoint, kind: EntryKind, id: Uint8Array): number {
    const { entries, areaId } = this.#options;
    const isHere = (pack: Pack): boolean => pack.areaId === areaId && pack.state === "stored";
    const isThere = (pack: Pack): boolean => isHere(pack) || (pack.state === "stored" && stored.areaIds.includes(pack.areaId));
    const here = entries.findWhole(kind, id, isHere);
    const number = here ?? entries.findWhole(kind, id, isThere);
    if (number === undefined)
      throw new Fault("DataDamaged", `could not tell what a recovery point relies on: a ${kind} of it is missing`, {
        evidence: { pointId: stored.point.pointId, machineId: stored.point.machineId, kind, id: toHex(id) },
        causes: ["a pack was removed or damaged in the store"],
        action: "verify the recovery points of the vault; remove those that are damaged",
      });
    entries.visitWhole(number, here === undefined ? isThere : isHere, (each) => this.live.add(each));
    return number;
  }
}
