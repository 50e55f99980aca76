// The journal of an ext filesystem (jbd2): which blocks a mount would put in place, without putting them there.
// Layout: Linux, Documentation/filesystems/ext4/journal.rst.

import { Fault } from "../../contract/errors.ts";
import { crc32c } from "./crc32c.ts";

const magic = 0xc03b_3998;
const headBytes = 12;
const types = { descriptor: 1, commit: 2, superblock1: 3, superblock2: 4, revoke: 5 } as const;
const features = { revoke: 1, wide: 2, asyncCommit: 4, checksum2: 8, checksum3: 16, fastCommit: 32 } as const;
const knownFeatures = 63;
const tagFlags = { escaped: 1, sameUuid: 2, last: 8 } as const;

export interface JournalSource {
  /** Of the filesystem, and so of the journal. */
  readonly blockBytes: number;
  readonly blockCount: number;
  /** A block of the journal by its number in it. */
  readonly read: (block: number) => Promise<Buffer>;
}

/** Where the present content of a block stands. */
export interface JournaledBlock {
  /** In the journal. */
  readonly journalBlock: number;
  /** Its first four bytes are the journal's mark, which it does not hold itself there. */
  readonly isEscaped: boolean;
}

interface Shape {
  readonly first: number;
  readonly end: number;
  readonly hasWideNumbers: boolean;
  readonly checksum: "none" | "v2" | "v3";
  readonly seed: number;
}

interface Tag extends JournaledBlock {
  readonly block: number;
  readonly sequence: number;
}

/** By block of the filesystem. A transaction counts when its commit is there. */
export async function readJournal(source: JournalSource): Promise<ReadonlyMap<number, JournaledBlock>> {
  const head = await source.read(0);
  const type = head.readUInt32BE(4);
  if (head.readUInt32BE(0) !== magic || (type !== types.superblock1 && type !== types.superblock2))
    throw damaged("it does not begin as one");
  const start = head.readUInt32BE(0x1c);
  if (start === 0) return new Map();
  const shape = shapeOf(head, type, source);
  if (start < shape.first || start >= shape.end) throw damaged("it begins outside itself");
  const { tags, revoked } = await scan(source, shape, { start, sequence: head.readUInt32BE(0x18) });
  const blocks = new Map<number, JournaledBlock>();
  for (const { block, sequence, journalBlock, isEscaped } of tags)
    if (!isAtOrBefore(sequence, revoked.get(block))) blocks.set(block, { journalBlock, isEscaped });
  return blocks;
}

function shapeOf(head: Buffer, type: number, { blockBytes, blockCount }: JournalSource): Shape {
  const found = type === types.superblock2 ? head.readUInt32BE(0x28) : 0;
  const first = head.readUInt32BE(0x14);
  const end = head.readUInt32BE(0x10);
  if (head.readUInt32BE(0x0c) !== blockBytes || end > blockCount || first < 1 || first >= end) throw damaged("it has a wrong size");
  if ((found & ~knownFeatures) !== 0) throw unsupported("features that this program does not know");
  if ((found & features.fastCommit) !== 0) throw unsupported("fast commits");
  const checksum = (found & features.checksum3) !== 0 ? "v3" : (found & features.checksum2) !== 0 ? "v2" : "none";
  if ((found & features.asyncCommit) !== 0 && checksum === "none") throw unsupported("commits that do not prove their blocks");
  const seed = crc32c(head.subarray(0x30, 0x40));
  return { first, end, hasWideNumbers: (found & features.wide) !== 0, checksum, seed };
}

