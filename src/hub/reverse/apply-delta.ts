// Writes a reverse delta into a source's disks while it is off: only into disks that are, to the byte, those of the final point, and to its end.

import { Fault } from "../../contract/errors.ts";
import { blockIdOf } from "../../disk/block-id.ts";
import { computeRoot } from "../../disk/compute-root.ts";
import { equalBytes } from "../../disk/digest.ts";
import type { Disk, WritableDisk } from "../../disk/disk.ts";
import { withExcludedRanges, type ByteRange } from "../../disk/excluded-disk.ts";
import { openFileDisk } from "../../disk/file-disk.ts";
import { blockBytes } from "../../disk/geometry.ts";
import { openDeltaFile, type DeltaFile, type PlacedEntry } from "./delta-file.ts";
import type { DeltaManifest } from "./delta-format.ts";
import { readUndo, removeUndo, undoBlocksMax, writeUndo, type UndoBlock } from "./undo-file.ts";

export interface ApplyOptions {
  readonly deltaPath: string;
  /** Certificate of the hub's authority. */
  readonly caPem: string;
  /** Where each disk of the delta is attached, by its id. */
  readonly diskPaths: ReadonlyMap<string, string>;
  /** On another disk than those that are written. Kept from a run that was killed until one has come to its end. */
  readonly undoPath: string;
  /** Only says what would be written. */
  readonly isDryRun?: boolean;
  readonly openDisk?: (path: string) => Promise<WritableDisk>;
  readonly onProgress?: (step: "check" | "write" | "verify", doneBytes: number) => void;
  readonly signal: AbortSignal;
}

export interface AppliedDisk {
  readonly diskId: string;
  readonly path: string;
  readonly entryCount: number;
  /** By this run; the others were there already. */
  readonly writtenBlocks: number;
  /** Of the disk as it is now, read from end to end. */
  readonly root: string;
}

export interface AppliedDelta {
  readonly machineName: string;
  readonly pointId: string;
  readonly disks: readonly AppliedDisk[];
}

const sectorBytes = 512;
const shownBlocksMax = 16;

interface OpenedDisk {
  readonly index: number;
  readonly told: DeltaManifest["disks"][number];
  readonly path: string;
  readonly disk: WritableDisk;
  /** Excluded ranges read as zeros. */
  readonly masked: Disk;
  readonly entries: ReadonlyMap<number, PlacedEntry>;
}

/** A run that was killed at any write goes on where it was. At the end the disks are read whole, and are the landed machine's. */
export async function applyDelta(options: ApplyOptions): Promise<AppliedDelta> {
  const { signal } = options;
  await using opened = new AsyncDisposableStack();
  const delta = opened.use(await openDeltaFile(options.deltaPath, options.caPem));
  const disks: OpenedDisk[] = [];
  for (const [index, told] of delta.manifest.disks.entries()) disks.push(await openDisk(options, { delta, index, told }, opened));
  const undo = await readUndo(options.undoPath, delta.signed);
  // Before the first write: a file that cannot be written to its end is not begun with.
  for (const entries of delta.entries) for (const entry of entries.values()) await delta.contentOf(entry);
  await checkTorn(delta, disks, undo);
  const todo: (readonly PlacedEntry[])[] = [];
  for (const disk of disks) todo.push(await checkDisk(disk, undo, options));
  if (options.isDryRun !== true) {
    await rewriteTorn(delta, disks, undo);
    for (const disk of disks) await writeEntries(delta, disk, { todo: todo[disk.index] ?? [], options });
    for (const { disk } of disks) await disk.flush(signal);
    await removeUndo(options.undoPath);
  }
  const applied: AppliedDisk[] = [];
  for (const disk of disks) applied.push(await verifyDisk(disk, todo[disk.index]?.length ?? 0, options));
  return { machineName: delta.manifest.machineName, pointId: delta.manifest.pointId, disks: applied };
}

async function openDisk(
  { diskPaths, openDisk: open }: ApplyOptions,
  { delta, index, told }: { readonly delta: DeltaFile; readonly index: number; readonly told: OpenedDisk["told"] },
  opened: AsyncDisposableStack,
): Promise<OpenedDisk> {
  const path = diskPaths.get(told.diskId);
  if (path === undefined)
    throw new Fault("InputInvalid", `could not apply the reverse delta: it was not said where the disk ${told.diskId} is`, {
      evidence: { disks: delta.manifest.disks.map(({ diskId, sizeBytes }) => `${diskId}: ${sizeBytes} bytes`) },
    });
  const disk = opened.use(await (open?.(path) ?? openFileDisk(path, { access: "write", isExclusive: true })));
  if (disk.sizeBytes !== told.sizeBytes)
    throw new Fault("SourceWritten", `could not apply the reverse delta: ${path} has another size than the disk ${told.diskId}`, {
      evidence: { sizeBytes: disk.sizeBytes, expectedBytes: told.sizeBytes },
    });
  return { index, told, path, disk, masked: withExcludedRanges(disk, told.excluded), entries: delta.entries[index] ?? new Map() };
}

/** Blocks that a killed run was writing: each sector is of before or of after, or somebody else wrote. */
async function checkTorn(delta: DeltaFile, disks: readonly OpenedDisk[], undo: readonly UndoBlock[]): Promise<void> {
  for (const { disk: index, block, before } of undo) {
    const disk = disks[index];
    const entry = disk?.entries.get(block);
    if (disk === undefined || entry === undefined || !equalBytes(blockIdOf(before), entry.before))
      throw new Fault("DataDamaged", "could not read what the blocks held that were being written: it does not fit the delta");
    const after = await delta.contentOf(entry);
    const present = await readBlock(disk.masked, block);
    for (let at = 0; at < blockBytes; at += sectorBytes) {
      const isOf = (content: Uint8Array): boolean =>
        equalBytes(present.subarray(at, at + sectorBytes), content.subarray(at, at + sectorBytes));
      if (!isOf(before) && !isOf(after)) throw written(disk, [block]);
    }
  }
}

