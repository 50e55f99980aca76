// Inodes of an ext filesystem: what they say of a file, and where its bytes stand. Layout: Linux, Documentation/filesystems/ext4.

import { Fault } from "../../contract/errors.ts";
import type { GuestNode, NodeKind } from "./guest-files.ts";

export const inodeFlags = { encrypted: 0x800, extents: 0x8_0000, inline: 0x1000_0000 } as const;
const inlineBytes = 60;
const extentMagic = 0xf30a;
const depthMax = 5;
/** 16 TiB with the largest block that is common, and more than any disk that is taken. */
const fileBytesMax = 2 ** 46;
const longestExtent = 32_768;

export interface Inode extends GuestNode {
  readonly flags: number;
  /** The 60 bytes that name blocks, or hold a short content. */
  readonly place: Buffer;
  /** All of it, for what stands behind its fixed part. */
  readonly bytes: Buffer;
}

/** Blocks of a file that stand together; without `physical` they read as zeros. */
export interface Run {
  readonly logical: number;
  readonly count: number;
  readonly physical?: number;
}

const kinds: Readonly<Record<number, NodeKind>> = {
  0x8000: "file",
  0x4000: "folder",
  0xa000: "link",
  0x6000: "device",
  0x2000: "device",
  0x1000: "pipe",
  0xc000: "socket",
};

export function parseInode(serial: number, bytes: Buffer): Inode {
  const mode = bytes.readUInt16LE(0);
  const kind = kinds[mode & 0xf000];
  if (kind === undefined) throw damagedFile(serial, "it is of no known kind");
  const extraBytes = bytes.length > 128 ? bytes.readUInt16LE(0x80) : 0;
  const extra = extraBytes >= 12 ? bytes.readUInt32LE(0x88) : 0;
  const place = bytes.subarray(0x28, 0x28 + inlineBytes);
  const told = bytes.readUInt32LE(4) + bytes.readUInt32LE(0x6c) * 2 ** 32;
  if (told > fileBytesMax) throw damagedFile(serial, "it says to be larger than a file can be");
  const isSized = kind === "file" || kind === "folder" || kind === "link";
  return {
    serial,
    kind,
    mode: mode & 0o7777,
    uid: bytes.readUInt16LE(2) + bytes.readUInt16LE(0x78) * 0x1_0000,
    gid: bytes.readUInt16LE(0x18) + bytes.readUInt16LE(0x7a) * 0x1_0000,
    sizeBytes: isSized ? told : 0,
    modifiedAt: bytes.readInt32LE(0x10) + (extra & 3) * 2 ** 32,
    linkCount: bytes.readUInt16LE(0x1a),
    ...(kind === "device" ? { device: deviceOf(mode, place) } : {}),
    flags: bytes.readUInt32LE(0x20),
    place,
    bytes,
  };
}

function deviceOf(mode: number, place: Buffer): NonNullable<GuestNode["device"]> {
  const kind = (mode & 0xf000) === 0x6000 ? "block" : "character";
  const [short, long] = [place.readUInt32LE(0), place.readUInt32LE(4)];
  if (short !== 0) return { kind, major: (short >>> 8) & 0xff, minor: short & 0xff };
  return { kind, major: (long >>> 8) & 0xfff, minor: (long & 0xff) | ((long >>> 12) & 0xf_ff00) };
}

export interface BlockSource {
  readonly blockBytes: number;
  /** A block of the filesystem as it is after a mount. */
  readonly readBlock: (block: number) => Promise<Buffer>;
}

/** Runs of a file from the block `from` on, in order; what lies between them are holes. */
export async function* runsOf(inode: Inode, source: BlockSource, from: number): AsyncGenerator<Run, void, undefined> {
  const { serial, place } = inode;
  if ((inode.flags & inodeFlags.extents) !== 0) {
    yield* extentRuns({ serial, node: place, depthLeft: depthMax }, source, from);
    return;
  }
  // Files of ext2 and ext3: twelve blocks, then blocks of blocks, up to three levels.
  let logical = 0;
  for (let index = 0; index < 15; index++) {
    const level = Math.max(0, index - 11);
    yield* mappedRuns({ block: place.readUInt32LE(index * 4), level, logical }, source, from);
    logical += (source.blockBytes / 4) ** level;
  }
}

