// Stores the entries of one point under way: packs fill, close and travel; nothing is stored twice.

import { assert } from "../base/assert.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../base/clock.ts";
import type { Fault } from "../contract/errors.ts";
import { parsePackId, type PackId } from "../contract/ids.ts";
import { digestGranules, digestRowBytes } from "../disk/block-id.ts";
import { isZeroId, zeroId } from "../disk/digest.ts";
import { granulesPerBlock } from "../disk/geometry.ts";
import {
  changeBlock,
  changedIdAt,
  changedRowAt,
  changeForms,
  changeOutcomes,
  changeResult,
  formsUnseen,
  type ChangeJob,
} from "./change-granules.ts";
import type { DigestRows } from "./digest-rows.ts";
import type { Entries } from "./entries.ts";
import { digestsOfFull, digestsOfPatch, noDigests, type EntryDigests } from "./granule-digests.ts";
import { packKeyOf, unnumbered, type Pack } from "./pack.ts";
import { PackBuilder } from "./pack-builder.ts";
import type { PackRow } from "./pack-format.ts";
import type { PointClaims } from "./point-claims.ts";
import type { PackQueue } from "./pack-queue.ts";
import { checkOnly, fillPlace } from "./fill-pack.ts";
import type { BlockPool } from "./block-pool.ts";
import { depthMax, encodePatch, type ChangedGranule, type EntryKind } from "./patch.ts";
import { createNewSealer, newSealHead, saltBytes, type SealHead, type VaultSecret } from "./sealing.ts";
import type { SentBlock, SentGranules } from "./vault.ts";
import { compressEntry } from "./zstd.ts";

export interface EntryWriterOptions {
  readonly entries: Entries;
  readonly digestRows: DigestRows;
  readonly claims: PointClaims;
  readonly clock: Clock;
  readonly queue: PackQueue;
  readonly secret: VaultSecret;
  readonly random: Random;
  readonly packBytes: number;
  readonly blockPool: BlockPool;
}

/** A block of which granules came: those of the sent from `first` on. */
export interface ChangedBlock {
  /** What it had before; zero for nothing. */
  readonly baseId: Uint8Array;
  readonly first: number;
  readonly granuleCount: number;
}

/** One that can be stored without a look at the content before; `forms` of changeForms. */
interface UnseenChange extends ChangedBlock {
  readonly index: number;
  readonly forms: number;
}

/** A block on its way into the open pack. */
interface Filling {
  readonly block: SentBlock;
  /** checkOnly when the vault has it. */
  readonly packOffset: number;
  /** Which one of its pack it is; negative when it is none. */
  readonly ordinal: number;
}

interface OpenPack {
  readonly pack: Pack;
  readonly builder: PackBuilder;
  readonly sealHead: SealHead;
}

export class EntryWriter implements AsyncDisposable {
  readonly #options: EntryWriterOptions;
  readonly #abort = new AbortController();
  readonly #packs: Pack[] = [];
  readonly #uploads = new Set<Promise<void>>();
  #open: OpenPack;
  #closing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  /** Of packs that have left; as many as were under way at once. */
  readonly #freeMemories: SharedArrayBuffer[] = [];
  #storedBytes = 0;
  #sharedBytes = 0;
  #lastText = "";

  constructor(options: EntryWriterOptions) {
    this.#options = options;
    this.#open = this.#begin();
  }

  /** Bytes of closed packs. */
  get storedBytes(): number {
    return this.#storedBytes;
  }

  /** Bytes that were sent and not stored, because another machine had stored them. */
  get sharedBytes(): number {
    return this.#sharedBytes;
  }

  /** Packs with entries, whether durable yet or not. */
  get packIds(): readonly PackId[] {
    return this.#packs.map(({ packId }) => packId);
  }

  /** Throws what broke an upload since. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Whether content that the caller has seen and checked is stored already; then it is kept for this point. */
  isStored(kind: EntryKind, id: Uint8Array): boolean {
    const { claims } = this.#options;
    const entry = claims.claim(kind, id);
    if (entry === undefined) return false;
    if (entry.pack.ownerId !== claims.machineId) this.#sharedBytes += entry.length;
    return true;
  }

