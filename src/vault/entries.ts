// Every stored entry that this process knows, over all areas that it has looked into: one index, and the packs behind it.

import { forEachParallel } from "../base/semaphore.ts";
import { parsePackId, type AreaId } from "../contract/ids.ts";
import type { Store } from "../store/store.ts";
import { EntryIndex, type OpenedIndex } from "./entry-index.ts";
import type { IndexManifest, KeptPack } from "./index-manifest.ts";
import type { IndexEntry } from "./index-row.ts";
import { openStoredPack, packKeyOf, packPrefixOf, RememberedPack, type FoundPack, type Pack } from "./pack.ts";
import type { PackRow } from "./pack-format.ts";
import { depthMax, type EntryKind } from "./patch.ts";
import type { VaultSecret } from "./sealing.ts";

const indexLoadsMax = 8;
/** Entries or packs that are taken in before others may run. */
const sliceCount = 4096;

const noDepth = Number.POSITIVE_INFINITY;

export interface EntriesOptions {
  readonly store: Store;
  readonly secret: VaultSecret;
  readonly entriesMax?: number | undefined;
  /** Where the index of entries is kept from one opening to the next; this process's alone. Without it all of it is in memory. */
  readonly indexFolder?: string | undefined;
  /** Entries in memory before they are written there. */
  readonly indexTableMax?: number | undefined;
}

/** An entry that can be relied on, as far as its pack's state goes. */
export interface FoundEntry extends IndexEntry {
  readonly pack: Pack;
}

export class Entries implements AsyncDisposable {
  readonly #options: EntriesOptions;
  readonly #index: EntryIndex;
  readonly #packs = new Map<number, Pack>();
  readonly #knownKeys = new Set<string>();
  /** Known from an earlier opening, and not yet seen in the store by this one. */
  readonly #kept = new Map<string, KeptPack>();
  readonly #keptNumbers = new Set<number>();
  readonly #prepared = new Set<AreaId>();
  readonly #refreshing = new Map<AreaId, Promise<void>>();
  #nextPackNumber: number;

  private constructor(options: EntriesOptions, { index, nextPackNumber }: Omit<OpenedIndex, "packs">) {
    this.#options = options;
    this.#index = index;
    this.#nextPackNumber = nextPackNumber;
  }

  static async open(options: EntriesOptions): Promise<Entries> {
    const { indexFolder: folder, indexTableMax: tableEntriesMax, entriesMax } = options;
    // The index asks for these only after something was added.
    const parts: { entries?: Entries } = {};
    const opened = await EntryIndex.open({
      folder,
      entriesMax,
      tableEntriesMax,
      isAlive: (packNumber) => parts.entries?.isAlive(packNumber) ?? true,
      keptPacks: (table) => parts.entries?.keptPacks(table) ?? { nextPackNumber: opened.nextPackNumber, packs: opened.packs },
    });
    const entries = new Entries(options, opened);
    for (const [index, pack] of opened.packs.entries()) {
      entries.#kept.set(packKeyOf(pack.areaId, pack.packId), pack);
      entries.#keptNumbers.add(pack.number);
      if (index % sliceCount === sliceCount - 1) await letOthersRun();
    }
    parts.entries = entries;
    return entries;
  }

  /** Those that are not gone. */
  get packs(): Iterable<Pack> {
    return this.#packs.values();
  }

