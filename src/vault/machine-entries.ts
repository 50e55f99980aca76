// Everything that is stored of one machine: which entries there are, and their checked content.

import { assert } from "../base/assert.ts";
import { forEachParallel } from "../base/semaphore.ts";
import { Fault } from "../contract/errors.ts";
import { parsePackId, type MachineId } from "../contract/ids.ts";
import { equalBytes, idOf, isZeroId, toHex } from "../disk/digest.ts";
import type { Store } from "../store/store.ts";
import type { ContentCache } from "./content-cache.ts";
import { EntryIndex, type EntryPlace } from "./entry-index.ts";
import { openStoredPack, packPrefixOf, type Pack } from "./pack.ts";
import { damagedPack } from "./pack-format.ts";
import type { StoredBlock } from "./patch-work.ts";
import { applyPatch, depthMax, kindSizes, patchBaseId, type EntryKind } from "./patch.ts";
import { tagBytes, type VaultSecret } from "./sealing.ts";
import { decompressEntry } from "./zstd.ts";

/** Reads under way at once for one call. */
const readsMax = 8;
/** Entries that stand this close in a pack are read together … */
const gapBytesMax = 32 << 10;
/** … up to this much. */
const readBytesMax = 4 << 20;
const indexLoadsMax = 8;

export interface MachineEntriesOptions {
  readonly store: Store;
  readonly secret: VaultSecret;
  readonly machineId: MachineId;
  readonly cache: ContentCache;
  readonly entriesMax?: number;
}

interface LoadJob {
  readonly position: number;
  readonly id: Uint8Array;
  /** What to read next: the id itself, then the bases of its patches. */
  nextId: Uint8Array;
  readonly patches: Uint8Array[];
}

export class MachineEntries {
  readonly machineId: MachineId;
  readonly #options: MachineEntriesOptions;
  readonly #index: EntryIndex;
  readonly #packs: Pack[] = [];
  readonly #knownKeys = new Set<string>();
  #refreshing: Promise<void> | undefined;
  #isPrepared = false;

  constructor(options: MachineEntriesOptions) {
    this.machineId = options.machineId;
    this.#options = options;
    this.#index = new EntryIndex(options.entriesMax === undefined ? {} : { entriesMax: options.entriesMax });
  }

