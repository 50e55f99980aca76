// Opens a vault over a store: the writing side for the appliance, the reading side for everyone.

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { Fault } from "../contract/errors.ts";
import { parseAreaId, parsePointId, type AreaId, type DiskId, type MachineId, type PointId, type VaultId } from "../contract/ids.ts";
import type { Disk } from "../disk/disk.ts";
import { blockCountOf, diskBytesMax, idsPerPage } from "../disk/geometry.ts";
import { idFromHex, toHex, zeroId } from "../disk/digest.ts";
import { findPagePath } from "../disk/page-tree.ts";
import { differingBlocks, type DifferingBlock } from "../disk/tree-difference.ts";
import type { Store } from "../store/store.ts";
import { ContentCache } from "./content-cache.ts";
import { EntryWriter } from "./entry-writer.ts";
import { BlockPool } from "./block-pool.ts";
import { DigestCache, DigestRows } from "./digest-rows.ts";
import { Entries } from "./entries.ts";
import { EntryReader } from "./entry-reader.ts";
import { PackQueue, type SpoolOptions } from "./pack-queue.ts";
import { ReadPool } from "./read-pool.ts";
import { PointCatalogue } from "./point-catalogue.ts";
import { PointClaims } from "./point-claims.ts";
import { encodePoint, pointKeyOf, type StoredPoint } from "./point-format.ts";
import { VaultPointWriter, type WriterDisk } from "./point-writer.ts";
import { renewSecret, toVaultSecret, type VaultKeys, type VaultSecret } from "./sealing.ts";
import { findLostPoints, type LostPoint } from "./lost-points.ts";
import { verify } from "./verify.ts";
import { Maintenance } from "./maintenance.ts";
import { countSeals, type CountOptions, type SealCensus } from "./seal-census.ts";
import { placeHold, releaseHold } from "./point-holds.ts";
import type {
  CollectionOptions,
  CollectionReport,
  PointDisk,
  PointWriter,
  RecoveryPoint,
  Vault,
  VaultReader,
  VerificationReport,
  VerifyOptions,
} from "./vault.ts";
import { VaultDisk } from "./vault-disk.ts";

export interface VaultReaderOptions {
  readonly store: Store;
  readonly vaultId: VaultId;
  /** 32 bytes, or several by their generation. Secret. */
  readonly key: Uint8Array | VaultKeys;
  /** Memory for checked blocks; 64 MiB unless told. */
  readonly blockCacheBytesMax?: number;
  /** Stored blocks and pages that are known; 64 Mi without indexFolder, 2 Gi with one, unless told. */
  readonly entriesMax?: number;
  /** Local folder where the index of what is stored lies, this process's alone; without it all of the index is in memory. */
  readonly indexFolder?: string;
  /** Entries in memory before they go to the folder; 128 Ki unless told. */
  readonly indexTableMax?: number;
  /** Threads that open, check and seal blocks, started when they are needed; 0 unless told: all work is done in the caller's thread. */
  readonly blockThreads?: number;
}

export interface VaultOptions extends VaultReaderOptions {
  /** What this process writes, and what nobody else writes meanwhile: the appliance's id; the vault's own id unless told. */
  readonly areaId?: AreaId;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Where packs wait for their upload; without it only as many as uploadsMax wait, in memory. */
  readonly spool?: SpoolOptions;
  /** Uploads at once; 4 unless told. */
  readonly uploadsMax?: number;
  /** Entries of one pack; 64 MiB unless told. */
  readonly packBytes?: number;
}

const packBytesDefault = 64 << 20;
/** Holds the digests of about 60 packs. */
const digestCacheBytesMax = 64 << 20;

type BeginOptions = Parameters<Vault["beginPoint"]>[0];

/** The vault does not own the store: close the store after it. */
export async function openVault(options: VaultOptions): Promise<Vault> {
  const queue = await PackQueue.open(options);
  return new OpenVault(options, await openParts(options), queue);
}

/** A reader sees what a writer elsewhere has sealed, as soon as it asks for it. */
export async function openVaultReader(options: VaultReaderOptions): Promise<VaultReader> {
  return new OpenReader(options, await openParts(options));
}

interface ReaderParts {
  readonly secret: VaultSecret;
  readonly entries: Entries;
}

async function openParts({ vaultId, key, store, ...rest }: VaultReaderOptions): Promise<ReaderParts> {
  const secret = toVaultSecret(vaultId, key);
  return { secret, entries: await Entries.open({ store, secret, ...rest }) };
}

