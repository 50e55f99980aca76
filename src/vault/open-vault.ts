// Opens a vault over a store: the writing side for the appliance, the reading side for everyone.

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import { parsePointId, type DiskId, type MachineId, type PackId, type PointId, type VaultId } from "../contract/ids.ts";
import type { Disk } from "../disk/disk.ts";
import { diskBytesMax } from "../disk/geometry.ts";
import { toHex, zeroId } from "../disk/digest.ts";
import type { Store } from "../store/store.ts";
import { ContentCache } from "./content-cache.ts";
import { EntryWriter } from "./entry-writer.ts";
import { BlockPool } from "./block-pool.ts";
import { MachineEntries } from "./machine-entries.ts";
import { packPrefixOf } from "./pack.ts";
import { PackQueue, type SpoolOptions } from "./pack-queue.ts";
import { encodePoint, pointKeyOf } from "./point-format.ts";
import { PointCatalogue } from "./point-catalogue.ts";
import { VaultPointWriter, type WriterDisk } from "./point-writer.ts";
import { vaultKeyBytes, type VaultSecret } from "./sealing.ts";
import type { PointDisk, PointWriter, RecoveryPoint, Vault, VaultReader } from "./vault.ts";
import { VaultDisk } from "./vault-disk.ts";

export interface VaultReaderOptions {
  readonly store: Store;
  readonly vaultId: VaultId;
  /** 32 bytes. Secret. */
  readonly key: Uint8Array;
  /** Memory for checked blocks; 64 MiB unless told. */
  readonly blockCacheBytesMax?: number;
  /** Stored blocks and pages that are known of one machine; 64 Mi unless told. */
  readonly entriesMax?: number;
}

export interface VaultOptions extends VaultReaderOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Where packs wait for their upload; without it only as many as uploadsMax wait, in memory. */
  readonly spool?: SpoolOptions;
  /** Uploads at once; 4 unless told. */
  readonly uploadsMax?: number;
  /** Entries of one pack; 64 MiB unless told. */
  readonly packBytes?: number;
  /** Threads that check and seal blocks, started when they are needed; 0 unless told: all work is done in the caller's thread. */
  readonly blockThreads?: number;
}

type BeginOptions = Parameters<Vault["beginPoint"]>[0];

/** The vault does not own the store: close the store after it. */
export async function openVault(options: VaultOptions): Promise<Vault> {
  return new OpenVault(options, await PackQueue.open(options));
}

/** A reader sees what a writer elsewhere has sealed, as soon as it asks for it. */
export async function openVaultReader(options: VaultReaderOptions): Promise<VaultReader> {
  return new OpenReader(options);
}

class OpenReader implements VaultReader {
  protected readonly store: Store;
  protected readonly secret: VaultSecret;
  protected readonly catalogue: PointCatalogue;
  readonly #options: VaultReaderOptions;
  readonly #cache: ContentCache;
  readonly #machines = new Map<MachineId, MachineEntries>();

  constructor(options: VaultReaderOptions) {
    assert(options.key.length === vaultKeyBytes, "a vault key has 32 bytes");
    this.#options = options;
    this.store = options.store;
    this.secret = { vaultId: options.vaultId, key: Uint8Array.from(options.key) };
    this.catalogue = new PointCatalogue(options.store, this.secret);
    this.#cache = new ContentCache(options.blockCacheBytesMax ?? 64 << 20);
  }

  listPoints(machineId?: MachineId): AsyncIterable<RecoveryPoint> {
    return this.catalogue.list(machineId);
  }

  async point(pointId: PointId): Promise<RecoveryPoint | undefined> {
    return await this.catalogue.find(pointId);
  }

  async openDisk(pointId: PointId, diskId: DiskId): Promise<Disk> {
    const point = await this.point(pointId);
    const disk = point?.disks.find((each) => each.diskId === diskId);
    if (point === undefined || disk === undefined)
      throw new Fault("NotFound", `could not open a disk: the vault has no such ${point === undefined ? "recovery point" : "disk in it"}`, {
        evidence: { pointId, diskId },
      });
    return new VaultDisk(this.entriesOf(point.machineId), disk);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What is open is memory only.
  }

  protected entriesOf(machineId: MachineId): MachineEntries {
    let entries = this.#machines.get(machineId);
    if (entries === undefined) {
      const { entriesMax } = this.#options;
      entries = new MachineEntries({
        store: this.store,
        secret: this.secret,
        machineId,
        cache: this.#cache,
        ...(entriesMax === undefined ? {} : { entriesMax }),
      });
      this.#machines.set(machineId, entries);
    }
    return entries;
  }

  protected forget(machineId: MachineId): void {
    this.#machines.delete(machineId);
  }
}

