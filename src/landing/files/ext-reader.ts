// Files of an ext2, ext3 or ext4 filesystem, as a mount would show them: what its journal holds counts as in place.
// Layout: Linux, Documentation/filesystems/ext4.

import { Fault } from "../../contract/errors.ts";
import { readJournal, type JournaledBlock } from "./ext-journal.ts";
import { damagedFile, inlineContent, inodeFlags, parseInode, runsOf, type BlockSource, type Inode, type Run } from "./ext-inode.ts";
import type { GuestFiles, GuestNode, NamedNode, ReadAt } from "./guest-files.ts";

const rootSerial = 2;
const pieceBytesMax = 1 << 20;
const linkBytesMax = 4096;
const journalMark = Buffer.from([0xc0, 0x3b, 0x39, 0x98]);
const incompatible = { recover: 0x4, journalDevice: 0x8, metaGroups: 0x10, wide: 0x80 } as const;
/** What this reader knows: kinds in folders, recovery, groups of descriptors, extents, 64 bit, locks, flexible groups, attributes in inodes, seed, large folders, inline, encryption by file, casefold. */
const knownIncompatible = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;

interface Layout {
  readonly blockBytes: number;
  readonly blockCount: number;
  readonly firstDataBlock: number;
  readonly blocksPerGroup: number;
  readonly inodesPerGroup: number;
  readonly inodeCount: number;
  readonly inodeBytes: number;
  readonly descriptorBytes: number;
  /** Of the first group whose descriptors stand with it; none: all stand together. */
  readonly firstMetaGroup: number | undefined;
  readonly hasSuper: (group: number) => boolean;
  readonly journalSerial: number | undefined;
}

/** `readAt` counts from the filesystem's first byte. Throws OperationNotSupported by the name of what is not known. */
export async function openExtFiles(readAt: ReadAt): Promise<GuestFiles> {
  const superblock = Buffer.alloc(1024);
  await readAt(1024, superblock);
  const layout = parseSuperblock(superblock);
  const plain = new ExtReader(readAt, layout, new Map());
  if (layout.journalSerial === undefined) return await openRoot(plain);
  const journal = await plain.inode(layout.journalSerial);
  const read = async (block: number): Promise<Buffer> => await plain.blockOf(journal, block);
  const blocks = await readJournal({ ...layout, blockCount: Math.ceil(journal.sizeBytes / layout.blockBytes), read });
  const whereOf = new Map<number, JournaledBlock>();
  for (const [block, { journalBlock, isEscaped }] of blocks)
    whereOf.set(block, { journalBlock: await plain.physicalOf(journal, journalBlock), isEscaped });
  const replayed = new ExtReader(readAt, layout, whereOf);
  // The superblock is a block as others are: what the journal has of it counts.
  const fresh = (await replayed.readBlock(layout.firstDataBlock)).subarray(layout.blockBytes === 1024 ? 0 : 1024);
  return await openRoot(new ExtReader(readAt, { ...parseSuperblock(fresh), journalSerial: undefined }, whereOf));
}

async function openRoot(reader: ExtReader): Promise<GuestFiles> {
  const root = await reader.inode(rootSerial);
  if (root.kind !== "folder") throw damagedFile(rootSerial, "the root is no folder");
  return {
    root,
    list: (folder) => reader.list(folder),
    find: async (folder, name) => {
      for await (const entry of reader.entriesOf(await reader.inode(folder.serial)))
        if (entry.name.equals(name)) return await reader.inode(entry.serial);
      return undefined;
    },
    read: (file, offset = 0) => reader.read(file, offset),
    readLink: async (link) => await reader.readLink(link),
  };
}