  /** Keeps the index for the next opening. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#index[Symbol.asyncDispose]();
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
    const vanished = new Set<Pack>();
    for (const pack of this.#packs.values())
      if (pack.areaId === areaId && pack.writer === undefined && pack.state === "stored") vanished.add(pack);
    const listed = new Set<string>();
    const found: FoundPack[] = [];
    for await (const { key, sizeBytes } of this.#options.store.list(prefix)) {
      listed.add(key);
      if (!this.#knownKeys.has(key) && !this.#adopt(key, sizeBytes))
        found.push({ packId: parsePackId(key.slice(prefix.length)), areaId, key, sizeBytes });
      if (listed.size % sliceCount === 0) await letOthersRun();
    }
    for (const pack of vanished) if (!listed.has(pack.key) && pack.state === "stored") this.dropPack(pack);
    this.#forgetKept(areaId);
    await forEachParallel(found, indexLoadsMax, async (each) => {
      const opened = await openStoredPack(this.#options, each);
      await this.#index.settle();
      if (opened === undefined || this.#knownKeys.has(each.key)) return;
      this.addPack(opened.pack);
      for (const row of opened.index.rows) this.addEntry(row, opened.pack);
    });
    this.#prepared.add(areaId);
  }

  /** Takes a pack as it was known before: names are never used twice and packs never change. */
  #adopt(key: string, sizeBytes: number): boolean {
    const kept = this.#kept.get(key);
    if (kept?.sizeBytes !== sizeBytes) return false;
    this.#kept.delete(key);
    this.#keptNumbers.delete(kept.number);
    this.#knownKeys.add(key);
    this.#packs.set(kept.number, new RememberedPack(this.#options, kept));
    return true;
  }

  /** What was known before of an area and is there no more. */
  #forgetKept(areaId: AreaId): void {
    for (const [key, kept] of this.#kept) {
      if (kept.areaId !== areaId) continue;
      this.#kept.delete(key);
      this.#keptNumbers.delete(kept.number);
    }
  }

  isAlive(packNumber: number): boolean {
    return this.#packs.has(packNumber) || this.#keptNumbers.has(packNumber);
  }

  keptPacks(table: number): Omit<IndexManifest, "runSerials"> {
    const packs: KeptPack[] = [...this.#kept.values()];
    for (const pack of this.#packs.values())
      if ((pack.state === "stored" || pack.state === "draining") && pack.lastTable <= table) packs.push(pack);
    return { nextPackNumber: this.#nextPackNumber, packs };
  }

  /** Registers a pack and gives it its number. */
  addPack(pack: Pack): void {
    pack.number = this.#nextPackNumber++;
    this.#knownKeys.add(pack.key);
    this.#packs.set(pack.number, pack);
  }

  /** In the order of the pack's index. */
  addEntry(row: PackRow, pack: Pack): void {
    const { offset, length, kind, form, method, depth, baseId } = row;
    const place = { packNumber: pack.number, ordinal: pack.entryCount, offset, length, kind, form, method, depth, baseId };
    this.#index.add(row.id, place);
    pack.entryCount += 1;
    pack.lastTable = this.#index.tableNumber;
  }

  /** Forgets a pack that was given up or is gone; should the store hold it all the same, a refresh finds it. */
  dropPack(pack: Pack): void {
    this.#prepared.delete(pack.areaId); // The upload may have come through although its answer did not.
    this.dropRemoved(pack);
  }

  /** Forgets a pack that this process has removed from the store, or never began to put there. */
  dropRemoved(pack: Pack): void {
    pack.state = "dropped";
    this.#knownKeys.delete(pack.key);
    this.#packs.delete(pack.number);
  }

  /** Brings what is known of these, and of what they stand on, near: finds are quick then. Nothing needs it but speed. */
  async prefetch(kind: EntryKind, ids: readonly Uint8Array[]): Promise<void> {
    let wanted = ids;
    for (let depth = 0; depth <= depthMax && wanted.length > 0; depth++) {
      await this.#index.prefetch(wanted);
      if (!this.#index.hasRuns) return;
      wanted = wanted.flatMap((id) =>
        this.#index
          .all(kind, id)
          .map(({ baseId }) => baseId)
          .filter((baseId) => baseId !== undefined),
      );
    }
  }

  /**
   * Where an entry can be read, durable places first. Only whole entries: of an equal one that no point needs any more, what it stands on
   * may be gone. For what an entry stands on, `depthBelow` is that entry's depth.
   */
  find(kind: EntryKind, id: Uint8Array, depthBelow = noDepth): FoundEntry | undefined {
    return (
      this.findWhole(kind, id, ({ state }) => state === "stored", depthBelow) ??
      this.findWhole(kind, id, ({ state }) => state !== "dropped", depthBelow)
    );
  }

  /**
   * An entry whose pack, and whose bases' packs, `accept` takes; undefined when there is none. A base has less depth than what
   * stands on it, so that equal entries never make a circle or a long chain.
   */
  findWhole(kind: EntryKind, id: Uint8Array, accept: (pack: Pack) => boolean, depthBelow = noDepth): FoundEntry | undefined {
    for (const entry of this.#index.all(kind, id)) {
      const pack = this.#packs.get(entry.packNumber);
      if (pack === undefined || entry.depth >= depthBelow || !accept(pack)) continue;
      const { baseId, depth } = entry;
      if (baseId === undefined || this.findWhole(kind, baseId, accept, depth) !== undefined) return { ...entry, pack };
    }
    return undefined;
  }

  /** An entry as find finds it, and those that it stands on, down to a full one; undefined when that is not known of all. */
  findChain(kind: EntryKind, id: Uint8Array): FoundEntry[] | undefined {
    const chain: FoundEntry[] = [];
    for (let next: Uint8Array | undefined = id; next !== undefined;) {
      const entry: FoundEntry | undefined = this.find(kind, next, chain.at(-1)?.depth);
      if (entry === undefined) return undefined;
      chain.push(entry);
      next = entry.baseId;
    }
    return chain;
  }

  /** Whether finds are quick without prefetch. */
  get isNear(): boolean {
    return !this.#index.hasRuns;
  }

  /** Whether some entry of this digest, whole or not, is in a pack that `accept` takes. */
  findAny(kind: EntryKind, id: Uint8Array, accept: (pack: Pack) => boolean): boolean {
    return this.#index.all(kind, id).some(({ packNumber }) => {
      const pack = this.#packs.get(packNumber);
      return pack !== undefined && accept(pack);
    });
  }

  /** Calls `visit` for an entry and for those that it stands on, as findWhole finds them. */
  visitWhole(entry: FoundEntry, accept: (pack: Pack) => boolean, visit: (entry: FoundEntry) => void): void {
    for (let next: FoundEntry | undefined = entry; next !== undefined;) {
      visit(next);
      const { baseId, kind, depth }: FoundEntry = next;
      next = baseId === undefined ? undefined : this.findWhole(kind, baseId, accept, depth);
    }
  }

  /** Gives back the memory of entries whose packs are gone. */
  tidy(): void {
    this.#index.tidy();
  }
}

async function letOthersRun(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}