async function* extentRuns(
  { serial, node, depthLeft }: { readonly serial: number; readonly node: Buffer; readonly depthLeft: number },
  source: BlockSource,
  from: number,
): AsyncGenerator<Run, void, undefined> {
  const count = node.readUInt16LE(2);
  const depth = node.readUInt16LE(6);
  if (node.readUInt16LE(0) !== extentMagic || 12 + count * 12 > node.length) throw damagedFile(serial, "its extents are damaged");
  if (depth > depthLeft) throw damagedFile(serial, "its extents stand too deep");
  for (let index = 0; index < count; index++) {
    const at = 12 + index * 12;
    const logical = node.readUInt32LE(at);
    if (depth === 0) {
      const told = node.readUInt16LE(at + 4);
      const isUnwritten = told > longestExtent;
      const length = isUnwritten ? told - longestExtent : told;
      const physical = node.readUInt16LE(at + 6) * 2 ** 32 + node.readUInt32LE(at + 8);
      if (logical + length > from) yield { logical, count: length, ...(isUnwritten ? {} : { physical }) };
      continue;
    }
    const nextLogical = index + 1 < count ? node.readUInt32LE(at + 12) : Number.POSITIVE_INFINITY;
    if (nextLogical <= from) continue;
    const child = await source.readBlock(node.readUInt16LE(at + 8) * 2 ** 32 + node.readUInt32LE(at + 4));
    yield* extentRuns({ serial, node: child, depthLeft: depth - 1 }, source, from);
  }
}

async function* mappedRuns(
  { block, level, logical }: { readonly block: number; readonly level: number; readonly logical: number },
  source: BlockSource,
  from: number,
): AsyncGenerator<Run, void, undefined> {
  const perBlock = source.blockBytes / 4;
  if (block === 0 || logical + perBlock ** level <= from) return;
  if (level === 0) return yield { logical, count: 1, physical: block };
  const table = await source.readBlock(block);
  for (let index = 0; index < perBlock; index++) {
    const child = { block: table.readUInt32LE(index * 4), level: level - 1, logical: logical + index * perBlock ** (level - 1) };
    yield* mappedRuns(child, source, from);
  }
}

/** Content that stands in the inode itself: the place, and what an attribute holds beyond it. */
export function inlineContent({ serial, place, bytes }: Inode): { readonly first: Buffer; readonly rest: Buffer } {
  const beginAt = 128 + (bytes.length > 128 ? bytes.readUInt16LE(0x80) : 0);
  if (beginAt + 4 > bytes.length || bytes.readUInt32LE(beginAt) !== 0xea02_0000) return { first: place, rest: Buffer.alloc(0) };
  const entriesAt = beginAt + 4;
  for (let at = entriesAt; at + 16 <= bytes.length && bytes.readUInt32LE(at) !== 0;) {
    const nameBytes = bytes.readUInt8(at);
    const isData = bytes.readUInt8(at + 1) === 7 && bytes.toString("latin1", at + 16, at + 16 + nameBytes) === "data";
    if (isData) {
      const valueAt = entriesAt + bytes.readUInt16LE(at + 2);
      const valueBytes = bytes.readUInt32LE(at + 8);
      if (valueAt + valueBytes > bytes.length) throw damagedFile(serial, "its content leaves its inode");
      return { first: place, rest: bytes.subarray(valueAt, valueAt + valueBytes) };
    }
    at += 16 + Math.ceil(nameBytes / 4) * 4;
  }
  return { first: place, rest: Buffer.alloc(0) };
}

export function damagedFile(serial: number, finding: string): Fault {
  return new Fault("DataDamaged", `could not read a file of the guest: ${finding}`, {
    evidence: { inode: serial },
    causes: ["the guest's filesystem was damaged when the recovery point was made"],
    action: "choose another recovery point",
  });
}
