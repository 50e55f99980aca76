// One recovery point as its frames come in: announced, needed, taken, sealed; any breach of the protocol ends it.

import { assert } from "../../base/assert.ts";
import {
  comparedBlocksMax,
  FrameError,
  frameTypes,
  needAnswers,
  unitsInFlightMax,
  consistencyOf,
  encodeFrame,
  type BeginPoint,
  type EndPoint,
  type Frame,
} from "../../contract/agent-frames.ts";
import { Fault } from "../../contract/errors.ts";
import type { DiskId } from "../../contract/ids.ts";
import { equalBytes } from "../../disk/digest.ts";
import { blockBytes, blockCountOf, granuleBytes, granuleCountOf, granulesPerBlock } from "../../disk/geometry.ts";
import type { BlockId, PointWriter, SealOutcome, SentBlock } from "../../vault/vault.ts";
import type { MachineMeter } from "../flow/machine-meter.ts";
import { BlockCover } from "./block-cover.ts";
import { readBlocksBody, readGranulesBody, readIdsBody, unpackBlock, unpackLastGranule } from "./unit-bodies.ts";

/** Blocks that are awaited as granules at once: as many as the units on their way may have. */
const awaitedMax = unitsInFlightMax * comparedBlocksMax;

interface SessionDisk {
  readonly diskId: DiskId;
  readonly sizeBytes: number;
  readonly blockCount: number;
  readonly granuleCount: number;
  readonly isCompared: boolean;
  /** For disks of which every block must be announced. */
  readonly cover: BlockCover | undefined;
  /** Blocks whose other granules are to come, and the id that they then must have. */
  readonly awaited: Map<number, BlockId>;
}

interface PendingUnit {
  readonly diskIndex: number;
  readonly firstBlock: number;
  readonly ids: readonly BlockId[];
  /** Indexes into ids, rising. */
  readonly needed: readonly number[];
  /** Its blocks came, and are being taken in. */
  isSent: boolean;
}

/** Takes frames in their order, the next before the one before is answered; the caller writes the answers back and disposes the writer. */
export class PointSession {
  readonly begin: BeginPoint;
  readonly #writer: PointWriter;
  readonly #meter: Pick<MachineMeter, "tookIds" | "tookChanges">;
  readonly #disks: readonly SessionDisk[];
  readonly #pending = new Map<number, PendingUnit>();
  #receivedBytes = 0;
  #changedBlockCount = 0;

