// What the blocks held that are just being written, durable before the first of them is: a write that was cut in two is told from anybody else's.

import { createHash } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { flushFolder, writeFileAtomic } from "../../base/atomic-file.ts";
import { Fault } from "../../contract/errors.ts";
import { blockBytes, digestBytes } from "../../disk/geometry.ts";

const magic = Buffer.from("WTRUNDO\0", "latin1");
const headBytes = magic.length + 2 * digestBytes + 4;
const rowBytes = 10 + blockBytes;

export interface UndoBlock {
  readonly disk: number;
  readonly block: number;
  /** 64 KiB, the delta's content of before. */
  readonly before: Uint8Array;
}

/** Blocks in one file at most: 4 MiB. */
export const undoBlocksMax = 64;

/** `delta`: the signed text that the writes come from. Durable on return. */
export async function writeUndo(path: string, delta: string, blocks: readonly UndoBlock[]): Promise<void> {
  const rows = Buffer.alloc(blocks.length * rowBytes);
  for (const [index, { disk, block, before }] of blocks.entries()) {
    rows.writeUInt16BE(disk, index * rowBytes);
    rows.writeBigUInt64BE(BigInt(block), index * rowBytes + 2);
    rows.set(before, index * rowBytes + 10);
  }
  const head = Buffer.alloc(headBytes);
  head.set(magic);
  head.set(sha256(delta), magic.length);
  head.set(sha256(rows), magic.length + digestBytes);
  head.writeUInt32BE(blocks.length, magic.length + 2 * digestBytes);
  await writeFileAtomic(path, Buffer.concat([head, rows]), { mode: 0o600 });
}

/** Nothing where there is no file. Throws StateConflict for one of another delta: its writes have to be ended first. */
export async function readUndo(path: string, delta: string): Promise<readonly UndoBlock[]> {
  const bytes = await readFile(path).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (bytes === undefined) return [];
  const rows = bytes.subarray(headBytes);
  const isWhole =
    bytes.length >= headBytes &&
    bytes.subarray(0, magic.length).equals(magic) &&
    bytes.subarray(magic.length + digestBytes, magic.length + 2 * digestBytes).equals(sha256(rows)) &&
    rows.length === bytes.readUInt32BE(magic.length + 2 * digestBytes) * rowBytes;
  if (!isWhole) throw new Fault("DataDamaged", "could not read what the blocks held that were being written", { evidence: { path } });
  if (!bytes.subarray(magic.length, magic.length + digestBytes).equals(sha256(delta)))
    throw new Fault("StateConflict", "could not apply a reverse delta: another one was broken off here", {
      evidence: { path },
      action: "apply that one to its end first",
    });
  return Array.from({ length: rows.length / rowBytes }, (_, index) => {
    const at = index * rowBytes;
    return { disk: rows.readUInt16BE(at), block: Number(rows.readBigUInt64BE(at + 2)), before: rows.subarray(at + 10, at + rowBytes) };
  });
}

export async function removeUndo(path: string): Promise<void> {
  await rm(path, { force: true });
  await flushFolder(dirname(path));
}

function sha256(bytes: Uint8Array | string): Buffer {
  return createHash("sha256").update(bytes).digest();
}
