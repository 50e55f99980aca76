// Says what stands in a partition by its first bytes: ext2/3/4 with what hydration must know, others by name.

import type { ReadAt } from "./partition-table.ts";

export type Filesystem =
  | {
      readonly kind: "ext";
      readonly uuid: string;
      readonly label: string;
      readonly freeBytes: number;
      /** The journal holds changes that are not in place yet. */
      readonly needsRecovery: boolean;
    }
  | { readonly kind: "xfs" | "btrfs" | "swap" | "vfat" | "luks"; readonly uuid: string | undefined; readonly label: string }
  | { readonly kind: "lvm" | "raid" | "unknown" };

export const headBytes = 68 * 1024;
const raidMagic = 0xa92b4efc;

export async function identifyFilesystem(readAt: ReadAt, offset: number, sizeBytes: number): Promise<Filesystem> {
  const head = Buffer.alloc(headBytes);
  const present = Math.min(headBytes, sizeBytes);
  await readAt(offset, head.subarray(0, present));
  // A mirror's member with its mark at the end looks like the filesystem that it holds; an edit of one member would part it from the other.
  for (const at of raidMarksAtEnd(sizeBytes)) {
    const mark = Buffer.alloc(4);
    await readAt(offset + at, mark);
    if (mark.readUInt32LE(0) === raidMagic) return { kind: "raid" };
  }
  return parseHead(head);
}

/** Where md's formats 1.0 and 0.90 put their marks. */
function raidMarksAtEnd(sizeBytes: number): readonly number[] {
  if (sizeBytes < 2 ** 18) return [];
  const wholeSectors = Math.floor(sizeBytes / 512);
  return [Math.floor((wholeSectors - 16) / 8) * 8 * 512, Math.floor(sizeBytes / 2 ** 16) * 2 ** 16 - 2 ** 16];
}

/** `head` holds the first 68 KiB, zeros where the partition is shorter. */
export function parseHead(head: Buffer): Filesystem {
  if (head.readUInt16LE(0x438) === 0xef53) return parseExt(head.subarray(1024, 2048));
  if (text(head, 0, 4) === "XFSB") return { kind: "xfs", uuid: uuidText(head, 32), label: words(head, 108, 12) };
  if (text(head, 0x10040, 8) === "_BHRfS_M") return { kind: "btrfs", uuid: uuidText(head, 0x10020), label: words(head, 0x1012b, 255) };
  if (text(head, 4086, 10) === "SWAPSPACE2") return { kind: "swap", uuid: uuidText(head, 1036), label: words(head, 1052, 16) };
  if ([0, 512, 1024, 1536].some((at) => text(head, at, 8) === "LABELONE" && text(head, at + 24, 8) === "LVM2 001")) return { kind: "lvm" };
  if (text(head, 0, 6) === "LUKS\u00ba\u00be") return { kind: "luks", uuid: words(head, 168, 40), label: "" };
  if (head.readUInt32LE(4096) === raidMagic || head.readUInt32LE(0) === raidMagic) return { kind: "raid" };
  if (text(head, 0x52, 5) === "FAT32") return { kind: "vfat", uuid: fatId(head, 0x43), label: words(head, 0x47, 11).trimEnd() };
  if (text(head, 0x36, 3) === "FAT") return { kind: "vfat", uuid: fatId(head, 0x27), label: words(head, 0x2b, 11).trimEnd() };
  return { kind: "unknown" };
}

function parseExt(superblock: Buffer): Filesystem {
  const blockBytes = 1024 * 2 ** Math.min(6, superblock.readUInt32LE(24));
  const incompatible = superblock.readUInt32LE(0x60);
  const has64Bit = (incompatible & 0x80) !== 0;
  const freeBlocks = superblock.readUInt32LE(12) + (has64Bit ? superblock.readUInt32LE(0x158) * 2 ** 32 : 0);
  return {
    kind: "ext",
    uuid: uuidText(superblock, 0x68),
    label: words(superblock, 0x78, 16),
    freeBytes: freeBlocks * blockBytes,
    needsRecovery: (incompatible & 0x4) !== 0,
  };
}

function text(bytes: Buffer, at: number, length: number): string {
  return bytes.toString("latin1", at, at + length);
}

/** Up to the first NUL. */
function words(bytes: Buffer, at: number, length: number): string {
  return text(bytes, at, length).replace(/\0.*$/s, "");
}

function uuidText(bytes: Buffer, at: number): string {
  return bytes.toString("hex", at, at + 16).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function fatId(bytes: Buffer, at: number): string {
  const hex = bytes.readUInt32LE(at).toString(16).padStart(8, "0").toUpperCase();
  return `${hex.slice(0, 4)}-${hex.slice(4)}`;
}