  /** Knows what the store has from before; the machine's only writer needs it once. */
  async prepare(): Promise<void> {
    if (!this.#isPrepared) await this.refresh();
  }

  /** Takes in the packs that the store has and this process does not know. Calls at the same time share one listing. */
  async refresh(): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined));
    await this.#refreshing;
  }

  async #refresh(): Promise<void> {
    const prefix = packPrefixOf(this.machineId);
    const found: { packId: ReturnType<typeof parsePackId>; key: string; sizeBytes: number }[] = [];
    for await (const { key, sizeBytes } of this.#options.store.list(prefix))
      if (!this.#knownKeys.has(key)) found.push({ packId: parsePackId(key.slice(prefix.length)), key, sizeBytes });
    await forEachParallel(found, indexLoadsMax, async (blob) => {
      const { pack, rows } = await openStoredPack(this.#options, blob);
      if (this.#knownKeys.has(pack.key)) return;
      const packNumber = this.addPack(pack);
      for (const row of rows) if (this.find(row.kind, row.id) === undefined) this.setPlace(row.id, { ...row, packNumber });
    });
    this.#isPrepared = true;
  }

  /** Registers a pack of this process; its number goes into places. */
  addPack(pack: Pack): number {
    this.#knownKeys.add(pack.key);
    return this.#packs.push(pack) - 1;
  }

  /** Forgets that the store may hold this pack, so that a refresh can find it. */
  dropPack(pack: Pack): void {
    pack.state = "dropped";
    this.#isPrepared = false; // The upload may have come through although its answer did not.
    this.#knownKeys.delete(pack.key);
  }

  setPlace(id: Uint8Array, place: EntryPlace): void {
    this.#index.set(id, place);
  }

  /** Place of an entry that is durable or belongs to the point under way. */
  find(kind: EntryKind, id: Uint8Array): EntryPlace | undefined {
    const place = this.#index.find(kind, id);
    return place === undefined || this.#packOf(place).state === "dropped" ? undefined : place;
  }

  isDurable(place: EntryPlace): boolean {
    return this.#packOf(place).state === "stored";
  }

  /** Checked content of one block or page; not of the zero id. Never changed by anyone. */
  async load(kind: EntryKind, id: Uint8Array): Promise<Buffer> {
    const cached = this.#options.cache.get(kind, id);
    if (cached !== undefined) return cached;
    const [content] = await this.loadMany(kind, [id]);
    assert(content !== undefined, "one id gives one content");
    return content;
  }

  /** As load, in memory that is the caller's alone to change. */
  async loadOwn(kind: EntryKind, id: Uint8Array): Promise<Buffer> {
    const cached = this.#options.cache.get(kind, id);
    if (cached !== undefined) return Buffer.from(cached);
    const [content] = await this.loadMany(kind, [id], "forget");
    assert(content !== undefined, "one id gives one content");
    return content;
  }

  /** A block as it is stored, opened but neither unpacked nor checked; undefined when its content is at hand already. */
  async loadStored(id: Uint8Array): Promise<StoredBlock | undefined> {
    const job: LoadJob = { position: 0, id, nextId: id, patches: [] };
    for (let depth = 0; depth <= depthMax; depth++) {
      if (this.#options.cache.get("block", job.nextId) !== undefined) return undefined;
      if (this.find("block", job.nextId) === undefined) await this.refresh();
      const place = this.find("block", job.nextId);
      if (place === undefined) throw this.#damaged("block", job.nextId, "it is missing");
      const pack = this.#packOf(place);
      const plain = openSeal(pack, place, await pack.read(place.offset, place.length));
      if (place.form === "full") return { id, full: plain, method: place.method, patches: job.patches };
      this.#stackPatch("block", job, unpack(pack, place, plain));
    }
    throw this.#damaged("block", id, "its chain of patches is too long");
  }

  /** Whether content is kept in memory. */
  isAtHand(kind: EntryKind, id: Uint8Array): boolean {
    return this.#options.cache.get(kind, id) !== undefined;
  }

  /** The fault of a block whose stored bytes do not give its content. */
  damagedBlock(id: Uint8Array): Fault {
    return this.#damaged("block", id, "its content does not fit its digest");
  }

  /** Keeps content that was checked in memory for later loads; the caller changes it no more. */
  remember(kind: EntryKind, id: Uint8Array, content: Buffer): void {
    this.#options.cache.set(kind, id, content);
  }

  /** Checked content of several, read in as few pieces as their places allow. */
  async loadMany(kind: EntryKind, ids: readonly Uint8Array[], then: "remember" | "forget" = "remember"): Promise<Buffer[]> {
    const contents = Array.from<Buffer>({ length: ids.length });
    let jobs: LoadJob[] = [];
    for (const [position, id] of ids.entries()) {
      assert(!isZeroId(id), "the zero id has no stored content");
      const cached = this.#options.cache.get(kind, id);
      if (cached === undefined) jobs.push({ position, id, nextId: id, patches: [] });
      else contents[position] = cached;
    }
    for (let depth = 0; jobs.length > 0; depth++) {
      if (depth > depthMax) throw this.#damaged(kind, jobs[0]?.id, "its chain of patches is too long");
      jobs = await this.#advance(kind, jobs, contents);
    }
    if (then === "remember")
      for (const [position, content] of contents.entries()) {
        const id = ids[position];
        if (id !== undefined) this.remember(kind, id, content);
      }
    return contents;
  }

  /** Reads the next entry of each job; answers the jobs that need one more. */
  async #advance(kind: EntryKind, jobs: readonly LoadJob[], contents: Buffer[]): Promise<LoadJob[]> {
    const open: LoadJob[] = [];
    const uncached: LoadJob[] = [];
    const finish = (job: LoadJob, base: Buffer): void => {
      contents[job.position] = this.#finish(kind, job, base);
    };
    for (const job of jobs) {
      const base = job.nextId === job.id ? undefined : this.#options.cache.get(kind, job.nextId);
      if (base === undefined) uncached.push(job);
      else finish(job, Buffer.from(base));
    }
    if (uncached.some((job) => this.find(kind, job.nextId) === undefined)) await this.refresh();
    await this.#readEntries(kind, uncached, (job, place, plain) => {
      if (place.form === "full") return finish(job, plain);
      this.#stackPatch(kind, job, plain);
      open.push(job);
    });
    return open;
  }

  #stackPatch(kind: EntryKind, job: LoadJob, patch: Uint8Array): void {
    const baseId = patchBaseId(kind, patch);
    if (baseId === undefined) throw this.#damaged(kind, job.id, "a patch of it has a wrong form");
    job.patches.push(patch);
    job.nextId = baseId;
  }

  /** Applies the patches, last read first, to `base`, which is the job's own memory, and checks the result. */
  #finish(kind: EntryKind, job: LoadJob, base: Buffer): Buffer {
    if (base.length !== kindSizes[kind].contentBytes) throw this.#damaged(kind, job.id, "its content has a wrong size");
    for (const patch of job.patches.reverse()) applyPatch(kind, base, patch);
    if (!equalBytes(idOf(base), job.id)) throw this.#damaged(kind, job.id, "its content does not fit its digest");
    return base;
  }

  async #readEntries(
    kind: EntryKind,
    jobs: readonly LoadJob[],
    take: (job: LoadJob, place: EntryPlace, plain: Buffer) => void,
  ): Promise<void> {
    const wanted = jobs.map((job) => {
      const place = this.find(kind, job.nextId);
      if (place === undefined) throw this.#damaged(kind, job.nextId, "it is missing");
      return { job, place };
    });
    wanted.sort((a, b) => a.place.packNumber - b.place.packNumber || a.place.offset - b.place.offset);
    await forEachParallel(groupReads(wanted), readsMax, async (group) => {
      const [first, last] = [group[0]?.place, group.at(-1)?.place];
      assert(first !== undefined && last !== undefined, "a group has a first and a last");
      const pack = this.#packOf(first);
      const bytes = await pack.read(first.offset, last.offset + last.length - first.offset);
      for (const { job, place } of group) {
        const at = place.offset - first.offset;
        take(job, place, openEntry(pack, place, bytes.subarray(at, at + place.length)));
      }
    });
  }

  #packOf(place: EntryPlace): Pack {
    const pack = this.#packs[place.packNumber];
    assert(pack !== undefined, "a place names a known pack");
    return pack;
  }

  #damaged(kind: EntryKind, id: Uint8Array | undefined, finding: string): Fault {
    return new Fault("DataDamaged", `could not read a ${kind}: ${finding}`, {
      evidence: { machineId: this.machineId, id: id === undefined ? "" : toHex(id) },
    });
  }
}

