// Finds what sealed points rely on: every entry that a reader of them may need, bases of patches included.

import { Fault } from "../contract/errors.ts";
import type { AreaId } from "../contract/ids.ts";
import { idFromHex, isZeroId, toHex } from "../disk/digest.ts";
import { blockCountOf, idsPerPage } from "../disk/geometry.ts";
import { idAt, pageLevelsOf } from "../disk/page-tree.ts";
import type { Entries, FoundEntry } from "./entries.ts";
import type { EntryReader } from "./entry-reader.ts";
import { EntrySet } from "./entry-set.ts";
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

/** What lives. */
export interface LiveEntries {
  readonly set: EntrySet;
  /** Sealed bytes by pack number. */
  readonly bytesOf: ReadonlyMap<number, number>;
}

/**
 * The entries that live. Of equal entries one is chosen. Throws DataDamaged when a point refers to what is not there or cannot
 * be read: then nothing may be removed, because what lies behind it is unknown.
 */
export async function markLive(options: MarkOptions): Promise<LiveEntries> {
  const marking = new Marking(options);
  for (const [index, stored] of options.points.entries()) {
    for (const { root, sizeBytes } of stored.point.disks) {
      const id = idFromHex(root);
      if (!isZeroId(id)) await marking.markTree(stored, { id, level: pageLevelsOf(blockCountOf(sizeBytes)) });
    }
    options.onPoint(index + 1);
  }
  return { set: marking.live, bytesOf: marking.liveBytesOf };
}

interface TreePlace {
  readonly id: Uint8Array;
  /** 1: its ids are blocks. */
  readonly level: number;
}

class Marking {
  readonly live = new EntrySet();
  readonly liveBytesOf = new Map<number, number>();
  /** Pages whose children are marked; a page that only bears a patch is live and not among them. */
  readonly #visited = new EntrySet();
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
      for (const [index, page] of pages.entries()) {
        await this.#markChildren(stored, { page, level: batch[index]?.level ?? 1 }, open);
        // Finds may all be answered from memory, and others want to run.
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }

  async #markChildren(
    stored: StoredPoint,
    { page, level }: { readonly page: Uint8Array; readonly level: number },
    open: TreePlace[],
  ): Promise<void> {
    const ids = Array.from({ length: idsPerPage }, (_, slot) => idAt(page, slot)).filter((id) => !isZeroId(id));
    await this.#options.entries.prefetch(level === 1 ? "block" : "page", ids);
    for (const id of ids)
      if (level === 1) this.#mark(stored, "block", id);
      else this.#enter(stored, { id, level: level - 1 }, open);
  }

  #enter(stored: StoredPoint, place: TreePlace, open: TreePlace[]): void {
    const entry = this.#mark(stored, "page", place.id);
    if (this.#visited.add(entry)) open.push({ ...place, id: Uint8Array.from(place.id) });
  }

  #mark(stored: StoredPoint, kind: EntryKind, id: Uint8Array): FoundEntry {
    const { entries, areaId } = this.#options;
    const isHere = (pack: Pack): boolean => pack.areaId === areaId && pack.state === "stored";
    const isThere = (pack: Pack): boolean => isHere(pack) || (pack.state === "stored" && stored.areaIds.includes(pack.areaId));
    const here = entries.findWhole(kind, id, isHere);
    const entry = here ?? entries.findWhole(kind, id, isThere);
    if (entry === undefined)
      throw new Fault("DataDamaged", `could not tell what a recovery point relies on: a ${kind} of it is missing`, {
        evidence: { pointId: stored.point.pointId, machineId: stored.point.machineId, kind, id: toHex(id) },
        causes: ["a pack was removed or damaged in the store"],
        action: "verify the recovery points of the vault; remove those that are damaged",
      });
    entries.visitWhole(entry, here === undefined ? isThere : isHere, (each) => {
      if (this.live.add(each)) this.liveBytesOf.set(each.packNumber, (this.liveBytesOf.get(each.packNumber) ?? 0) + each.length);
    });
    return entry;
  }
}