class OpenReader implements VaultReader {
  protected readonly store: Store;
  protected readonly secret: VaultSecret;
  protected readonly catalogue: PointCatalogue;
  protected readonly entries: Entries;
  protected readonly blockPool: BlockPool;
  readonly #digestCache = new DigestCache(digestCacheBytesMax);
  readonly #cache: ContentCache;
  readonly #readPool: ReadPool;

  constructor(options: VaultReaderOptions, { secret, entries }: ReaderParts) {
    this.store = options.store;
    this.secret = secret;
    this.entries = entries;
    this.blockPool = new BlockPool(options.blockThreads ?? 0);
    this.#readPool = new ReadPool({ threadCount: options.blockThreads ?? 0, store: options.store, secret });
    this.catalogue = new PointCatalogue(options.store, this.secret);
    this.#cache = new ContentCache(options.blockCacheBytesMax ?? 64 << 20);
  }

  async *listPoints(machineId?: MachineId): AsyncGenerator<RecoveryPoint, void, undefined> {
    for await (const { point } of this.catalogue.list(machineId)) yield point;
  }

  async point(pointId: PointId): Promise<RecoveryPoint | undefined> {
    return (await this.catalogue.find(pointId))?.point;
  }

  async holdPoint(pointId: PointId, holdId: string): Promise<boolean> {
    const stored = await this.catalogue.find(pointId);
    return stored !== undefined && (await placeHold({ store: this.store, machineId: stored.point.machineId, pointId }, holdId));
  }

  async releasePoint(pointId: PointId, holdId: string): Promise<void> {
    const stored = await this.catalogue.find(pointId);
    if (stored !== undefined) await releaseHold({ store: this.store, machineId: stored.point.machineId, pointId }, holdId);
  }

  async verify(options: VerifyOptions = {}): Promise<VerificationReport> {
    const { machineId, pointId } = options;
    const points: StoredPoint[] = [];
    if (pointId === undefined) for await (const stored of this.catalogue.list(machineId)) points.push(stored);
    else {
      const stored = await this.catalogue.find(pointId);
      if (stored === undefined)
        throw new Fault("NotFound", "could not verify a recovery point: the vault has no such point", { evidence: { pointId } });
      points.push(stored);
    }
    const { entries } = this;
    const digestRowsOf = (areaIds: readonly AreaId[]): DigestRows => this.digestRowsOf(areaIds);
    const parts = { entries, readerOf: (areaIds: readonly AreaId[]) => this.readerOf(areaIds), digestRowsOf, points };
    return await verify(parts, options);
  }

  async useKeys(keys: VaultKeys): Promise<void> {
    renewSecret(this.secret, keys);
    return await Promise.resolve();
  }

  async countSeals(options: CountOptions = {}): Promise<SealCensus> {
    return await countSeals(this.store, this.entries.packs, options);
  }

  async openDisk(pointId: PointId, diskId: DiskId): Promise<Disk> {
    const { stored, disk } = await this.#findDisk(pointId, diskId);
    return new VaultDisk(
      {
        reader: this.readerOf(stored.areaIds),
        entries: this.entries,
        pool: this.#readPool,
        digestRows: this.digestRowsOf(stored.areaIds),
      },
      disk,
    );
  }

  async pagesTo(pointId: PointId, diskId: DiskId, block: number): Promise<readonly Uint8Array[]> {
    const { stored, disk } = await this.#findDisk(pointId, diskId);
    const reader = this.readerOf(stored.areaIds);
    const loadPage = async (id: Uint8Array): Promise<Uint8Array> => await reader.load("page", id);
    const tree = { root: idFromHex(disk.root), blockCount: blockCountOf(disk.sizeBytes), loadPage };
    return await findPagePath(tree, Math.floor(block / idsPerPage));
  }