class OpenVault extends OpenReader implements Vault {
  readonly #options: VaultOptions;
  readonly #queue: PackQueue;
  readonly #blockPool: BlockPool;
  /** Machines with a point under way, or that are being removed. */
  readonly #busy = new Map<MachineId, PointWriter | "removing" | "beginning">();

  constructor(options: VaultOptions, queue: PackQueue) {
    super(options);
    this.#options = options;
    this.#queue = queue;
    this.#blockPool = new BlockPool(options.blockThreads ?? 0);
  }

  async beginPoint(options: BeginOptions): Promise<PointWriter> {
    const { machineId } = options;
    this.#occupy(machineId, "beginning");
    try {
      if ((await this.catalogue.get(machineId, options.pointId)) !== undefined)
        throw new Fault("StateConflict", "could not begin a recovery point: it is sealed already", {
          evidence: { pointId: options.pointId },
          retry: "never",
        });
      const disks = await this.#startDisks(options);
      const entries = this.entriesOf(machineId);
      await entries.prepare();
      const { random, packBytes = 64 << 20 } = this.#options;
      const [queue, blockPool] = [this.#queue, this.#blockPool];
      const entryWriter = new EntryWriter({ entries, queue, secret: this.secret, random, packBytes, blockPool });
      const writer = new VaultPointWriter({
        entries,
        writer: entryWriter,
        disks,
        seal: async (sealedDisks, facts) => await this.#seal(options, sealedDisks, facts, entryWriter.packIds),
        onClose: () => this.#busy.delete(machineId),
      });
      this.#busy.set(machineId, writer);
      return writer;
    } catch (error) {
      this.#busy.delete(machineId);
      throw error;
    }
  }

  async removeMachine(machineId: MachineId): Promise<{ readonly freedBytes: number }> {
    this.#occupy(machineId, "removing");
    try {
      let freedBytes = 0;
      for (const prefix of [`points/${machineId}/`, packPrefixOf(machineId)])
        for await (const { key, sizeBytes } of this.store.list(prefix)) {
          await this.store.remove(key);
          freedBytes += sizeBytes;
        }
      this.catalogue.forget(machineId);
      this.forget(machineId);
      return { freedBytes };
    } finally {
      this.#busy.delete(machineId);
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    for (const writer of this.#busy.values()) if (typeof writer !== "string") await writer[Symbol.asyncDispose]();
    await this.#blockPool[Symbol.asyncDispose]();
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

  /** The disks with the trees that they start from. */
  async #startDisks({ disks, parentPointId, machineId }: BeginOptions): Promise<WriterDisk[]> {
    const parent = parentPointId === undefined ? undefined : await this.catalogue.get(machineId, parentPointId);
    if (parentPointId !== undefined && parent === undefined)
      throw new Fault("NotFound", "could not begin a recovery point: the machine has no such earlier point", {
        evidence: { parentPointId, machineId },
      });
    if (new Set(disks.map(({ diskId }) => diskId)).size !== disks.length)
      throw new Fault("InputInvalid", "could not begin a recovery point: a disk is named twice", { evidence: { machineId } });
    return disks.map((disk) => {
      const before = parent?.disks.find(({ diskId }) => diskId === disk.diskId);
      if (!(disk.sizeBytes > 0 && disk.sizeBytes <= diskBytesMax) || (before !== undefined && before.sizeBytes > disk.sizeBytes))
        throw new Fault(
          "InputInvalid",
          "could not begin a recovery point: a disk is empty, too large, or smaller than in the point before",
          {
            evidence: { diskId: disk.diskId, sizeBytes: disk.sizeBytes, diskBytesMax, sizeBytesBefore: before?.sizeBytes ?? 0 },
            action: "begin without an earlier point, that is with a full copy",
          },
        );
      return { ...disk, parent: { root: before?.root ?? toHex(zeroId), sizeBytes: before?.sizeBytes ?? disk.sizeBytes } };
    });
  }

  async #seal(
    begun: BeginOptions,
    disks: readonly PointDisk[],
    facts: Pick<RecoveryPoint, "timeMs" | "consistency">,
    packIds: readonly PackId[],
  ): Promise<{ point: RecoveryPoint; storedBytes: number }> {
    const { pointId, machineId, parentPointId } = begun;
    const point: RecoveryPoint = {
      pointId: parsePointId(pointId),
      machineId,
      ...facts,
      ...(parentPointId === undefined ? {} : { parentPointId }),
      disks,
    };
    const bytes = encodePoint(this.secret, this.#options.random, { point, packIds });
    await this.store.put(pointKeyOf(machineId, pointId), bytes);
    this.catalogue.add(point);
    return { point, storedBytes: bytes.length };
  }
}
