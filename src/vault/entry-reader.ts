// Reads entries of some areas of a vault: their checked content, wherever it stands by now.

import { assert } from "../base/assert.ts";
import { forEachParallel } from "../base/semaphore.ts";
import { Fault } from "../contract/errors.ts";
import type { AreaId } from "../contract/ids.ts";
import { equalBytes, isZeroId, toHex } from "../disk/digest.ts";
import type { BlockPool } from "./block-pool.ts";
import type { ContentCache } from "./content-cache.ts";
import type { Entries, FoundEntry } from "./entries.ts";
import type { EntryPlace } from "./index-row.ts";
import { openInThreads, type FailedOpening } from "./open-in-threads.ts";
import type { Pack } from "./pack.ts";
import { damagedPack } from "./pack-format.ts";
import { applyPatch, contentIdOf, depthMax, kindSizes, patchBaseId, type EntryKind } from "./patch.ts";
import { tagBytes } from "./gcm.ts";
import type { VaultSecret } from "./sealing.ts";
import { decompressEntry } from "./zstd.ts";

/** Reads under way at once for one call. */
const readsMax = 8;
/** Entries that stand this close in a pack are read together … */
const gapBytesMax = 32 << 10;
/** … up to this much. */
const readBytesMax = 4 << 20;
/** A pack that is gone was rewritten elsewhere; one entry may meet this so often before it is damage. */
const movesMax = 4;
/** A chain may have to be read anew as often. */
const noDepth = Number.POSITIVE_INFINITY;
const roundsMax = depthMax * movesMax;
/** So few entries of a lone call are opened sooner here than in a thread. */
const lonelyEntriesMax = 3;

export interface LoadJob {
  readonly position: number;
  readonly id: Uint8Array;
  /** What to read next: the id itself, then the bases of its patches. */
  nextId: Uint8Array;
  /** Depth of what was read last: a base has less. */
  depthBelow: number;
  readonly patches: Uint8Array[];
  /** Where its content goes; memory of its own unless told. */
  readonly into?: Uint8Array;
}

export interface PlacedJob {
  readonly job: LoadJob;
  readonly place: FoundEntry;
}

export interface EntryReaderOptions {
  readonly entries: Entries;
  readonly cache: ContentCache;
  /** Where content may stand. */
  readonly areaIds: readonly AreaId[];
  readonly pool: BlockPool;
  readonly secret: VaultSecret;
}

/** Takes content that was checked, in memory that is the caller's alone. */
type Take = (job: LoadJob, content: Buffer) => void;

interface EntryAnswers {
  /** A patch, or what patches stand on: opened and unpacked, not checked. */
  readonly part: (job: LoadJob, place: EntryPlace, plain: Buffer) => void;
  readonly whole: Take;
  /** The pack was removed since it was indexed. */
  readonly moved: (job: LoadJob) => void;
}

export class EntryReader {
  readonly #entries: Entries;
  readonly #cache: ContentCache;
  readonly #areaIds: readonly AreaId[];
  readonly #pool: BlockPool;
  readonly #secret: VaultSecret;
  /** Calls under way: a lone one is quicker without a thread. */
  #loading = 0;
  /** Loads of one content that several ask for at once: all blocks of a frame go through few pages. */
  readonly #loads = new Map<string, Promise<Buffer>>();

  constructor({ entries, cache, areaIds, pool, secret }: EntryReaderOptions) {
    this.#entries = entries;
    this.#cache = cache;
    this.#areaIds = areaIds;
    this.#pool = pool;
    this.#secret = secret;
  }

  /** Checked content of one block or page; not of the zero id. Never changed by anyone. */
  async load(kind: EntryKind, id: Uint8Array): Promise<Buffer> {
    const cached = this.#cache.get(kind, id);
    if (cached !== undefined) return cached;
    const name = kind + toHex(id);
    const loading = this.#loads.get(name) ?? this.#loadOne(kind, id).finally(() => this.#loads.delete(name));
    this.#loads.set(name, loading);
    return await loading;
  }