  constructor(begin: BeginPoint, writer: PointWriter, meter: Pick<MachineMeter, "tookIds" | "tookChanges">) {
    this.begin = begin;
    this.#writer = writer;
    this.#meter = meter;
    this.#disks = begin.disks.map((disk) => ({
      diskId: disk.diskId,
      sizeBytes: disk.sizeBytes,
      blockCount: blockCountOf(disk.sizeBytes),
      granuleCount: granuleCountOf(disk.sizeBytes),
      isCompared: disk.mode === "checksum",
      cover: disk.mode === "delta" ? undefined : new BlockCover(blockCountOf(disk.sizeBytes)),
      awaited: new Map(),
    }));
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Blocks of disks in checksum mode that differed from the base point. */
  get changedBlockCount(): number {
    return this.#changedBlockCount;
  }

  get isWaiting(): boolean {
    return this.#pending.size > 0;
  }

  /** Takes an ids, blocks or granules frame and gives the answer frame, if it has one. Throws FrameError or Fault. */
  async take(frame: Frame): Promise<Uint8Array | undefined> {
    this.#receivedBytes += frame.body.length + 16;
    if (frame.type === frameTypes.ids) return await this.#takeIds(frame);
    if (frame.type === frameTypes.blocks) return await this.#takeBlocks(frame);
    if (frame.type === frameTypes.granules) return await this.#takeGranules(frame);
    throw new FrameError(`frame type ${frame.type} does not belong inside a point`);
  }

  async #takeIds(frame: Frame): Promise<Uint8Array> {
    const { diskIndex, firstBlock, ids } = readIdsBody(frame);
    const disk = this.#disk(diskIndex);
    if (firstBlock + ids.length > disk.blockCount) throw new FrameError("ids beyond the end of the disk");
    if (frame.unit === 0 || this.#pending.has(frame.unit)) throw new FrameError(`unit ${frame.unit} is not free`);
    if (this.#pending.size >= unitsInFlightMax) throw new FrameError("too many units under way");
    this.#refusePending(diskIndex, firstBlock, firstBlock + ids.length);
    const differs = disk.isCompared ? await this.#compare(disk, firstBlock, ids) : [];
    const need = await this.#writer.need(disk.diskId, firstBlock, ids);
    const rows = await this.#rowsToCompare(disk, firstBlock, need);
    const answers = new Uint8Array(ids.length);
    const needed: number[] = [];
    for (const [index, id] of ids.entries()) {
      const block = firstBlock + index;
      disk.cover?.add(block);
      if (rows.has(index)) {
        disk.awaited.set(block, id);
        answers[index] = needAnswers.compare;
      } else if (need[index] === true) {
        needed.push(index);
        answers[index] = needAnswers.send;
      } else {
        this.#writer.setBlock(disk.diskId, block, id);
        answers[index] = differs[index] === true ? needAnswers.moved : needAnswers.have;
      }
    }
    this.#meter.tookIds(ids.length * blockBytes);
    if (needed.length > 0) this.#pending.set(frame.unit, { diskIndex, firstBlock, ids, needed, isSent: false });
    return encodeFrame({ type: frameTypes.need, unit: frame.unit, count: ids.length, body: Buffer.concat([answers, ...rows.values()]) });
  }

  /** Of few needed blocks, the digests of granules that the agent may compare its own with; by index, rising. */
  async #rowsToCompare(disk: SessionDisk, firstBlock: number, need: readonly boolean[]): Promise<ReadonlyMap<number, Uint8Array>> {
    const rows = new Map<number, Uint8Array>();
    const needed = [...need.keys()].filter((index) => need[index] === true);
    if (!disk.isCompared || needed.length > comparedBlocksMax || disk.awaited.size + needed.length > awaitedMax) return rows;
    const found = await this.#writer.changeableRows(
      disk.diskId,
      needed.map((index) => firstBlock + index),
    );
    for (const [place, index] of needed.entries()) {
      const row = found[place];
      if (row !== undefined) rows.set(index, row);
    }
    return rows;
  }

  async #compare(disk: SessionDisk, firstBlock: number, ids: readonly BlockId[]): Promise<readonly boolean[]> {
    const present = await this.#writer.blockIds(disk.diskId, firstBlock, ids.length);
    const differs = ids.map((id, index) => Buffer.compare(id, present[index] ?? id) !== 0);
    this.#changedBlockCount += differs.filter(Boolean).length;
    return differs;
  }

  async #takeBlocks(frame: Frame): Promise<Uint8Array> {
    const unit = this.#pending.get(frame.unit);
    if (unit === undefined || unit.isSent) throw new FrameError(`blocks of unit ${frame.unit}, which is not under way`);
    unit.isSent = true;
    const { diskIndex, blocks } = readBlocksBody(frame);
    if (diskIndex !== unit.diskIndex || blocks.length !== unit.needed.length) throw new FrameError("blocks do not fit their unit");
    const disk = this.#disk(diskIndex);
    const sent = blocks.map((payload, place): SentBlock => {
      const index = unit.needed[place] ?? -1;
      const id = unit.ids[index];
      if (id === undefined || payload.block !== unit.firstBlock + index) throw new FrameError("blocks do not fit their unit");
      const isLast = payload.block === disk.blockCount - 1;
      if (isLast) this.#refuseTail(disk, payload.block * blockBytes, unpackBlock(payload));
      return { ...payload, id };
    });
    await this.#writer.putBlocks(disk.diskId, sent);
    this.#pending.delete(frame.unit);
    return encodeFrame({ type: frameTypes.taken, unit: frame.unit, count: blocks.length, body: new Uint8Array(0) });
  }

  async #takeGranules(frame: Frame): Promise<Uint8Array> {
    const body = readGranulesBody(frame);
    const { diskIndex, granules } = body;
    const disk = this.#disk(diskIndex);
    const last = granules.at(-1) ?? 0;
    if (last >= disk.granuleCount) throw new FrameError("granule beyond the end of the disk");
    if ((last + 1) * granuleBytes > disk.sizeBytes) this.#refuseTail(disk, last * granuleBytes, unpackLastGranule(body));
    for (const [place, granule] of granules.entries()) {
      const block = Math.floor(granule / granulesPerBlock);
      if (place === 0 || block !== Math.floor((granules[place - 1] ?? 0) / granulesPerBlock))
        this.#refusePending(diskIndex, block, block + 1);
    }
    await this.#writer.changeGranules(disk.diskId, body);
    await this.#checkAwaited(disk, granules);
    this.#meter.tookChanges(granules.length * granuleBytes);
    return encodeFrame({ type: frameTypes.taken, unit: frame.unit, count: granules.length, body: new Uint8Array(0) });
  }

  /** A block that was announced and came as granules must now be what was announced. */
  async #checkAwaited({ diskId, awaited }: SessionDisk, granules: readonly number[]): Promise<void> {
    if (awaited.size === 0) return;
    for (const block of new Set(granules.map((granule) => Math.floor(granule / granulesPerBlock)))) {
      const announced = awaited.get(block);
      if (announced === undefined) continue;
      const [id] = await this.#writer.blockIds(diskId, block, 1);
      if (id === undefined || !equalBytes(id, announced))
        throw new Fault("DataDamaged", "could not take granules of a block: it is not what was announced", { evidence: { diskId, block } });
      awaited.delete(block);
    }
  }

  /** Seals. Only after every unit is finished and every block of a whole copy was announced. */
  async end(end: EndPoint): Promise<SealOutcome> {
    if (end.pointId !== this.begin.pointId) throw new FrameError("end of another point");
    if (this.#pending.size > 0) throw new FrameError("end while units are unfinished");
    for (const disk of this.#disks) {
      const missingCount = disk.cover?.missingCount ?? 0;
      if (disk.awaited.size > 0) throw new FrameError(`end before granules of ${disk.awaited.size} blocks of disk ${disk.diskId} came`);
      if (missingCount > 0) throw new FrameError(`end before ${missingCount} blocks of disk ${disk.diskId} were announced`);
    }
    const consistency = consistencyOf(this.begin, end);
    const outcome = await this.#writer.seal({
      timeMs: end.timeMs,
      consistency,
      ...(consistency === "final" && end.sourceRoots.length > 0 ? { expectedRoots: end.sourceRoots } : {}),
    });
    assert(outcome.point.pointId === this.begin.pointId, "the vault sealed the point that was begun");
    return outcome;
  }

  #disk(diskIndex: number): SessionDisk {
    const disk = this.#disks[diskIndex];
    if (disk === undefined) throw new FrameError(`disk index ${diskIndex} is not in the point`);
    return disk;
  }

  /** Inside a round a block belongs to one unit; a second word on it before the first is finished has no clear meaning. */
  #refusePending(diskIndex: number, firstBlock: number, endBlock: number): void {
    for (const unit of this.#pending.values()) {
      if (unit.diskIndex !== diskIndex) continue;
      const isTouched = unit.needed.some((index) => unit.firstBlock + index >= firstBlock && unit.firstBlock + index < endBlock);
      if (!isTouched) continue;
      throw new FrameError(`block ${firstBlock} is still under way in another unit`);
    }
  }

  /** What lies beyond the end of the disk is zeros, or roots would depend on it. */
  #refuseTail(disk: SessionDisk, offset: number, bytes: Uint8Array): void {
    const inside = disk.sizeBytes - offset;
    if (inside >= bytes.length) return;
    if (bytes.subarray(inside).some((byte) => byte !== 0)) throw new FrameError("bytes beyond the end of the disk are not zero");
  }
}
