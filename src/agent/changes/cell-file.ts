// A disk's change cells in a file of a memory filesystem, so that they outlive the agent that marks them, killed or not.

import { mkdir, open, readdir, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { mapMemory } from "../kernel/bpf.ts";
import type { SystemCalls } from "../kernel/system-calls.ts";
import { cellLayoutVersion, type CellLayout } from "./cell-layout.ts";

/** Byte offsets in the record before the cells. */
const fileRecord = { epoch: 0, isDraining: 1, isLost: 2, device: 8, layoutVersion: 12, sizeBytes: 16, session: 24 } as const;
const recordBytes = 4096;
const tmpfsMagic = 0x0102_1994;

export interface CellFile {
  /** The first bytes of the file; see fileRecord. */
  readonly record: Uint8Array;
  readonly cells: Uint8Array;
  /** Whether it outlives this process. */
  readonly isDurable: boolean;
  /** Nothing may look at record or cells afterwards. */
  close(): void;
  /** Closes, and nothing is left of it. */
  remove(): Promise<void>;
}

export interface CellFileWanted {
  readonly folder: string;
  readonly diskId: string;
  readonly device: number;
  readonly layout: CellLayout;
}

/** Marks in the record that changes are just being moved into the cells: who finds it set has lost some. */
export function setDraining(file: CellFile, state: "begun" | "ended"): void {
  Atomics.store(file.record, fileRecord.isDraining, state === "begun" ? 1 : 0);
}

export function markLost(file: CellFile): void {
  Atomics.store(file.record, fileRecord.isLost, 1);
}

export function isLost(file: CellFile): boolean {
  return Atomics.load(file.record, fileRecord.isLost) !== 0;
}

export function epochOf(file: CellFile): { read(): number; write(epoch: number): void } {
  return {
    read: () => Atomics.load(file.record, fileRecord.epoch),
    write: (epoch) => void Atomics.store(file.record, fileRecord.epoch, epoch),
  };
}

export function sessionOf(file: CellFile): Uint8Array {
  return file.record.slice(fileRecord.session, fileRecord.session + 16);
}

/** Empty cells under a new session. In memory of this process alone where the folder is not in memory itself. */
export async function createCellFile(calls: SystemCalls, wanted: CellFileWanted, session: Uint8Array): Promise<CellFile> {
  await mkdir(wanted.folder, { recursive: true, mode: 0o700 });
  const isDurable = (await statfs(wanted.folder)).type === tmpfsMagic;
  const byteCount = byteCountOf(wanted.layout);
  const path = join(wanted.folder, wanted.diskId);
  await rm(path, { force: true });
  const file = isDurable ? await mapFile(calls, { path, flags: "wx+", byteCount }) : inMemory(byteCount);
  const view = new DataView(file.record.buffer, file.record.byteOffset);
  view.setUint8(fileRecord.epoch, 1);
  view.setUint32(fileRecord.device, wanted.device, true);
  view.setUint32(fileRecord.layoutVersion, cellLayoutVersion, true);
  view.setBigUint64(fileRecord.sizeBytes, BigInt(wanted.layout.sizeBytes), true);
  file.record.set(session, fileRecord.session);
  return file;
}

/** The cells that an earlier run left, when they are this disk's and nothing happened to them; else why not. */
export async function findCellFile(
  calls: SystemCalls,
  wanted: CellFileWanted,
  session: Uint8Array,
): Promise<CellFile | { readonly why: string }> {
  const byteCount = byteCountOf(wanted.layout);
  const path = join(wanted.folder, wanted.diskId);
  const size = await fileSize(path);
  if (size === undefined) return { why: "no record of changes was left: the machine was restarted or tracking was removed" };
  if (size !== byteCount) return { why: "the disk's size has changed" };
  const file = await mapFile(calls, { path, flags: "r+", byteCount });
  const why = whyDoubtful(file.record, wanted, session);
  if (why === undefined) return file;
  file.close();
  return { why };
}

function whyDoubtful(record: Uint8Array, wanted: CellFileWanted, session: Uint8Array): string | undefined {
  const view = new DataView(record.buffer, record.byteOffset);
  if (view.getUint32(fileRecord.layoutVersion, true) !== cellLayoutVersion) return "the record is of another version of the agent";
  if (view.getUint32(fileRecord.device, true) !== wanted.device) return "the disk has another device number than the tracked one";
  if (view.getBigUint64(fileRecord.sizeBytes, true) !== BigInt(wanted.layout.sizeBytes)) return "the disk's size has changed";
  if (Buffer.compare(record.subarray(fileRecord.session, fileRecord.session + 16), session) !== 0)
    return "the record belongs to another tracking session than the agent's state";
  if (view.getUint8(fileRecord.isDraining) !== 0) return "the agent was killed while it noted changes";
  return view.getUint8(fileRecord.isLost) === 0 ? undefined : "changes were lost";
}

export async function removeCellFilesExcept(folder: string, keep: ReadonlySet<string>): Promise<void> {
  const names = await readdir(folder).catch((): string[] => []); // No folder: nothing was kept.
  for (const name of names) if (!keep.has(name)) await rm(join(folder, name), { force: true });
}

function byteCountOf(layout: CellLayout): number {
  return recordBytes + layout.topStart + layout.topCount;
}

async function fileSize(path: string): Promise<number | undefined> {
  const file = await open(path, "r").catch(() => undefined); // Absent, which the caller tells.
  if (file === undefined) return undefined;
  await using opened = file;
  return (await opened.stat()).size;
}

async function mapFile(
  calls: SystemCalls,
  wanted: { readonly path: string; readonly flags: "wx+" | "r+"; readonly byteCount: number },
): Promise<CellFile> {
  await using file = await open(wanted.path, wanted.flags, 0o600);
  if (wanted.flags === "wx+") await file.truncate(wanted.byteCount);
  const { bytes, unmap } = mapMemory(calls, file.fd, wanted.byteCount);
  let isMapped = true;
  const close = (): void => {
    if (isMapped) unmap(); // Twice would take away what stands there by then.
    isMapped = false;
  };
  const remove = async (): Promise<void> => {
    close();
    await rm(wanted.path, { force: true });
  };
  return { record: bytes.subarray(0, recordBytes), cells: bytes.subarray(recordBytes), isDurable: true, close, remove };
}

function inMemory(byteCount: number): CellFile {
  const bytes = new Uint8Array(byteCount);
  const nothing = { close: () => undefined, remove: () => Promise.resolve() };
  return { record: bytes.subarray(0, recordBytes), cells: bytes.subarray(recordBytes), isDurable: false, ...nothing };
}