  /** Stores content under its id, which the caller has checked; as a patch on `base` where that pays. */
  async store(
    kind: EntryKind,
    id: Uint8Array,
    content: Uint8Array,
    base?: { readonly id: Uint8Array; readonly changed: readonly ChangedGranule[] },
  ): Promise<void> {
    const patch = base === undefined ? undefined : encodePatch(kind, base.id, base.changed);
    while (!this.#open.builder.hasRoom((patch ?? content).length)) await this.#closePack();
    const baseDepth = base === undefined ? undefined : this.#depthToStandOn(kind, base.id);
    const row = kind === "block" ? rowOf(content) : undefined;
    if (patch !== undefined && base !== undefined && baseDepth !== undefined) {
      const digests = row === undefined ? noDigests : digestsOfPatch(row, maskOf(base.changed));
      return this.#append({ id, kind, form: "patch", depth: baseDepth + 1, baseId: base.id }, { plain: patch, packing: "raw", digests });
    }
    while (!this.#open.builder.hasRoom(content.length)) await this.#closePack();
    const digests = row === undefined ? noDigests : digestsOfFull(row);
    this.#append({ id, kind, form: "full", depth: 0 }, { plain: content, packing: "raw", digests });
  }

  /** Stores a full block from the zstd frame that the caller has unpacked and checked; `row` has the digests of its granules. */
  async storeFrame(id: Uint8Array, frame: Uint8Array, row: Uint8Array): Promise<void> {
    while (!this.#open.builder.hasRoom(frame.length)) await this.#closePack();
    this.#append({ id, kind: "block", form: "full", depth: 0 }, { plain: frame, packing: "zstd", digests: digestsOfFull(row) });
  }

  /**
   * Stores blocks that got other granules, from what was sent alone where that is possible; maybe worked on in another thread. Answers each
   * one's new id; undefined where the content of what it stands on is needed. `damaged` makes the fault of granules that do not unpack or
   * have another digest.
   */
  async change(sent: SentGranules, blocks: readonly ChangedBlock[], damaged: () => Fault): Promise<readonly (Uint8Array | undefined)[]> {
    const { entries, blockPool } = this.#options;
    const ids = Array.from<Uint8Array | undefined>({ length: blocks.length });
    await entries.prefetch(
      "block",
      blocks.map(({ baseId }) => baseId),
    );
    const unseen = blocks.flatMap((block, index): UnseenChange[] => {
      const forms = formsUnseen(block.granuleCount, this.#standingOf(block.baseId));
      return forms === undefined ? [] : [{ ...block, index, forms }];
    });
    const job = unseen.length === 0 ? undefined : await this.#toChangeJob(sent, unseen);
    if (job === undefined) return ids;
    await blockPool.change(job, async (answer, out) => {
      if (answer === undefined) throw damaged();
      const stored = await this.#storeChanged(unseen, answer, out);
      for (const [order, { index }] of unseen.entries()) ids[index] = stored[order];
    });
    return ids;
  }

  /** Rows of blocks that patches may stand on now. */
  async changeableRows(ids: readonly Uint8Array[]): Promise<readonly (Uint8Array | undefined)[]> {
    const { entries, digestRows } = this.#options;
    await entries.prefetch("block", ids);
    const places = ids.map((id) => this.#standingOf(id) === "patchable");
    const rows = await digestRows.tryLoad(ids.filter((_, index) => places[index]));
    if (rows === undefined) return ids.map(() => undefined);
    let at = 0;
    return places.map((isPatchable) => {
      if (!isPatchable) return undefined;
      at += digestRowBytes;
      return rows.subarray(at - digestRowBytes, at);
    });
  }

  #standingOf(baseId: Uint8Array): "zero" | "patchable" | "other" {
    if (isZeroId(baseId)) return "zero";
    return this.#depthToStandOn("block", baseId) === undefined ? "other" : "patchable";
  }

  /** Undefined when what packs say of granules is damaged: then content has to tell. */
  async #toChangeJob(sent: SentGranules, unseen: readonly UnseenChange[]): Promise<Omit<ChangeJob, "out"> | undefined> {
    const blocks = new Uint32Array(unseen.length * changeBlock.count);
    const rows = new Uint8Array(unseen.length * digestRowBytes);
    const standing = [...unseen.keys()].filter((order) => unseen[order]?.forms !== changeForms.full);
    const loaded = await this.#options.digestRows.tryLoad(standing.map((order) => unseen[order]?.baseId ?? zeroId));
    if (loaded === undefined) return undefined;
    for (const [place, order] of standing.entries())
      rows.set(loaded.subarray(place * digestRowBytes, (place + 1) * digestRowBytes), order * digestRowBytes);
    for (const [order, { first, granuleCount, forms }] of unseen.entries())
      blocks.set([first, granuleCount, forms], order * changeBlock.count);
    return {
      body: sent.bytes,
      isPacked: sent.packing === "zstd",
      granuleCount: sent.granules.length,
      digest: sent.digest,
      blocks,
      indexes: Uint8Array.from(sent.granules, (granule) => granule % granulesPerBlock),
      rows,
      baseIds: Buffer.concat(unseen.map(({ baseId }) => baseId)),
    };
  }

  /** Their new ids; undefined for one that could not be stored, because its base has moved to another pack under way meanwhile. */
  async #storeChanged(unseen: readonly UnseenChange[], answer: Uint32Array, out: Uint8Array): Promise<readonly (Uint8Array | undefined)[]> {
    const ids = unseen.map((_, order) => Uint8Array.from(changedIdAt(out, order)));
    await this.#options.entries.prefetch("block", ids);
    const results: (Uint8Array | undefined)[] = [];
    let places: number[] = [];
    const sealings: Promise<void>[] = [];
    const startSealing = (): void => {
      if (places.length > 0) sealings.push(handled(this.#seal(Uint32Array.from(places), out)));
      places = [];
    };
    for (const [order, { baseId }] of unseen.entries()) {
      const [outcome = 0, at = 0, length = 0, isPacked = 0, mask = 0] = answer.subarray(order * changeResult.count);
      const id = ids[order] ?? zeroId;
      if (outcome === changeOutcomes.same || outcome === changeOutcomes.zero) {
        results.push(id);
        continue;
      }
      while (!this.#open.builder.hasRoom(length)) {
        startSealing();
        await this.#closePack();
      }
      this.throwIfFailed();
      const row = changedRowAt(out, order);
      const method = isPacked === 1 ? "zstd" : "raw";
      const isPatch = outcome === changeOutcomes.patch;
      const basis = isPatch ? { baseId, digests: digestsOfPatch(row, mask) } : { digests: digestsOfFull(row.slice()) };
      const offset = this.#reserveChanged({ id, method, length, ...basis });
      results.push(offset === "base moved" ? undefined : id);
      if (typeof offset === "number") places.push(at, length, isPacked, offset);
    }
    startSealing();
    await Promise.all(sealings);
    return results;
  }

  #reserveChanged(change: {
    readonly id: Uint8Array;
    readonly method: "raw" | "zstd";
    readonly length: number;
    readonly baseId?: Uint8Array;
    readonly digests: EntryDigests;
  }): number | "stored" | "base moved" {
    const { id, method, length, baseId, digests } = change;
    if (this.isStored("block", id)) return "stored";
    const baseDepth = baseId === undefined ? -1 : this.#depthToStandOn("block", baseId);
    if (baseDepth === undefined) return "base moved";
    const form = baseId === undefined ? { form: "full" as const } : { form: "patch" as const, baseId };
    const row = this.#open.builder.reserve({ id, kind: "block", method, depth: baseDepth + 1, ...form }, length, digests);
    this.#options.entries.addEntry(row, this.#open.pack);
    return row.offset;
  }

  async #seal(places: Uint32Array, body: Uint8Array): Promise<void> {
    const { pack, builder, sealHead } = this.#open;
    const { blockPool, secret } = this.#options;
    try {
      await builder.fill(async (memory) => await blockPool.seal({ body, places, pack: memory, secret, packKey: pack.key, sealHead }));
    } catch (error) {
      this.#failure ??= { error };
      throw error;
    }
  }

  /**
   * Stores full blocks with the bytes that their sender gave, once these were checked, maybe in other threads. Resolves when
   * all are checked; a block that does not fit its id breaks the whole point, and `damaged` makes the fault of it.
   */
  async storeSent(blocks: readonly SentBlock[], damaged: (block: SentBlock) => Fault): Promise<void> {
    let group: Filling[] = [];
    const fillings: Promise<void>[] = [];
    const startFilling = (): void => {
      if (group.length > 0) fillings.push(handled(this.#fill(group, damaged)));
      group = [];
    };
    for (const block of blocks) {
      while (!this.#open.builder.hasRoom(block.bytes.length)) {
        startFilling();
        await this.#closePack();
      }
      this.throwIfFailed();
      group.push({ block, ...this.#reserve(block) });
    }
    startFilling();
    await Promise.all(fillings);
  }

  #reserve({ id, bytes, packing }: SentBlock): Omit<Filling, "block"> {
    if (this.isStored("block", id)) return { packOffset: checkOnly, ordinal: -1 }; // By another call meanwhile, or by another machine.
    const { pack, builder } = this.#open;
    const row = builder.reserve({ id, kind: "block", form: "full", depth: 0, method: packing }, bytes.length);
    const ordinal = pack.entryCount;
    this.#options.entries.addEntry(row, pack);
    return { packOffset: row.offset, ordinal };
  }

  async #fill(group: readonly Filling[], damaged: (block: SentBlock) => Fault): Promise<void> {
    const { pack, builder, sealHead } = this.#open;
    const { blockPool, secret } = this.#options;
    const { body, places } = placesOf(group);
    const ids = Buffer.concat(group.map(({ block }) => block.id));
    try {
      await builder.fill(async (memory) => {
        const { bad, rows } = await blockPool.fillPack({ body, places, ids, pack: memory, secret, packKey: pack.key, sealHead });
        const block = group[bad]?.block;
        if (block !== undefined) throw damaged(block);
        for (const [index, { ordinal }] of group.entries())
          if (ordinal >= 0) builder.setDigests(ordinal, digestsOfFull(rows.subarray(index * digestRowBytes, (index + 1) * digestRowBytes)));
      });
    } catch (error) {
      this.#failure ??= { error };
      throw error;
    }
  }

  /**
   * Depth of an entry that a patch may stand on: durable, or in the open pack. Packs become durable in any order, so a
   * base in another pack under way could be missing after a crash while the patch on it is there.
   */
  #depthToStandOn(kind: EntryKind, baseId: Uint8Array): number | undefined {
    const base = this.#options.claims.claim(kind, baseId);
    if (base === undefined || base.depth >= depthMax) return undefined;
    return base.pack === this.#open.pack || base.pack.state === "stored" ? base.depth : undefined;
  }

  /** The open pack has room for `plain`; nothing is awaited between that and this. */
  #append(
    entry: Pick<PackRow, "id" | "kind" | "form" | "depth" | "baseId">,
    { plain, packing, digests }: { readonly plain: Uint8Array; readonly packing: "raw" | "zstd"; readonly digests: EntryDigests },
  ): void {
    this.throwIfFailed();
    if (this.isStored(entry.kind, entry.id)) return; // By another call meanwhile, or by another machine.
    const packed = packing === "zstd" ? plain : compressEntry(plain);
    const row = this.#open.builder.append({ ...entry, method: packed === undefined ? "raw" : "zstd" }, packed ?? plain, digests);
    this.#options.entries.addEntry(row, this.#open.pack);
  }

  /**
   * Closes the open pack and returns when all packs are durable. Nothing may be stored at the same time. `pointText` goes into the last
   * pack, if there is one.
   */
  async finish(pointText: (packIds: readonly PackId[]) => string): Promise<void> {
    while (!this.#open.builder.isEmpty) {
      this.#lastText = pointText([...this.packIds, this.#open.pack.packId]);
      await this.#closePack();
    }
    await this.#closing;
    while (this.#uploads.size > 0) await Promise.all(this.#uploads);
    this.throwIfFailed();
  }

  /** Gives up what is not durable yet; after finish() there is nothing left to give up. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort(new Error("the point was given up"));
    await this.#closing?.catch(() => undefined); // Told to its callers.
    while (this.#uploads.size > 0) await Promise.all(this.#uploads);
    const { entries } = this.#options;
    for (const pack of this.#packs) if (pack.state === "pending") entries.dropPack(pack);
    entries.dropRemoved(this.#open.pack); // It never left.
  }

  /** Hands the open pack to the queue and begins the next. Calls at the same time share one closing. */
  async #closePack(): Promise<void> {
    this.throwIfFailed();
    const before = this.#closing;
    if (before !== undefined) return await before;
    this.#closing = this.#handOver().finally(() => (this.#closing = undefined));
    this.#closing.catch(() => undefined); // Kept as the failure that every later call throws.
  }

  async #handOver(): Promise<void> {
    const { pack, builder } = this.#open;
    assert(!builder.isEmpty, "an empty pack is not closed");
    this.#packs.push(pack);
    this.#open = this.#begin();
    try {
      pack.entryBytes = builder.entryBytes;
      const { bytes, digestBytes } = await builder.finish(this.#lastText);
      pack.digestBytes = digestBytes;
      pack.sizeBytes = bytes.length;
      this.#storedBytes += bytes.length;
      const { uploaded, released } = await this.#options.queue.accept(pack, bytes, this.#abort.signal);
      void released.then(
        () => this.#freeMemories.push(builder.memory),
        () => undefined, // Told by `uploaded`; the memory is given up.
      );
      const tracked: Promise<void> = uploaded
        .catch((error: unknown) => void (this.#failure ??= { error }))
        .finally(() => this.#uploads.delete(tracked));
      this.#uploads.add(tracked);
    } catch (error) {
      this.#failure ??= { error };
      throw error;
    }
  }

  #begin(): OpenPack {
    const { random, entries, claims, clock, secret, packBytes } = this.#options;
    const { areaId, machineId: ownerId } = claims;
    const packId = parsePackId(random.uuid());
    const key = packKeyOf(areaId, packId);
    const sealHead = newSealHead(secret, random.bytes(saltBytes));
    const sealer = createNewSealer(secret, key, sealHead);
    const writtenAtMs = clock.nowMs();
    const target = { key, ownerId, writtenAtMs, sealHead, sealer, entryBytesMax: packBytes, memory: this.#freeMemories.pop() };
    const builder = new PackBuilder(target);
    const pack: Pack = {
      ...{ packId, key, areaId, ownerId, writtenAtMs, sealer, sealHead, ...unnumbered, writer: claims },
      sizeBytes: 0,
      entryBytes: 0,
      digestBytes: 0,
      pendingDigests: async () => await builder.digests(),
      state: "pending",
      read: async (offset, length) => await builder.read(offset, length),
    };
    entries.addPack(pack);
    return { pack, builder, sealHead };
  }
}

function rowOf(block: Uint8Array): Uint8Array {
  const row = new Uint8Array(digestRowBytes);
  digestGranules(block, row);
  return row;
}

function maskOf(changed: readonly ChangedGranule[]): number {
  return changed.reduce((mask, { index }) => mask | (1 << index), 0);
}

/** The same task, whose failure ends nothing by itself: who started it may fail before it is awaited, and it is kept as the writer's failure. */
function handled(task: Promise<void>): Promise<void> {
  task.catch(() => undefined);
  return task;
}

/** Where each block lies in the memory that all of them share; blocks that do not are brought together. */
function placesOf(group: readonly Filling[]): {
  readonly body: Uint8Array;
  readonly places: Uint32Array;
} {
  const places = new Uint32Array(group.length * fillPlace.count);
  const memory = group[0]?.block.bytes.buffer;
  const isTogether = memory !== undefined && group.every(({ block }) => block.bytes.buffer === memory);
  let used = 0;
  for (const [index, { block, packOffset }] of group.entries()) {
    const at = isTogether ? block.bytes.byteOffset : used;
    places.set([at, block.bytes.length, block.packing === "zstd" ? 1 : 0, packOffset], index * fillPlace.count);
    used += block.bytes.length;
  }
  return { body: isTogether ? new Uint8Array(memory) : Buffer.concat(group.map(({ block }) => block.bytes)), places };
}