function parseSuperblock(bytes: Buffer): Layout {
  if (bytes.readUInt16LE(0x38) !== 0xef53 || bytes.readUInt32LE(0x18) > 6) throw unsupported("a superblock of unknown form");
  const features = bytes.readUInt32LE(0x60);
  const compatible = bytes.readUInt32LE(0x5c);
  const unknown = features & ~knownIncompatible;
  if (unknown !== 0) throw unsupported(`features that this program does not know (0x${(unknown >>> 0).toString(16)})`);
  const hasJournal = (compatible & 0x4) !== 0 && (features & incompatible.recover) !== 0;
  if (hasJournal && bytes.readUInt32LE(0xe4) !== 0) throw unsupported("a journal on another disk");
  const isWide = (features & incompatible.wide) !== 0;
  const isDynamic = bytes.readUInt32LE(0x4c) > 0;
  const isSparse = isDynamic && (bytes.readUInt32LE(0x64) & 0x1) !== 0;
  const backups = (compatible & 0x200) === 0 ? undefined : [0, bytes.readUInt32LE(0x24c), bytes.readUInt32LE(0x250)];
  const layout = {
    blockBytes: 1024 << bytes.readUInt32LE(0x18),
    blockCount: bytes.readUInt32LE(4) + (isWide ? bytes.readUInt32LE(0x150) * 2 ** 32 : 0),
    firstDataBlock: bytes.readUInt32LE(0x14),
    blocksPerGroup: bytes.readUInt32LE(0x20),
    inodesPerGroup: bytes.readUInt32LE(0x28),
    inodeCount: bytes.readUInt32LE(0),
    inodeBytes: isDynamic ? bytes.readUInt16LE(0x58) : 128,
    descriptorBytes: isWide ? Math.max(32, bytes.readUInt16LE(0xfe)) : 32,
    firstMetaGroup: (features & incompatible.metaGroups) === 0 ? undefined : bytes.readUInt32LE(0x104),
    hasSuper: (group: number) => (backups === undefined ? !isSparse || isPowerGroup(group) : backups.includes(group)),
    journalSerial: hasJournal ? bytes.readUInt32LE(0xe0) : undefined,
  };
  const isPlausible =
    layout.blocksPerGroup > 0 && layout.inodesPerGroup > 0 && layout.inodeBytes >= 128 && layout.inodeBytes <= layout.blockBytes;
  if (!isPlausible) throw unsupported("a superblock of unknown form");
  return layout;
}

/** Groups 0, 1 and powers of 3, 5 and 7 keep a copy of the superblock. */
function isPowerGroup(group: number): boolean {
  const isPowerOf = (base: number): boolean => {
    let power = base;
    while (power < group) power *= base;
    return power === group;
  };
  return group <= 1 || isPowerOf(3) || isPowerOf(5) || isPowerOf(7);
}

class ExtReader implements BlockSource {
  readonly blockBytes: number;
  readonly #readAt: ReadAt;
  readonly #layout: Layout;
  /** Where blocks stand that the journal has, by their number. */
  readonly #journaled: ReadonlyMap<number, JournaledBlock>;

  constructor(readAt: ReadAt, layout: Layout, journaled: ReadonlyMap<number, JournaledBlock>) {
    this.#readAt = readAt;
    this.#layout = layout;
    this.#journaled = journaled;
    this.blockBytes = layout.blockBytes;
  }

  readonly readBlock = async (block: number): Promise<Buffer> => {
    const bytes = Buffer.alloc(this.blockBytes);
    await this.#readRun(block, bytes);
    return bytes;
  };

  /** A piece of a run that the journal does not cut. */
  async #readRun(block: number, into: Buffer): Promise<void> {
    const found = this.#journaled.get(block);
    const at = found?.journalBlock ?? block;
    if (at + into.length / this.blockBytes > this.#layout.blockCount) throw damagedFile(0, "a block lies outside the filesystem");
    await this.#readAt(at * this.blockBytes, into);
    if (found?.isEscaped === true) journalMark.copy(into);
  }