  async *differingBlocks(
    { from, to }: { readonly from: PointId; readonly to: PointId },
    diskId: DiskId,
  ): AsyncGenerator<DifferingBlock, void, undefined> {
    const [one, other] = [await this.#findDisk(from, diskId), await this.#findDisk(to, diskId)];
    if (one.disk.sizeBytes !== other.disk.sizeBytes)
      throw new Fault("InputInvalid", "could not compare a disk of two points: it has different sizes", { evidence: { from, to, diskId } });
    const reader = this.readerOf([...new Set([...one.stored.areaIds, ...other.stored.areaIds])]);
    const [before, after] = [idFromHex(one.disk.root), idFromHex(other.disk.root)];
    const loadPage = async (id: Uint8Array): Promise<Uint8Array> => await reader.load("page", id);
    yield* differingBlocks({ before, after, blockCount: blockCountOf(one.disk.sizeBytes), loadPage });
  }

  async #findDisk(pointId: PointId, diskId: DiskId): Promise<{ readonly stored: StoredPoint; readonly disk: PointDisk }> {
    const stored = await this.catalogue.find(pointId);
    const disk = stored?.point.disks.find((each) => each.diskId === diskId);
    if (stored !== undefined && disk !== undefined) return { stored, disk };
    const what = stored === undefined ? "recovery point" : "disk in it";
    throw new Fault("NotFound", `could not open a disk: the vault has no such ${what}`, { evidence: { pointId, diskId } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#readPool[Symbol.asyncDispose]();
    await this.blockPool[Symbol.asyncDispose]();
    await this.entries[Symbol.asyncDispose]();
  }

  protected digestRowsOf(areaIds: readonly AreaId[]): DigestRows {
    return new DigestRows({ entries: this.entries, cache: this.#digestCache, areaIds });
  }

  protected readerOf(areaIds: readonly AreaId[]): EntryReader {
    return new EntryReader({ entries: this.entries, cache: this.#cache, areaIds, pool: this.blockPool, secret: this.secret });
  }
}

class OpenVault extends OpenReader implements Vault {
  readonly #options: VaultOptions;
  readonly #queue: PackQueue;
  readonly #areaId: AreaId;
  readonly #maintenance: Maintenance;
  /** Machines with a point under way, or that are being removed. */
  readonly #busy = new Map<MachineId, PointWriter | "removing" | "beginning">();

  constructor(options: VaultOptions, parts: ReaderParts, queue: PackQueue) {
    super(options, parts);
    this.#options = options;
    this.#queue = queue;
    this.#areaId = options.areaId ?? parseAreaId(options.vaultId);
    const { store, secret, entries, catalogue } = this;
    const { clock, log, random, packBytes = packBytesDefault } = options;
    const maker = { packBytes, random, secret };
    const readerOf = (areaIds: readonly AreaId[]): EntryReader => this.readerOf(areaIds);
    this.#maintenance = new Maintenance({ store, areaId: this.#areaId, entries, catalogue, clock, log, maker, readerOf });
  }

  async beginPoint(options: BeginOptions): Promise<PointWriter> {
    const { machineId, parentPointId } = options;
    this.#occupy(machineId, "beginning");
    using undone = new DisposableStack();
    if (parentPointId !== undefined) undone.use(await this.#maintenance.holdParent(parentPointId));
    try {
      if ((await this.catalogue.get(machineId, options.pointId)) !== undefined)
        throw new Fault("StateConflict", "could not begin a recovery point: it is sealed already", {
          evidence: { pointId: options.pointId },
          retry: "never",
        });
      const parent = parentPointId === undefined ? undefined : await this.catalogue.get(machineId, parentPointId);
      const disks = startDisks(options, parent?.point);
      await this.entries.prepare([this.#areaId]);
      const writer = this.#createWriter(options, { disks, parent, held: undone.move() });
      this.#busy.set(machineId, writer);
      return writer;
    } catch (error) {
      this.#busy.delete(machineId);
      throw error;
    }
  }

  #createWriter(
    options: BeginOptions,
    start: { readonly disks: readonly WriterDisk[]; readonly parent: StoredPoint | undefined; readonly held: Disposable },
  ): PointWriter {
    const { disks, parent, held } = start;
    const { machineId, pointId, parentPointId } = options;
    const { random, clock, packBytes = packBytesDefault } = this.#options;
    const [areaId, entries, queue, blockPool] = [this.#areaId, this.entries, this.#queue, this.blockPool];
    const areaIds = [...new Set([areaId, ...(parent?.areaIds ?? [])])];
    const reader = this.readerOf(areaIds);
    const claims = new PointClaims({ entries, areaId, machineId });
    this.#maintenance.beginClaims(claims);
    const digestRows = this.digestRowsOf(areaIds);
    const writer = new EntryWriter({ entries, digestRows, claims, queue, clock, secret: this.secret, random, packBytes, blockPool });
    const basis = parentPointId === undefined ? {} : { parentPointId };
    return new VaultPointWriter({
      entries,
      reader,
      claims,
      writer,
      disks,
      scratch: { folder: this.#options.indexFolder, name: `ids-${pointId}` },
      compose: (sealed, facts) => {
        const point: RecoveryPoint = { pointId: parsePointId(pointId), machineId, ...facts, ...basis, disks: sealed };
        const sealedAtMs = clock.nowMs();
        return (packIds) => ({ point, packIds, areaIds, sealedAtMs });
      },
      seal: async (stored) => {
        const bytes = encodePoint(this.secret, random, stored);
        await this.store.put(pointKeyOf(machineId, pointId), bytes);
        this.catalogue.add({ ...stored, generation: this.secret.current });
        this.#maintenance.noteSealed(stored);
        return bytes.length;
      },
      onClose: () => {
        this.#maintenance.endClaims(claims);
        held[Symbol.dispose]();
        this.#busy.delete(machineId);
      },
    });
  }

  override async useKeys(keys: VaultKeys): Promise<void> {
    await this.#maintenance.useKeys(keys);
  }

  hasOlderSeals(): boolean {
    return this.#maintenance.hasOlderSeals();
  }

  async removeMachine(machineId: MachineId): Promise<{ readonly freedBytes: number }> {
    this.#occupy(machineId, "removing");
    try {
      return await this.#maintenance.removeMachine(machineId);
    } finally {
      this.#busy.delete(machineId);
    }
  }

  async removePoint(machineId: MachineId, pointId: PointId): Promise<"removed" | "held"> {
    return await this.#maintenance.removePoint(machineId, pointId);
  }

  async *listLostPoints(): AsyncGenerator<{ readonly point: RecoveryPoint; readonly isWhole: boolean }, void, undefined> {
    for await (const { stored, isWhole } of this.#findLost()) yield { point: stored.point, isWhole };
  }

  async restoreLostPoint(pointId: PointId): Promise<RecoveryPoint> {
    for await (const { stored, isWhole } of this.#findLost()) {
      if (stored.point.pointId !== pointId || !isWhole) continue;
      await this.store.put(pointKeyOf(stored.point.machineId, pointId), encodePoint(this.secret, this.#options.random, stored));
      return stored.point;
    }
    throw new Fault("NotFound", "could not restore a recovery point: no pack tells of it, or what it relies on is not all there", {
      evidence: { pointId },
    });
  }

  #findLost(): AsyncGenerator<LostPoint, void, undefined> {
    const { store, secret, entries, catalogue } = this;
    return findLostPoints({ store, secret, entries, catalogue, readerOf: (areaIds) => this.readerOf(areaIds) });
  }

  async collect(options: CollectionOptions = {}): Promise<CollectionReport> {
    return await this.#maintenance.collect(options);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    for (const writer of this.#busy.values()) if (typeof writer !== "string") await writer[Symbol.asyncDispose]();
    await super[Symbol.asyncDispose]();
  }

  #occupy(machineId: MachineId, purpose: "removing" | "beginning"): void {
    if (this.#busy.has(machineId))
      throw new Fault(
        "StateConflict",
        "could not use a machine's part of the vault: a recovery point of it is under way or it is being removed",
        {
          evidence: { machineId },
        },
      );
    this.#busy.set(machineId, purpose);
  }
}

/** The disks with the trees that they start from. */
function startDisks({ disks, parentPointId, machineId }: BeginOptions, parent: RecoveryPoint | undefined): WriterDisk[] {
  if (parentPointId !== undefined && parent === undefined)
    throw new Fault("NotFound", "could not begin a recovery point: the machine has no such earlier point", {
      evidence: { parentPointId, machineId },
    });
  if (new Set(disks.map(({ diskId }) => diskId)).size !== disks.length)
    throw new Fault("InputInvalid", "could not begin a recovery point: a disk is named twice", { evidence: { machineId } });
  return disks.map((disk) => {
    const before = parent?.disks.find(({ diskId }) => diskId === disk.diskId);
    if (!(disk.sizeBytes > 0 && disk.sizeBytes <= diskBytesMax) || (before !== undefined && before.sizeBytes > disk.sizeBytes))
      throw new Fault("InputInvalid", "could not begin a recovery point: a disk is empty, too large, or smaller than in the point before", {
        evidence: { diskId: disk.diskId, sizeBytes: disk.sizeBytes, diskBytesMax, sizeBytesBefore: before?.sizeBytes ?? 0 },
        action: "begin without an earlier point, that is with a full copy",
      });
    return { ...disk, parent: { root: before?.root ?? toHex(zeroId), sizeBytes: before?.sizeBytes ?? disk.sizeBytes } };
  });
}