  async #loadOne(kind: EntryKind, id: Uint8Array): Promise<Buffer> {
    const [content] = await this.loadMany(kind, [id]);
    assert(content !== undefined, "one id gives one content");
    return content;
  }

  /** As load, in memory that is the caller's alone to change. */
  async loadOwn(kind: EntryKind, id: Uint8Array): Promise<Buffer> {
    const cached = this.#cache.get(kind, id);
    if (cached !== undefined) return Buffer.from(cached);
    const [content] = await this.loadMany(kind, [id], "forget");
    assert(content !== undefined, "one id gives one content");
    return content;
  }

  /** Content that is kept in memory; undefined when it is not. Never changed by anyone. */
  atHand(kind: EntryKind, id: Uint8Array): Buffer | undefined {
    return this.#cache.get(kind, id);
  }

  /** Keeps content that was checked in memory for later loads; the caller changes it no more. */
  remember(kind: EntryKind, id: Uint8Array, content: Buffer): void {
    this.#cache.set(kind, id, content);
  }

  /** Checked content of several, read in as few pieces as their places allow. */
  async loadMany(kind: EntryKind, ids: readonly Uint8Array[], then: "remember" | "forget" = "remember"): Promise<Buffer[]> {
    const contents = Array.from<Buffer>({ length: ids.length });
    const jobs: LoadJob[] = [];
    for (const [position, id] of ids.entries()) {
      assert(!isZeroId(id), "the zero id has no stored content");
      const cached = this.#cache.get(kind, id);
      if (cached === undefined) jobs.push(jobOf(position, id));
      else contents[position] = cached;
    }
    await this.#run(kind, jobs, (job, content) => {
      contents[job.position] = content;
      if (then === "remember") this.remember(kind, job.id, content);
    });
    return contents;
  }

  /** Writes the checked content of blocks into memory of the caller, which holds anything after a failure. Keeps none of it. */
  async readBlocks(blocks: readonly { readonly id: Uint8Array; readonly into: Uint8Array }[]): Promise<void> {
    const jobs: LoadJob[] = [];
    for (const [position, { id, into }] of blocks.entries()) {
      const cached = this.#cache.get("block", id);
      if (cached === undefined) jobs.push({ ...jobOf(position, id), into });
      else into.set(cached);
    }
    await this.#run("block", jobs, (job, content) => job.into?.set(content));
  }

  async #run(kind: EntryKind, jobs: readonly LoadJob[], take: Take): Promise<void> {
    this.#loading += 1;
    try {
      let left = jobs;
      for (let depth = 0; left.length > 0; depth++) {
        if (depth > roundsMax) throw this.#damaged(kind, left[0]?.id, "its chain of patches is too long");
        left = await this.#advance(kind, left, take);
      }
    } finally {
      this.#loading -= 1;
    }
  }

  /** Reads the next entry of each job; answers the jobs that need one more. */
  async #advance(kind: EntryKind, jobs: readonly LoadJob[], take: Take): Promise<LoadJob[]> {
    const open: LoadJob[] = [];
    const uncached: LoadJob[] = [];
    for (const job of jobs) {
      const base = job.nextId === job.id ? undefined : this.#cache.get(kind, job.nextId);
      if (base === undefined) uncached.push(job);
      else take(job, this.#finish(kind, job, Buffer.from(base)));
    }
    let wanted = uncached;
    for (let moves = 0; wanted.length > 0; moves++) {
      if (moves > movesMax) throw this.#damaged(kind, wanted[0]?.nextId, "its pack is gone");
      const moved: LoadJob[] = [];
      await this.#readEntries(kind, await this.#placesOf(kind, wanted), {
        part: (job, place, plain) => {
          if (place.form === "full") return take(job, this.#finish(kind, job, plain));
          this.#stackPatch(job, place, plain);
          open.push(job);
        },
        whole: take,
        moved: (job) => moved.push(job),
      });
      wanted = moved;
    }
    return open;
  }

  async #placesOf(kind: EntryKind, jobs: readonly LoadJob[]): Promise<PlacedJob[]> {
    const placeOf = (job: LoadJob): FoundEntry | undefined => this.#entries.find(kind, job.nextId, job.depthBelow);
    await this.#entries.prefetch(
      kind,
      jobs.map(({ nextId }) => nextId),
    );
    if (jobs.some((job) => placeOf(job) === undefined)) await this.#entries.refresh(this.#areaIds);
    return jobs.map((job) => {
      const place = placeOf(job) ?? this.#placeAgain(kind, job);
      if (place === undefined) throw this.#damaged(kind, job.nextId, "it is missing");
      return { job, place };
    });
  }

  /** What a patch stands on went while it was read: no point needs that patch, and the content is elsewhere. */
  #placeAgain(kind: EntryKind, job: LoadJob): FoundEntry | undefined {
    job.nextId = job.id;
    job.depthBelow = noDepth;
    job.patches.splice(0);
    return this.#entries.find(kind, job.id);
  }

  #stackPatch(job: LoadJob, { kind, depth }: EntryPlace, patch: Uint8Array): void {
    const baseId = patchBaseId(kind, patch);
    if (baseId === undefined) throw this.#damaged(kind, job.id, "a patch of it has a wrong form");
    job.patches.push(patch);
    job.nextId = baseId;
    job.depthBelow = depth;
  }

  /** Applies the patches, last read first, to `base`, which is the job's own memory, and checks the result. */
  #finish(kind: EntryKind, job: LoadJob, base: Buffer): Buffer {
    if (base.length !== kindSizes[kind].contentBytes) throw this.#damaged(kind, job.id, "its content has a wrong size");
    for (const patch of job.patches.reverse()) applyPatch(kind, base, patch);
    if (!equalBytes(contentIdOf(kind, base), job.id)) throw this.#damaged(kind, job.id, "its content does not fit its digest");
    return base;
  }

  async #readEntries(kind: EntryKind, wanted: PlacedJob[], on: EntryAnswers): Promise<void> {
    wanted.sort((a, b) => a.place.packNumber - b.place.packNumber || a.place.offset - b.place.offset);
    await forEachParallel(groupReads(wanted), readsMax, async (group) => {
      const [first, last] = [group[0]?.place, group.at(-1)?.place];
      assert(first !== undefined && last !== undefined, "a group has a first and a last");
      const { pack } = first;
      const bytes = await pack.read(first.offset, last.offset + last.length - first.offset);
      if (bytes === undefined) {
        this.#entries.dropPack(pack);
        for (const { job } of group) on.moved(job);
        return;
      }
      const read = { pack, offset: first.offset, bytes };
      const isForThreads = this.#pool.threadCount > 0 && (group.length >= lonelyEntriesMax || this.#loading > 1);
      const inThreads = isForThreads ? group.filter(({ job, place }) => place.form === "full" && job.nextId === job.id) : [];
      const opened = openInThreads({ pool: this.#pool, secret: this.#secret, kind, read, wanted: inThreads }, on.whole);
      const others = (async () => {
        for (const { job, place } of inThreads.length === 0 ? group : group.filter((each) => !inThreads.includes(each))) {
          const at = place.offset - first.offset;
          on.part(job, place, openEntry(pack, place, bytes.subarray(at, at + place.length)));
        }
      })();
      // No thread may be at a reader's memory any more when a failure is told.
      const [ofThreads, here] = await Promise.allSettled([opened, others]);
      if (here.status === "rejected") throw here.reason;
      if (ofThreads.status === "rejected") throw ofThreads.reason;
      if (ofThreads.value !== undefined) throw this.#faultOf(kind, ofThreads.value);
    });
  }

  #faultOf(kind: EntryKind, { placed: { job, place }, finding }: FailedOpening): Fault {
    switch (finding) {
      case "seal":
        return brokenSeal(place.pack, place);
      case "frame":
        return brokenFrame(place.pack, place);
      case "digest":
        return this.#damaged(kind, job.id, "its content does not fit its digest");
    }
  }

  #damaged(kind: EntryKind, id: Uint8Array | undefined, finding: string): Fault {
    return new Fault("DataDamaged", `could not read a ${kind}: ${finding}`, {
      evidence: { areaIds: this.#areaIds.join(" "), id: id === undefined ? "" : toHex(id) },
    });
  }
}

