// The digests of a block's granules by the block's id, proved by it: what checks one granule, and what a change of one granule stands on.

import { assert } from "../base/assert.ts";
import { forEachParallel } from "../base/semaphore.ts";
import { Fault } from "../contract/errors.ts";
import type { AreaId } from "../contract/ids.ts";
import { digestRowBytes, rowIdOf } from "../disk/block-id.ts";
import { equalBytes, toHex } from "../disk/digest.ts";
import type { Entries, FoundEntry } from "./entries.ts";
import { applyDigests, type PackDigests } from "./granule-digests.ts";
import { readDigests, type DigestSource, type Pack } from "./pack.ts";

/** Parts of packs that are loaded at once. */
const loadsMax = 4;
/** Small reads for each part that is loaded for them. */
const asksPerLoad = 16;
/** Packs may vanish below a question, because they were rewritten elsewhere; so often. */
const movesMax = 4;

/** Digests of packs in the store, least recently used out first, bounded in bytes. */
export class DigestCache {
  readonly #bytesMax: number;
  readonly #packs = new Map<string, PackDigests>();
  readonly #loading = new Map<string, Promise<PackDigests | undefined>>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  at(pack: Pack): PackDigests | undefined {
    const digests = this.#packs.get(pack.key);
    if (digests === undefined) return undefined;
    this.#packs.delete(pack.key);
    this.#packs.set(pack.key, digests);
    return digests;
  }

  /** Loads those of a pack for later, where they fit beside what is here. Whoever needs them meets what may be wrong with them. */
  loadBeside(pack: Pack): void {
    const isRoom = this.#bytes + pack.digestBytes * 2 < this.#bytesMax && this.#loading.size < loadsMax;
    if (isRoom && !this.#packs.has(pack.key)) void this.load(pack).catch(() => undefined);
  }

  /** Undefined when the pack is gone. */
  async load(pack: Pack): Promise<PackDigests | undefined> {
    const loading = this.#loading.get(pack.key) ?? this.#load(pack).finally(() => this.#loading.delete(pack.key));
    this.#loading.set(pack.key, loading);
    return await loading;
  }

  async #load(pack: Pack): Promise<PackDigests | undefined> {
    const digests = await readDigests(pack);
    if (digests === undefined) return undefined;
    // Another load of them may have ended since they were looked for.
    this.#bytes += digests.byteCount - (this.#packs.get(pack.key)?.byteCount ?? 0);
    this.#packs.set(pack.key, digests);
    for (const [key, old] of this.#packs) {
      if (this.#bytes <= this.#bytesMax || key === pack.key) break;
      this.#packs.delete(key);
      this.#bytes -= old.byteCount;
    }
    return digests;
  }
}

export interface DigestRowsOptions {
  readonly entries: Entries;
  readonly cache: DigestCache;
  /** Where content may stand. */
  readonly areaIds: readonly AreaId[];
}

/** An entry and those that it stands on, down to a full one. */
type Chain = readonly FoundEntry[];

export class DigestRows {
  readonly #options: DigestRowsOptions;
  #askedCount = 0;

  constructor(options: DigestRowsOptions) {
    this.#options = options;
  }

  /** The rows of these blocks, digestRowBytes each, in memory that is the caller's alone. None of them is the zero id. */
  async load(ids: readonly Uint8Array[]): Promise<Uint8Array> {
    const { entries, areaIds } = this.#options;
    await entries.prefetch("block", ids);
    for (let moves = 0; moves <= movesMax; moves++) {
      let chains = ids.map((id) => entries.findChain("block", id));
      if (chains.includes(undefined)) {
        await entries.refresh(areaIds);
        chains = ids.map((id) => entries.findChain("block", id));
      }
      const missing = chains.indexOf(undefined);
      if (missing >= 0) throw damaged(ids[missing], "it is missing");
      const whole = chains.filter((chain) => chain !== undefined);
      const loaded = await this.#loadPacks(whole);
      if (loaded !== undefined) return rowsOf(ids, whole, loaded);
    }
    throw damaged(ids[0], "its pack is gone");
  }

  /**
   * What packs tell of a block, not proved by its id, in memory that is not to be changed; undefined when that is not at hand. It will be
   * when it is asked for often.
   */
  told(chain: Chain): Uint8Array | undefined {
    const { cache } = this.#options;
    const sources = chain.map(({ pack, ordinal }) => cache.at(pack)?.of(ordinal));
    if (sources.includes(undefined)) {
      this.#askedCount += 1;
      // Loading costs about as much as that many small reads save.
      if (this.#askedCount % asksPerLoad === 0) for (const { pack } of chain) if (pack.state === "stored") cache.loadBeside(pack);
      return undefined;
    }
    const [only] = sources;
    if (sources.length === 1 && only?.digests.length === digestRowBytes) return only.digests;
    const row = new Uint8Array(digestRowBytes);
    for (const digests of sources.toReversed()) if (digests !== undefined) applyDigests(row, digests);
    return row;
  }

  /** As load; undefined when one of them is damaged or missing. */
  async tryLoad(ids: readonly Uint8Array[]): Promise<Uint8Array | undefined> {
    try {
      return await this.load(ids);
    } catch (error) {
      if (error instanceof Fault && error.code === "DataDamaged") return undefined;
      throw error;
    }
  }

  /** Digests of every pack in the chains; undefined when a pack is gone, and forgotten now. */
  async #loadPacks(chains: readonly Chain[]): Promise<Map<Pack, DigestSource> | undefined> {
    const { entries, cache } = this.#options;
    const loaded = new Map<Pack, DigestSource>();
    const absent = new Set<Pack>();
    for (const { pack } of chains.flat()) {
      if (loaded.has(pack) || absent.has(pack)) continue;
      const present = cache.at(pack);
      if (present === undefined) absent.add(pack);
      else loaded.set(pack, present);
    }
    let isGone = false;
    await forEachParallel([...absent], loadsMax, async (pack) => {
      const digests = await (pack.pendingDigests?.() ?? cache.load(pack));
      if (digests !== undefined) loaded.set(pack, digests);
      else {
        entries.dropPack(pack);
        isGone = true;
      }
    });
    return isGone ? undefined : loaded;
  }
}

function rowsOf(ids: readonly Uint8Array[], chains: readonly Chain[], loaded: ReadonlyMap<Pack, DigestSource>): Uint8Array {
  const rows = new Uint8Array(ids.length * digestRowBytes);
  for (const [index, chain] of chains.entries()) {
    const row = rows.subarray(index * digestRowBytes, (index + 1) * digestRowBytes);
    for (const { pack, ordinal } of chain.toReversed()) {
      const digests = loaded.get(pack);
      assert(digests !== undefined, "what a chain stands on was loaded");
      applyDigests(row, digests.of(ordinal));
    }
    if (!equalBytes(rowIdOf(row), ids[index] ?? row)) throw damaged(ids[index], "the digests of its granules do not fit its id");
  }
  return rows;
}

function damaged(id: Uint8Array | undefined, finding: string): Fault {
  return new Fault("DataDamaged", `could not read the digests of a block: ${finding}`, {
    evidence: { id: id === undefined ? "" : toHex(id) },
  });
}