/** Reads the disk from end to end. Answers what is still to be written; throws SourceWritten unless all of it is of before or of after. */
async function checkDisk(disk: OpenedDisk, undo: readonly UndoBlock[], options: ApplyOptions): Promise<readonly PlacedEntry[]> {
  const { masked, entries, told, index } = disk;
  const torn = new Set(undo.filter((each) => each.disk === index).map(({ block }) => block));
  const todo: PlacedEntry[] = [];
  const foreign: number[] = [];
  const mapId = (block: number, id: Uint8Array): Uint8Array => {
    const entry = entries.get(block);
    if (entry === undefined) return id;
    const isBefore = equalBytes(id, entry.before);
    if (isBefore && !torn.has(block)) todo.push(entry);
    if (!isBefore && !equalBytes(id, entry.after) && !torn.has(block) && foreign.length < shownBlocksMax) foreign.push(block);
    return entry.before;
  };
  const { signal, onProgress } = options;
  const root = await computeRoot(masked, { mapId, signal, onProgress: (bytes) => onProgress?.("check", bytes) });
  if (foreign.length > 0) throw written(disk, foreign);
  if (root !== told.rootBefore) throw written(disk, []);
  return todo;
}

async function rewriteTorn(delta: DeltaFile, disks: readonly OpenedDisk[], undo: readonly UndoBlock[]): Promise<void> {
  for (const { disk: index, block } of undo) {
    const disk = disks[index];
    const entry = disk?.entries.get(block);
    if (disk !== undefined && entry !== undefined) await writeBlock(disk, block, await delta.contentOf(entry));
  }
  for (const { disk } of disks) await disk.flush();
}

async function writeEntries(
  delta: DeltaFile,
  disk: OpenedDisk,
  { todo, options }: { readonly todo: readonly PlacedEntry[]; readonly options: ApplyOptions },
): Promise<void> {
  for (let at = 0; at < todo.length; at += undoBlocksMax) {
    options.signal.throwIfAborted();
    const batch = todo.slice(at, at + undoBlocksMax);
    const undo: UndoBlock[] = [];
    for (const { block, before: expected } of batch) {
      const before = await readBlock(disk.masked, block);
      if (!equalBytes(blockIdOf(before), expected)) throw written(disk, [block]);
      undo.push({ disk: disk.index, block, before });
    }
    const contents = await Promise.all(batch.map(async (entry) => await delta.contentOf(entry)));
    await writeUndo(options.undoPath, delta.signed, undo);
    for (const [index, { block }] of batch.entries()) await writeBlock(disk, block, contents[index] ?? Buffer.alloc(0));
    // The next undo file takes the place of this one, so these have to be durable before.
    await disk.disk.flush();
    options.onProgress?.("write", Math.min(todo.length, at + batch.length) * blockBytes);
  }
}

async function verifyDisk(disk: OpenedDisk, writtenBlocks: number, options: ApplyOptions): Promise<AppliedDisk> {
  const { told, path, masked } = disk;
  const { signal, onProgress, isDryRun = false } = options;
  const common = { diskId: told.diskId, path, entryCount: told.entryCount };
  if (isDryRun) return { ...common, writtenBlocks: 0, root: told.rootBefore };
  const root = await computeRoot(masked, { signal, onProgress: (bytes) => onProgress?.("verify", bytes) });
  if (root !== told.rootAfter)
    throw new Fault("RootsDiffer", `the disk ${told.diskId} was written and is not equal to the landed machine's`, {
      evidence: { path, root, expected: told.rootAfter },
      action: "do not start the source; apply the delta again, and look who else writes to the disk",
    });
  return { ...common, writtenBlocks, root };
}

/** A short last block is padded. */
async function readBlock(disk: Disk, block: number): Promise<Buffer> {
  const bytes = Buffer.alloc(blockBytes);
  const offset = block * blockBytes;
  await disk.read(offset, bytes.subarray(0, Math.min(blockBytes, disk.sizeBytes - offset)));
  return bytes;
}

/** Everything but the excluded ranges. */
async function writeBlock({ disk, told }: OpenedDisk, block: number, content: Uint8Array): Promise<void> {
  const offset = block * blockBytes;
  const length = Math.min(blockBytes, disk.sizeBytes - offset);
  for (const part of partsOutside({ offset, length }, told.excluded))
    await disk.write(part.offset, content.subarray(part.offset - offset, part.offset - offset + part.length));
}

function partsOutside(range: ByteRange, excluded: readonly ByteRange[]): readonly ByteRange[] {
  const parts: ByteRange[] = [];
  const end = range.offset + range.length;
  let at = range.offset;
  for (const each of excluded.toSorted((one, other) => one.offset - other.offset)) {
    if (each.offset > at && at < end) parts.push({ offset: at, length: Math.min(each.offset, end) - at });
    at = Math.max(at, each.offset + each.length);
  }
  if (at < end) parts.push({ offset: at, length: end - at });
  return parts;
}

function written({ told, path }: OpenedDisk, blocks: readonly number[]): Fault {
  const what = blocks.length > 0 ? `blocks ${blocks.join(", ")}` : "blocks outside of the delta";
  return new Fault("SourceWritten", `could not apply the reverse delta: ${path} is not as the source left it: ${what} differ`, {
    evidence: { diskId: told.diskId, path, blocks: blocks.map(String), blockBytes },
  });
}