function openEntry(pack: Pack, place: EntryPlace, sealed: Uint8Array): Buffer {
  return unpack(pack, place, openSeal(pack, place, sealed));
}

export function openSeal(pack: Pack, place: EntryPlace, sealed: Uint8Array): Buffer {
  const plain = pack.sealer.open("entry", sealed, place.offset);
  if (plain === undefined) throw brokenSeal(pack, place);
  return plain;
}

function unpack(pack: Pack, place: EntryPlace, plain: Buffer): Buffer {
  if (place.method === "raw") return plain;
  const unpacked = decompressEntry(plain, kindSizes[place.kind].contentBytes);
  if (unpacked === undefined) throw brokenFrame(pack, place);
  return unpacked;
}

function brokenSeal(pack: Pack, { offset }: EntryPlace): Fault {
  return damagedPack(pack.key, `the seal of the entry at ${offset} is broken`);
}

function brokenFrame(pack: Pack, { offset, length }: EntryPlace): Fault {
  return damagedPack(pack.key, `the entry at ${offset} does not unpack, ${length - tagBytes} bytes`);
}

function jobOf(position: number, id: Uint8Array): LoadJob {
  return { position, id, nextId: id, depthBelow: noDepth, patches: [] };
}

/** Joins neighbours; `wanted` is in order of pack and offset. */
export function groupReads<T extends { readonly place: EntryPlace }>(wanted: readonly T[]): T[][] {
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
