// What a vault promises: recovery points over a store. Formats and write order: docs/design/vault-format.md.

import type { Disk } from "../disk/disk.ts";
import type { DifferingBlock } from "../disk/tree-difference.ts";
import type { CountOptions, SealCensus } from "./seal-census.ts";
import type { VaultKeys } from "./sealing.ts";
import type { DiskId, MachineId, PointId } from "../contract/ids.ts";

/** SHA-256 over the digests of a block's 16 granules (a short last block padded with zeros); 32 zero bytes for an all-zero block. */
export type BlockId = Uint8Array;

export interface PointDisk {
  readonly diskId: DiskId;
  readonly sizeBytes: number;
  readonly isBoot: boolean;
  /** Merkle root over the page tree, 64 hex digits. Equal disks have equal roots. */
  readonly root: string;
  /** Byte ranges that were not replicated and read as zeros. */
  readonly excluded: readonly { readonly offset: number; readonly length: number }[];
}

export interface RecoveryPoint {
  readonly pointId: PointId;
  readonly machineId: MachineId;
  /** The instant that the point shows, milliseconds since 1970. */
  readonly timeMs: number;
  readonly consistency: "crash" | "application" | "final";
  readonly parentPointId?: PointId;
  readonly disks: readonly PointDisk[];
}

/** Reading side; the hub and the appliance use it. */
export interface VaultReader extends AsyncDisposable {
  listPoints(machineId?: MachineId): AsyncIterable<RecoveryPoint>;
  point(pointId: PointId): Promise<RecoveryPoint | undefined>;
  /**
   * Keeps a point from being removed until it is released, also over crashes. False when the point is not there, or being removed.
   * `holdId`, [a-z0-9-]{1,64}, is the holder's: the same hold twice is one.
   */
  holdPoint(pointId: PointId, holdId: string): Promise<boolean>;
  /** Twice is fine. */
  releasePoint(pointId: PointId, holdId: string): Promise<void>;
  /** Reads all that points rely on: every one, those of a machine, or one. A report without damage proves every byte of them. */
  verify(options?: VerifyOptions): Promise<VerificationReport>;
  /**
   * These are the vault's keys from now on, instead of those before. What is written takes the current one. Who writes throws StateConflict,
   * and keeps all it has, while something that it has written is sealed with a generation that would go.
   */
  useKeys(keys: VaultKeys): Promise<void>;
  /** How much of the store is sealed with which generation of the vault's key, over all areas; looks at an end of each object. */
  countSeals(options?: CountOptions): Promise<SealCensus>;
  /** The disk as it was at the point; every byte is checked against its digest before it is given. */
  openDisk(pointId: PointId, diskId: DiskId): Promise<Disk>;
  /** Blocks that a disk of two points differs in, in order; its size is the same in both, or it is InputInvalid. */
  differingBlocks(points: { readonly from: PointId; readonly to: PointId }, diskId: DiskId): AsyncIterable<DifferingBlock>;
  /** Pages of the disk's tree, from the root's down to the one that names this block, each checked; shorter where zeros end it. */
  pagesTo(pointId: PointId, diskId: DiskId, block: number): Promise<readonly Uint8Array[]>;
}

/** A block as its sender gave it: its plain 64 KiB, or one zstd frame of them. */
export interface SentBlock {
  readonly block: number;
  readonly id: BlockId;
  readonly bytes: Uint8Array;
  readonly packing: "raw" | "zstd";
}

/** Changed granules of a disk as their sender gave them. */
export interface SentGranules {
  /** Which ones of the disk, rising; 256 at most. */
  readonly granules: readonly number[];
  /** Their plain 4 KiB each, in that order, or one zstd frame of all. */
  readonly bytes: Uint8Array;
  readonly packing: "raw" | "zstd";
  /** SHA-256 of the plain bytes, where the sender told it. */
  readonly digest?: Uint8Array;
}

/** One recovery point in the making. Nothing is visible to readers until seal() has returned. */
export interface PointWriter extends AsyncDisposable {
  /**
   * Which of these blocks are to be sent. False only for content that this very machine has stored or sent before, so that the answer
   * tells nothing of other machines. Result[i] true = send it.
   */
  need(diskId: DiskId, firstBlock: number, ids: readonly BlockId[]): Promise<readonly boolean[]>;
  /** Sets a block to an id that is zero or was answered "have it" by need(). */
  setBlock(diskId: DiskId, block: number, id: BlockId): void;
  /**
   * Takes a block's bytes (full 64 KiB; the caller pads a short last block), checks them against `id`, stores them and sets the block.
   * With packing "zstd" the bytes are one frame as it came from the sender: unpacked to 64 KiB and no more, checked, and stored without
   * packing it again.
   */
  putBlock(diskId: DiskId, block: number, id: BlockId, bytes: Uint8Array, packing?: "raw" | "zstd"): Promise<void>;
  /**
   * As putBlock for several different blocks of one disk, stored with the bytes that are given; maybe checked in other threads. A block
   * that does not fit its id breaks the whole point. Shared memory is used without a copy: it stays untouched until this resolves.
   */
  putBlocks(diskId: DiskId, blocks: readonly SentBlock[]): Promise<void>;
  /**
   * Changes granules of a disk: each block that is touched is stored as a patch on its present content, as far as that pays, and gets
   * the id of the result. Shared memory is used without a copy: it stays untouched until this resolves.
   */
  changeGranules(diskId: DiskId, sent: SentGranules): Promise<void>;
  /** The ids that blocks have in this point at the moment: the parent's until they are set. For comparing in checksum mode. */
  blockIds(diskId: DiskId, firstBlock: number, count: number): Promise<readonly BlockId[]>;
  /**
   * Digests of the granules that these blocks hold at the moment, 512 bytes each: of those where few other granules can be stored without
   * the rest of the block.
   */
  changeableRows(diskId: DiskId, blocks: readonly number[]): Promise<readonly (Uint8Array | undefined)[]>;
  /**
   * Packs durable → pages durable → point sealed, in this order. Durable and visible on return.
   * With expectedRoots, throws Fault RootsDiffer before anything is sealed unless each named disk has that root.
   */
  seal(facts: {
    readonly timeMs: number;
    readonly consistency: RecoveryPoint["consistency"];
    readonly expectedRoots?: readonly { readonly diskId: DiskId; readonly root: string }[];
  }): Promise<SealOutcome>;
}