function openEntry(pack: Pack, place: EntryPlace, sealed: Uint8Array): Buffer {
  return unpack(pack, place, openSeal(pack, place, sealed));
}

function openSeal(pack: Pack, place: EntryPlace, sealed: Uint8Array): Buffer {
  const plain = pack.sealer.open("entry", sealed, place.offset);
  if (plain === undefined) throw damagedPack(pack.key, `the seal of the entry at ${place.offset} is broken`);
  return plain;
}

function unpack(pack: Pack, place: EntryPlace, plain: Buffer): Buffer {
  if (place.method === "raw") return plain;
  const unpacked = decompressEntry(plain, kindSizes[place.kind].contentBytes);
  if (unpacked === undefined) throw damagedPack(pack.key, `the entry at ${place.offset} does not unpack, ${place.length - tagBytes} bytes`);
  return unpacked;
}

/** Joins neighbours; `wanted` is in order of pack and offset. */
function groupReads<T extends { readonly place: EntryPlace }>(wanted: readonly T[]): T[][] {
  const groups: T[][] = [];
  for (const item of wanted) {
    const group = groups.at(-1);
    const [first, last] = [group?.[0]?.place, group?.at(-1)?.place];
    const isNear =
      first !== undefined &&
      last !== undefined &&
      first.packNumber === item.place.packNumber &&
      item.place.offset - (last.offset + last.length) <= gapBytesMax &&
      item.place.offset + item.place.length - first.offset <= readBytesMax;
    if (isNear && group !== undefined) group.push(item);
    else groups.push([item]);
  }
  return groups;
}