async function scan(
  source: JournalSource,
  shape: Shape,
  from: { readonly start: number; readonly sequence: number },
): Promise<{ readonly tags: readonly Tag[]; readonly revoked: ReadonlyMap<number, number> }> {
  const tags: Tag[] = [];
  const revoked = new Map<number, number>();
  let [pendingTags, pendingRevoked]: [Tag[], number[]] = [[], []];
  let { start: at, sequence } = from;
  const next = (block: number): number => (block + 1 >= shape.end ? shape.first : block + 1);
  // Each step uses a block of the journal, and none is used twice.
  for (let used = 0; used < shape.end;) {
    const block = await source.read(at);
    if (block.readUInt32BE(0) !== magic || block.readUInt32BE(8) !== sequence) break;
    const type = block.readUInt32BE(4);
    at = next(at);
    used += 1;
    if (type === types.descriptor) {
      if (!isProved(block, shape)) break;
      for (const { flags, ...tag } of tagsOf(block, shape)) {
        if (used >= shape.end) throw damaged("a transaction is longer than it");
        await requireContent(source, shape, { journalBlock: at, sequence, ...tag });
        pendingTags.push({ block: tag.block, journalBlock: at, sequence, isEscaped: (flags & tagFlags.escaped) !== 0 });
        at = next(at);
        used += 1;
      }
    } else if (type === types.revoke) {
      if (!isProved(block, shape)) break;
      pendingRevoked.push(...revokedOf(block, shape));
    } else if (type === types.commit) {
      if (!isCommitProved(block, shape)) break;
      tags.push(...pendingTags);
      for (const each of pendingRevoked) revoked.set(each, sequence);
      [pendingTags, pendingRevoked] = [[], []];
      sequence = (sequence + 1) >>> 0;
    } else break;
  }
  return { tags, revoked };
}

/** Sequences wrap around; a revocation holds for what was written up to it. */
function isAtOrBefore(sequence: number, revokedAt: number | undefined): boolean {
  return revokedAt !== undefined && ((sequence - revokedAt) | 0) <= 0;
}

function* tagsOf(
  block: Buffer,
  { hasWideNumbers, checksum }: Shape,
): Generator<{ readonly block: number; readonly flags: number; readonly digest: number }, void, undefined> {
  const tagBytes = checksum === "v3" ? 16 : (hasWideNumbers ? 12 : 8) + (checksum === "v2" ? 2 : 0);
  const end = block.length - (checksum === "none" ? 0 : 4);
  for (let at = headBytes; at + tagBytes <= end;) {
    const flags = checksum === "v3" ? block.readUInt32BE(at + 4) : block.readUInt16BE(at + 6);
    const high = hasWideNumbers ? block.readUInt32BE(at + 8) : 0;
    const digest = checksum === "v3" ? block.readUInt32BE(at + 12) : block.readUInt16BE(at + 4);
    yield { block: high * 2 ** 32 + block.readUInt32BE(at), flags, digest };
    if ((flags & tagFlags.last) !== 0) return;
    at += tagBytes + ((flags & tagFlags.sameUuid) !== 0 ? 0 : 16);
  }
}

function revokedOf(block: Buffer, { hasWideNumbers, checksum }: Shape): readonly number[] {
  const bytes = hasWideNumbers ? 8 : 4;
  const end = Math.min(block.readUInt32BE(headBytes), block.length - (checksum === "none" ? 0 : 4));
  const found: number[] = [];
  for (let at = headBytes + 4; at + bytes <= end; at += bytes)
    found.push(hasWideNumbers ? Number(block.readBigUInt64BE(at)) : block.readUInt32BE(at));
  return found;
}

/** Of a descriptor or a revocation: the last four bytes. */
function isProved(block: Buffer, { checksum, seed }: Shape): boolean {
  if (checksum === "none") return true;
  const at = block.length - 4;
  const plain = Buffer.from(block);
  plain.writeUInt32BE(0, at);
  return crc32c(plain, seed) === block.readUInt32BE(at);
}

function isCommitProved(block: Buffer, { checksum, seed }: Shape): boolean {
  if (checksum === "none") return true;
  const plain = Buffer.from(block);
  plain.writeUInt32BE(0, 16);
  return crc32c(plain, seed) === block.readUInt32BE(16);
}

async function requireContent(
  source: JournalSource,
  { checksum, seed }: Shape,
  tag: { readonly journalBlock: number; readonly sequence: number; readonly digest: number },
): Promise<void> {
  if (checksum === "none") return;
  const sequence = Buffer.alloc(4);
  sequence.writeUInt32BE(tag.sequence);
  const digest = crc32c(await source.read(tag.journalBlock), crc32c(sequence, seed));
  if ((checksum === "v3" ? digest : digest & 0xffff) !== tag.digest) throw damaged("a block in it does not fit its checksum");
}

function damaged(finding: string): Fault {
  return new Fault("DataDamaged", `could not read the guest's journal: ${finding}`, {
    causes: ["the guest's filesystem was damaged when the recovery point was made"],
    action: "choose another recovery point",
  });
}

function unsupported(what: string): Fault {
  return new Fault("OperationNotSupported", `could not read the guest's files: its journal has ${what}`, {
    evidence: { journal: what },
    action: "choose a recovery point that was made when the filesystem was unmounted, or start the machine in a test",
  });
}