export interface SealOutcome {
  readonly point: RecoveryPoint;
  /** Bytes that this point added to the store. */
  readonly storedBytes: number;
  /** Bytes that were sent and not stored, because other machines had stored them. Not to be told to an agent: only the sum with storedBytes is. */
  readonly sharedBytes: number;
}

/** Writing side; only the appliance of the machine writes. */
export interface Vault extends VaultReader {
  /** Begins a point. With `parentPointId` the disks start as they were in it (a grown disk's tail is zeros); else all zeros. */
  beginPoint(options: {
    readonly pointId: PointId;
    readonly machineId: MachineId;
    readonly parentPointId?: PointId;
    readonly disks: readonly Omit<PointDisk, "root">[];
  }): Promise<PointWriter>;
  /** Removes every point of a machine, held or not, then what no other point refers to. Answers the bytes given back. */
  removeMachine(machineId: MachineId): Promise<{ readonly freedBytes: number }>;
  /**
   * Removes one point; what it alone referred to goes with a later collection. held: somebody reads it, or a point that stands on it is
   * under way or hardly sealed; it stays. A point that is not there is removed.
   */
  removePoint(machineId: MachineId, pointId: PointId): Promise<"removed" | "held">;
  /**
   * Removes what no point needs from what this process writes, and rewrites packs that are mostly garbage. Runs beside writers and
   * readers; a second call waits for the first. Throws DataDamaged when a point cannot be followed: then nothing was removed.
   */
  collect(options?: CollectionOptions): Promise<CollectionReport>;
  /** Whether packs of this process's area are known that another key generation than the current one seals. */
  hasOlderSeals(): boolean;
  /** Points whose objects are gone, as far as packs tell of them; also points that were removed, until their packs are. */
  listLostPoints(): AsyncIterable<{ readonly point: RecoveryPoint; readonly isWhole: boolean }>;
  /** Writes the object of a lost point that is whole anew. Throws NotFound for any other. */
  restoreLostPoint(pointId: PointId): Promise<RecoveryPoint>;
}

export interface VerifyOptions {
  readonly machineId?: MachineId;
  readonly pointId?: PointId;
  /** Parts of a disk that are read at once; 4 unless told. */
  readonly parallelMax?: number;
  readonly onProgress?: (progress: { readonly donePoints: number; readonly pointCount: number; readonly readBlocks: number }) => void;
  readonly signal?: AbortSignal;
}

export interface DamagedRange {
  readonly pointId: PointId;
  readonly diskId: DiskId;
  readonly offset: number;
  readonly length: number;
  readonly finding: string;
  /** Where the damaged entry, or one that stands on it, is stored; absent when it is nowhere. */
  readonly packKey?: string;
  readonly packOffset?: number;
}

export interface VerificationReport {
  readonly pointCount: number;
  /** Different blocks; each was read once, however many points have it. */
  readonly readBlocks: number;
  /** In every point that is concerned; the first 1000. */
  readonly damaged: readonly DamagedRange[];
  readonly damagedCount: number;
}

export interface CollectionOptions {
  /** Says what would be done, from the same look at all points. */
  readonly isDryRun?: boolean;
  /** Packs without a point stay this long, because a copy that was cut asks for them; 2 hours unless told. */
  readonly orphanGraceMs?: number;
  /** Packs of which less than this part lives are rewritten; 0.5 unless told. */
  readonly liveShareMin?: number;
  /** Live bytes that one call rewrites at most; 4 GiB unless told. The next call goes on. */
  readonly moveBytesMax?: number;
  /** Machines whose packs need no grace. */
  readonly goneMachineIds?: readonly MachineId[];
  readonly onProgress?: (progress: { readonly step: "mark" | "remove"; readonly doneCount: number; readonly totalCount: number }) => void;
  readonly signal?: AbortSignal;
}

/** What a collection saw and did; of a dry run, what it would do. */
export interface CollectionReport {
  readonly pointCount: number;
  readonly packCount: number;
  readonly packBytes: number;
  /** Bytes of entries that some point needs. */
  readonly liveBytes: number;
  readonly removedPackCount: number;
  readonly rewrittenPackCount: number;
  /** Of removed and of rewritten packs. */
  readonly removedBytes: number;
  /** Written anew, of rewritten packs. */
  readonly movedBytes: number;
  /** Packs that points under way rely on; they were left alone. */
  readonly pinnedPackCount: number;
  /** Keys of packs that were to be rewritten and could not be read; they stay. */
  readonly damagedPacks: readonly string[];
  readonly tookMs: number;
}
