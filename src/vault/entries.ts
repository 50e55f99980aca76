// Every stored entry that this process knows, over all areas that it has looked into: one index, and the packs behind it.

import { assert } from "../base/assert.ts";
import { forEachParallel } from "../base/semaphore.ts";
import { parsePackId, type AreaId } from "../contract/ids.ts";
import type { Store } from "../store/store.ts";
import { EntryIndex, type EntryPlace } from "./entry-index.ts";
import { openStoredPack, packPrefixOf, type FoundPack, type Pack } from "./pack.ts";
import type { PackRow } from "./pack-format.ts";
import type { EntryKind } from "./patch.ts";
import type { VaultSecret } from "./sealing.ts";

const indexLoadsMax = 8;
/** An index with more entries of gone packs than this, and than a quarter of all, is built anew. */
const deadEntriesMin = 65_536;

const noDepth = Number.POSITIVE_INFINITY;

export interface EntriesOptions {
  readonly store: Store;
  readonly secret: VaultSecret;
  readonly entriesMax?: number;
}

export class Entries {
  readonly #options: EntriesOptions;
  #index: EntryIndex;
  readonly #packs: Pack[] = [];
  readonly #knownKeys = new Set<string>();
  readonly #prepared = new Set<AreaId>();
  readonly #refreshing = new Map<AreaId, Promise<void>>();

  constructor(options: EntriesOptions) {
    this.#options = options;
    this.#index = this.#newIndex();
  }

  /** Changes when the index is built anew; numbers of entries are of one index. */
  get index(): EntryIndex {
    return this.#index;
  }

  /** By number; also those that are gone. */
  get packs(): readonly Pack[] {
    return this.#packs;
  }

  /** Knows what the store has of these areas from before; the only writer of an area needs it once. */
  async prepare(areaIds: readonly AreaId[]): Promise<void> {
    await this.refresh(areaIds.filter((areaId) => !this.#prepared.has(areaId)));
  }

  /** Takes in the packs that the store has and this process does not know, and lets go of those it has no more. */
  async refresh(areaIds: readonly AreaId[]): Promise<void> {
    for (const areaId of areaIds) {
      const refreshing = this.#refreshing.get(areaId) ?? this.#refresh(areaId).finally(() => this.#refreshing.delete(areaId));
      this.#refreshing.set(areaId, refreshing);
      await refreshing;
    }
  }

  async #refresh(areaId: AreaId): Promise<void> {
    const prefix = packPrefixOf(areaId);
    const vanished = new Set(this.#packs.filter((pack) => pack.areaId === areaId && pack.writer === undefined && pack.state === "stored"));
    const listed = new Set<string>();
    const found: FoundPack[] = [];
    for await (const { key, sizeBytes } of this.#options.store.list(prefix)) {
      listed.add(key);
      if (!this.#knownKeys.has(key)) found.push({ packId: parsePackId(key.slice(prefix.length)), areaId, key, sizeBytes });
    }
    for (const pack of vanished) if (!listed.has(pack.key) && pack.state === "stored") this.dropPack(pack);
    await forEachParallel(found, indexLoadsMax, async (each) => {
      const opened = await openStoredPack(this.#options, each);
      if (opened === undefined || this.#knownKeys.has(each.key)) return;
      const packNumber = this.addPack(opened.pack);
      for (const row of opened.index.rows) this.addEntry(row, packNumber);
    });
    this.#prepared.add(areaId);
  }

  /** Registers a pack; its number goes into places. */
  addPack(pack: Pack): number {
    this.#knownKeys.add(pack.key);
    return this.#packs.push(pack) - 1;
  }

  addEntry(row: PackRow, packNumber: number): void {
    this.#index.add(row.id, { ...row, packNumber }, row.baseId);
  }

  /** Forgets a pack that was given up or is gone; should the store hold it all the same, a refresh finds it. */
  dropPack(pack: Pack): void {
    pack.state = "dropped";
    this.#prepared.delete(pack.areaId); // The upload may have come through although its answer did not.
    this.#knownKeys.delete(pack.key);
  }

  /** Forgets a pack that this process has removed from the store. */
  dropRemoved(pack: Pack): void {
    pack.state = "dropped";
    this.#knownKeys.delete(pack.key);
  }

  /**
   * Where an entry can be read, durable places first. Only whole entries: of an equal one that no point needs any more, what it stands on
   * may be gone. For what an entry stands on, `depthBelow` is that entry's depth.
   */
  find(kind: EntryKind, id: Uint8Array, depthBelow = noDepth): EntryPlace | undefined {
    const number =
      this.findWhole(kind, id, ({ state }) => state === "stored", depthBelow) ??
      this.findWhole(kind, id, ({ state }) => state !== "dropped", depthBelow);
    return number === undefined ? undefined : this.#index.placeOf(number);
  }

  /**
   * Number of an entry whose pack, and whose bases' packs, `accept` takes; undefined when there is none. A base has less depth than what
   * stands on it, so that equal entries never make a circle or a long chain. Bases of version 1 are unknown and not asked for.
   */
  findWhole(kind: EntryKind, id: Uint8Array, accept: (pack: Pack) => boolean, depthBelow = noDepth): number | undefined {
    return this.#index.find(kind, id, (number) => {
      const depth = this.#index.depthOf(number);
      if (depth >= depthBelow || !accept(this.packOfNumber(number))) return false;
      const baseId = this.#index.baseIdOf(number);
      return baseId === undefined || this.findWhole(kind, baseId, accept, depth) !== undefined;
    });
  }

  /** Calls `visit` for an entry and for those that it stands on, as findWhole finds them. */
  visitWhole(number: number, accept: (pack: Pack) => boolean, visit: (number: number) => void): void {
    for (let next: number | undefined = number; next !== undefined;) {
      visit(next);
      const baseId = this.#index.baseIdOf(next);
      const { kind, depth } = this.#index.placeOf(next);
      next = baseId === undefined ? undefined : this.findWhole(kind, baseId, accept, depth);
    }
  }

  packOf(place: EntryPlace): Pack {
    const pack = this.#packs[place.packNumber];
    assert(pack !== undefined, "a place names a known pack");
    return pack;
  }

  packOfNumber(number: number): Pack {
    const pack = this.#packs[this.#index.packNumberOf(number)];
    assert(pack !== undefined, "a place names a known pack");
    return pack;
  }

  /** Gives back the memory of entries whose packs are gone. Nobody may hold numbers of entries over this. */
  tidy(): void {
    const old = this.#index;
    let deadCount = 0;
    for (let number = 0; number < old.count; number++)
      if (!old.hasPlace(number) || this.packOfNumber(number).state === "dropped") deadCount += 1;
    if (deadCount < deadEntriesMin || deadCount < old.count / 4) return;
    const index = this.#newIndex();
    for (let number = 0; number < old.count; number++)
      if (old.hasPlace(number) && this.packOfNumber(number).state !== "dropped")
        index.add(old.idOf(number), old.placeOf(number), old.baseIdOf(number));
    this.#index = index;
  }

  #newIndex(): EntryIndex {
    const { entriesMax } = this.#options;
    return new EntryIndex(entriesMax === undefined ? {} : { entriesMax });
  }
}