  async inode(serial: number): Promise<Inode> {
    const { inodesPerGroup, inodeCount, inodeBytes, descriptorBytes } = this.#layout;
    if (serial < 1 || serial > inodeCount) throw damagedFile(serial, "there is no such inode");
    const group = Math.floor((serial - 1) / inodesPerGroup);
    const descriptor = await this.#descriptor(group);
    const table = descriptor.readUInt32LE(8) + (descriptorBytes >= 64 ? descriptor.readUInt32LE(0x28) * 2 ** 32 : 0);
    const offset = ((serial - 1) % inodesPerGroup) * inodeBytes;
    const block = await this.readBlock(table + Math.floor(offset / this.blockBytes));
    const at = offset % this.blockBytes;
    return parseInode(serial, block.subarray(at, at + inodeBytes));
  }

  async #descriptor(group: number): Promise<Buffer> {
    const { firstDataBlock, descriptorBytes, firstMetaGroup, blocksPerGroup, hasSuper } = this.#layout;
    const perBlock = Math.floor(this.blockBytes / descriptorBytes);
    const index = Math.floor(group / perBlock);
    const isTogether = firstMetaGroup === undefined || index < firstMetaGroup;
    const ownGroup = index * perBlock;
    const block = isTogether ? firstDataBlock + 1 + index : firstDataBlock + ownGroup * blocksPerGroup + (hasSuper(ownGroup) ? 1 : 0);
    const at = (group % perBlock) * descriptorBytes;
    return (await this.readBlock(block)).subarray(at, at + descriptorBytes);
  }

  /** Where a block of a file stands; of the journal, which has no holes. */
  async physicalOf(inode: Inode, logical: number): Promise<number> {
    for await (const run of runsOf(inode, this, logical))
      if (run.logical <= logical && run.physical !== undefined) return run.physical + logical - run.logical;
      else break;
    throw damagedFile(inode.serial, "a block of it stands nowhere");
  }

  async blockOf(inode: Inode, logical: number): Promise<Buffer> {
    return await this.readBlock(await this.physicalOf(inode, logical));
  }

  async *list(folder: GuestNode): AsyncGenerator<NamedNode, void, undefined> {
    for await (const { name, serial } of this.entriesOf(await this.inode(folder.serial))) yield { name, node: await this.inode(serial) };
  }

  async *entriesOf(folder: Inode): AsyncGenerator<{ readonly name: Buffer; readonly serial: number }, void, undefined> {
    if (folder.kind !== "folder") throw damagedFile(folder.serial, "it is no folder");
    requirePlain(folder);
    // Folders have no holes: one that is larger than its filesystem would be a walk without end.
    if (folder.sizeBytes > this.#layout.blockCount * this.blockBytes)
      throw damagedFile(folder.serial, "it says to be larger than its filesystem");
    if ((folder.flags & inodeFlags.inline) !== 0) {
      const { first, rest } = inlineContent(folder);
      yield* entriesIn(folder.serial, first.subarray(4));
      yield* entriesIn(folder.serial, rest);
      return;
    }
    // Inner nodes of a hashed folder look like one empty entry over their whole block.
    for await (const piece of this.read(folder, 0))
      for (let at = 0; at < piece.length; at += this.blockBytes)
        yield* entriesIn(folder.serial, Buffer.from(piece.buffer, piece.byteOffset + at, Math.min(this.blockBytes, piece.length - at)));
  }

  async readLink(link: GuestNode): Promise<Buffer> {
    const inode = await this.inode(link.serial);
    if (inode.kind !== "link" || inode.sizeBytes > linkBytesMax) throw damagedFile(link.serial, "it is no link");
    requirePlain(inode);
    const isShort = (inode.flags & (inodeFlags.extents | inodeFlags.inline)) === 0 && inode.sizeBytes < inode.place.length;
    if (isShort) return Buffer.from(inode.place.subarray(0, inode.sizeBytes));
    return Buffer.concat(await Array.fromAsync(this.read(inode, 0)));
  }

  async *read(node: GuestNode, offset: number): AsyncGenerator<Uint8Array, void, undefined> {
    const inode = await this.inode(node.serial);
    requirePlain(inode);
    const { sizeBytes } = inode;
    if ((inode.flags & inodeFlags.inline) !== 0) {
      const { first, rest } = inlineContent(inode);
      const whole = Buffer.concat([first, rest]);
      if (whole.length < sizeBytes) throw damagedFile(inode.serial, "its content is cut");
      if (offset < sizeBytes) yield whole.subarray(offset, sizeBytes);
      return;
    }
    let at = offset;
    for await (const run of runsOf(inode, this, Math.floor(offset / this.blockBytes))) {
      const runAt = run.logical * this.blockBytes;
      if (runAt >= sizeBytes) break;
      if (runAt > at) yield* zeros(Math.min(runAt, sizeBytes) - at);
      at = Math.max(at, runAt);
      const end = Math.min(sizeBytes, runAt + run.count * this.blockBytes);
      if (run.physical === undefined) yield* zeros(end - at);
      else yield* this.#readWithin({ ...run, physical: run.physical }, at - runAt, end - runAt);
      at = Math.max(at, end);
    }
    if (at < sizeBytes) yield* zeros(sizeBytes - at);
  }

  /** Bytes `begin` to `end` of a run, in pieces that no journaled block cuts. */
  async *#readWithin(run: Run & { readonly physical: number }, begin: number, end: number): AsyncGenerator<Uint8Array, void, undefined> {
    const piecesMax = Math.max(1, Math.floor(pieceBytesMax / this.blockBytes));
    for (let at = begin; at < end;) {
      const block = Math.floor(at / this.blockBytes);
      let count = 1;
      const last = Math.min(block + piecesMax, Math.ceil(end / this.blockBytes));
      if (!this.#journaled.has(run.physical + block))
        while (block + count < last && !this.#journaled.has(run.physical + block + count)) count += 1;
      const bytes = Buffer.alloc(count * this.blockBytes);
      await this.#readRun(run.physical + block, bytes);
      const next = Math.min(end, (block + count) * this.blockBytes);
      yield bytes.subarray(at - block * this.blockBytes, next - block * this.blockBytes);
      at = next;
    }
  }
}

function* zeros(count: number): Generator<Uint8Array, void, undefined> {
  for (let left = count; left > 0; left -= pieceBytesMax) yield new Uint8Array(Math.min(left, pieceBytesMax));
}

function* entriesIn(serial: number, block: Buffer): Generator<{ readonly name: Buffer; readonly serial: number }, void, undefined> {
  for (let at = 0; at + 8 <= block.length;) {
    const told = block.readUInt16LE(at + 4);
    // A block of 64 KiB has no room for its own length.
    const length = told === 0xffff || (told === 0 && block.length === 0x1_0000) ? 0x1_0000 : told;
    const nameBytes = block.readUInt8(at + 6);
    if (length < 8 || at + length > block.length || 8 + nameBytes > length) {
      if (block.subarray(at).every((byte) => byte === 0)) return; // The unused end of an inline folder.
      throw damagedFile(serial, "an entry of the folder is damaged");
    }
    const found = block.readUInt32LE(at);
    const name = block.subarray(at + 8, at + 8 + nameBytes);
    const isReal = found !== 0 && nameBytes > 0 && !name.includes(0) && !name.includes(0x2f);
    if (isReal && !name.equals(dot) && !name.equals(dots)) yield { name: Buffer.from(name), serial: found };
    at += length;
  }
}

const dot = Buffer.from(".");
const dots = Buffer.from("..");

function requirePlain({ flags, serial }: Inode): void {
  if ((flags & inodeFlags.encrypted) === 0) return;
  throw new Fault("OperationNotSupported", "could not read a file of the guest: the guest has encrypted it", {
    evidence: { inode: serial },
    action: "start the machine in a test and read the file there",
  });
}

function unsupported(what: string): Fault {
  return new Fault("OperationNotSupported", `could not read the guest's files: its filesystem has ${what}`, {
    evidence: { filesystem: what },
    action: "start the machine in a test and read the files there",
  });
}
