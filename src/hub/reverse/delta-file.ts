// Reads a reverse delta file: who signed it, which blocks it has, and the bytes of each, all checked before anybody uses them.

import { open, type FileHandle } from "node:fs/promises";
import { Fault } from "../../contract/errors.ts";
import { blockIdOf } from "../../disk/block-id.ts";
import { equalBytes } from "../../disk/digest.ts";
import { blockBytes, blockCountOf } from "../../disk/geometry.ts";
import { decompressEntry } from "../../vault/zstd.ts";
import { checkDocument } from "../pki/document-signer.ts";
import {
  decodeEntryHead,
  deltaHeadBytes,
  deltaMagic,
  deltaManifestShape,
  deltaType,
  deltaVersion,
  EntriesDigest,
  entryHeadBytes,
  manifestBytesMax,
  type DeltaManifest,
  type EntryHead,
} from "./delta-format.ts";

/** An entry, and where its bytes are. */
export interface PlacedEntry extends EntryHead {
  readonly bodyAt: number;
}

export interface DeltaFile extends AsyncDisposable {
  readonly manifest: DeltaManifest;
  /** The signed text: tells this delta from every other. */
  readonly signed: string;
  /** By the disk's place in the manifest, then by block. */
  readonly entries: readonly ReadonlyMap<number, PlacedEntry>[];
  /** The 64 KiB of a block, equal to its digest. */
  contentOf(entry: PlacedEntry): Promise<Buffer>;
}

/** Heads are read through a window of this size. */
const windowBytes = 1 << 20;

/** Throws SignatureInvalid unless the whole of it is what a hub of this authority wrote; bodies are checked when they are read. */
export async function openDeltaFile(path: string, caPem: string): Promise<DeltaFile> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const head = await readExactly(file, 0, deltaHeadBytes);
    const manifestBytes = head.readUInt32BE(12);
    if (
      !head.subarray(0, deltaMagic.length).equals(deltaMagic) ||
      head.readUInt32BE(8) !== deltaVersion ||
      manifestBytes > manifestBytesMax
    )
      throw damaged("it is no reverse delta of this version");
    const signed = (await readExactly(file, deltaHeadBytes, manifestBytes)).toString("utf8");
    const { document } = await checkDocument(signed, { type: deltaType, caPem });
    const manifest = deltaManifestShape.parse(document);
    const entries = await readEntries(file, manifest, { from: deltaHeadBytes + manifestBytes, to: size });
    return {
      manifest,
      signed,
      entries,
      contentOf: async (entry) => await readContent(file, entry),
      [Symbol.asyncDispose]: async () => await file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readEntries(
  file: FileHandle,
  manifest: DeltaManifest,
  { from, to }: { readonly from: number; readonly to: number },
): Promise<readonly ReadonlyMap<number, PlacedEntry>[]> {
  const entries = manifest.disks.map(() => new Map<number, PlacedEntry>());
  const digest = new EntriesDigest();
  let window: { readonly at: number; readonly bytes: Buffer } = { at: from, bytes: Buffer.alloc(0) };
  let at = from;
  let last = { disk: 0, block: -1 };
  for (let count = 0; count < manifest.entryCount; count++) {
    if (at + entryHeadBytes > window.at + window.bytes.length || at < window.at)
      window = { at, bytes: await readExactly(file, at, Math.min(windowBytes, to - at)) };
    const from0 = at - window.at;
    if (from0 + entryHeadBytes > window.bytes.length) throw damaged("it ends early");
    const entry = decodeEntryHead(window.bytes.subarray(from0, from0 + entryHeadBytes));
    const told = manifest.disks[entry?.disk ?? -1];
    if (entry === undefined || told === undefined || entry.block >= blockCountOf(told.sizeBytes)) throw damaged(`entry ${count} is none`);
    if (entry.disk < last.disk || (entry.disk === last.disk && entry.block <= last.block)) throw damaged("its entries are not in order");
    if (equalBytes(entry.before, entry.after)) throw damaged(`entry ${count} changes nothing`);
    entries[entry.disk]?.set(entry.block, { ...entry, bodyAt: at + entryHeadBytes });
    digest.add(entry);
    last = { disk: entry.disk, block: entry.block };
    at += entryHeadBytes + entry.bodyBytes;
  }
  if (at !== to) throw damaged("it does not end after its last entry");
  if (digest.digest() !== manifest.entriesDigest) throw damaged("its entries are not those that were signed");
  for (const [index, { entryCount }] of manifest.disks.entries())
    if (entries[index]?.size !== entryCount) throw damaged("a disk has not as many entries as were signed");
  return entries;
}

async function readContent(file: FileHandle, { packing, bodyBytes, bodyAt, after, block }: PlacedEntry): Promise<Buffer> {
  const body = await readExactly(file, bodyAt, bodyBytes);
  const plain = packing === "zero" ? Buffer.alloc(blockBytes) : packing === "raw" ? body : decompressEntry(body, blockBytes);
  if (plain?.length !== blockBytes || !equalBytes(blockIdOf(plain), after))
    throw damaged(`the bytes of block ${block} are not those that were signed`);
  return plain;
}

async function readExactly(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(Math.max(0, length));
  for (let done = 0; done < bytes.length;) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, offset + done);
    if (bytesRead === 0) throw damaged("it ends early");
    done += bytesRead;
  }
  return bytes;
}

function damaged(reason: string): Fault {
  return new Fault("SignatureInvalid", `could not trust the reverse delta: ${reason}`);
}
