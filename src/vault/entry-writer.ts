// Stores the entries of one point under way: packs fill, close and travel; nothing is stored twice.

import { assert } from "../base/assert.ts";
import type { Random } from "../base/random.ts";
import type { Clock } from "../base/clock.ts";
import type { Fault } from "../contract/errors.ts";
import { parsePackId, type PackId } from "../contract/ids.ts";
import { zeroId } from "../disk/digest.ts";
import type { Entries } from "./entries.ts";
import type { EntryReader } from "./entry-reader.ts";
import { packKeyOf, unnumbered, type Pack } from "./pack.ts";
import { PackBuilder } from "./pack-builder.ts";
import type { PackRow } from "./pack-format.ts";
import type { PointClaims } from "./point-claims.ts";
import type { PackQueue } from "./pack-queue.ts";
import { checkOnly, fillPlace } from "./fill-pack.ts";
import type { BlockPool } from "./block-pool.ts";
import { depthMax, encodePatch, type ChangedGranule, type EntryKind } from "./patch.ts";
import { createNewSealer, newSealHead, saltBytes, type SealHead, type VaultSecret } from "./sealing.ts";
import type { PatchResult, StoredBlock } from "./patch-work.ts";
import type { SentBlock } from "./vault.ts";
import { compressEntry } from "./zstd.ts";

export interface EntryWriterOptions {
  readonly entries: Entries;
  readonly reader: EntryReader;
  readonly claims: PointClaims;
  readonly clock: Clock;
  readonly queue: PackQueue;
  readonly secret: VaultSecret;
  readonly random: Random;
  readonly packBytes: number;
  readonly blockPool: BlockPool;
}

/** Changed blocks of one point that are kept at hand: 32 MiB. */
const rememberedMax = 512;
const noContent = new Uint8Array(0);

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
  #rememberedCount = 0;
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
    if (patch !== undefined && base !== undefined && baseDepth !== undefined)
      return this.#append({ id, kind, form: "patch", depth: baseDepth + 1, baseId: base.id }, patch);
    while (!this.#open.builder.hasRoom(content.length)) await this.#closePack();
    this.#append({ id, kind, form: "full", depth: 0 }, content);
  }

  /** Stores a full block from the zstd frame that the caller has unpacked and checked. */
  async storeFrame(id: Uint8Array, frame: Uint8Array): Promise<void> {
    while (!this.#open.builder.hasRoom(frame.length)) await this.#closePack();
    this.#append({ id, kind: "block", form: "full", depth: 0 }, frame, "zstd");
  }

  /**
   * Changes granules of a stored block, maybe in another thread, and stores the result; answers the new id. Undefined when it could
   * not be stored, because its base has moved to another pack under way meanwhile.
   */
  async change(base: StoredBlock, granules: readonly ChangedGranule[]): Promise<Uint8Array | undefined> {
    const { entries, reader, blockPool } = this.#options;
    const mayPatch = this.#depthToStandOn("block", base.id) !== undefined;
    const result = await blockPool.patch({ base, granules, mayPatch }, (seen) => this.#keepResult(seen));
    if (result.kind === "damaged") throw await reader.damagedBlock(base.id);
    if (result.kind !== "changed") return result.kind === "zero" ? zeroId : base.id;
    while (!this.#open.builder.hasRoom(result.bytes.length)) await this.#closePack();
    this.throwIfFailed();
    if (!this.isStored("block", result.id)) {
      const { id, form, method, bytes } = result;
      const baseDepth = form === "full" ? -1 : this.#depthToStandOn("block", base.id);
      if (baseDepth === undefined) return undefined;
      const basis = form === "full" ? {} : { baseId: base.id };
      const row = this.#open.builder.append({ id, kind: "block", form, method, depth: baseDepth + 1, ...basis }, bytes);
      entries.addEntry(row, this.#open.pack);
    }
    return result.id;
  }

  /** Copies what is needed of a result; its content too, while few were changed: what changed now is likely to change again. */
  #keepResult(result: PatchResult): PatchResult {
    if (result.kind !== "changed") return result;
    const id = Uint8Array.from(result.id);
    if (this.#rememberedCount < rememberedMax) {
      this.#rememberedCount += 1;
      this.#options.reader.remember("block", id, Buffer.from(result.content));
    }
    return { ...result, id, bytes: Uint8Array.from(result.bytes), content: noContent };
  }

  /**
   * Stores full blocks with the bytes that their sender gave, once these were checked, maybe in other threads. Resolves when
   * all are checked; a block that does not fit its id breaks the whole point, and `damaged` makes the fault of it.
   */
  async storeSent(blocks: readonly SentBlock[], damaged: (block: SentBlock) => Fault): Promise<void> {
    let group: { readonly block: SentBlock; readonly packOffset: number }[] = [];
    const fillings: Promise<void>[] = [];
    const startFilling = (): void => {
      if (group.length > 0) fillings.push(this.#fill(group, damaged));
      group = [];
    };
    for (const block of blocks) {
      while (!this.#open.builder.hasRoom(block.bytes.length)) {
        startFilling();
        await this.#closePack();
      }
      this.throwIfFailed();
      group.push({ block, packOffset: this.#reserve(block) });
    }
    startFilling();
    await Promise.all(fillings);
  }

  #reserve({ id, bytes, packing }: SentBlock): number {
    if (this.isStored("block", id)) return checkOnly; // By another call meanwhile, or by another machine.
    const row = this.#open.builder.reserve({ id, kind: "block", form: "full", depth: 0, method: packing }, bytes.length);
    this.#options.entries.addEntry(row, this.#open.pack);
    return row.offset;
  }

  async #fill(
    group: readonly { readonly block: SentBlock; readonly packOffset: number }[],
    damaged: (block: SentBlock) => Fault,
  ): Promise<void> {
    const { pack, builder, sealHead } = this.#open;
    const { blockPool, secret } = this.#options;
    const { body, places } = placesOf(group);
    const ids = Buffer.concat(group.map(({ block }) => block.id));
    try {
      await builder.fill(async (memory) => {
        const bad = await blockPool.fillPack({ body, places, ids, pack: memory, secret, packKey: pack.key, sealHead });
        const block = group[bad]?.block;
        if (block !== undefined) throw damaged(block);
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
  #append(entry: Pick<PackRow, "id" | "kind" | "form" | "depth" | "baseId">, plain: Uint8Array, packing: "raw" | "zstd" = "raw"): void {
    this.throwIfFailed();
    if (this.isStored(entry.kind, entry.id)) return; // By another call meanwhile, or by another machine.
    const packed = packing === "zstd" ? plain : compressEntry(plain);
    const row = this.#open.builder.append({ ...entry, method: packed === undefined ? "raw" : "zstd" }, packed ?? plain);
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
      const bytes = await builder.finish(this.#lastText);
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
      state: "pending",
      read: async (offset, length) => await builder.read(offset, length),
    };
    entries.addPack(pack);
    return { pack, builder, sealHead };
  }
}

/** Where each block lies in the memory that all of them share; blocks that do not are brought together. */
function placesOf(group: readonly { readonly block: SentBlock; readonly packOffset: number }[]): {
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
