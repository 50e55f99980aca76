// Looks into an initramfs image: early and main archives, compressed or not. The bytes themselves are never changed.

import { constants, gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { cpioTypes, readCpio, writeCpio, type CpioEntry } from "./cpio.ts";

export type Compression = "none" | "gzip" | "zstd" | "xz" | "lz4" | "lzma" | "bzip2";

export interface InitrdContent {
  /** Type bits of every path in all archives, later ones over earlier ones. */
  readonly types: ReadonlyMap<string, number>;
  /** How the main archive is packed. */
  readonly compression: Compression;
}

const unpackedBytesMax = 768 * 2 ** 20;
const archiveCountMax = 16;
/** Formats that Node does not unpack. The tools write a file beside the packed one. */
const outsideTools = {
  xz: { tool: "xz", ending: ".xz", args: ["-dqf"] },
  lzma: { tool: "xz", ending: ".lzma", args: ["-dqf", "--format=lzma"] },
  lz4: { tool: "lz4", ending: ".lz4", args: ["-dqf"] },
  bzip2: { tool: "bzip2", ending: ".bz2", args: ["-dqf"] },
} as const;

interface ReadInitrd {
  /** For messages. */
  readonly name: string;
  /** An empty folder for tools that unpack into files. */
  readonly scratchFolder: string;
}

/** Lists an initramfs. Throws Fault HydrationUnsupported when it cannot be read. */
export async function readInitrd(bytes: Buffer, given: ReadInitrd): Promise<InitrdContent> {
  const { name } = given;
  const types = new Map<string, number>();
  let compression: Compression = "none";
  let at = 0;
  for (let count = 0; count < archiveCountMax; count++) {
    at = skipZeros(bytes, at);
    if (at >= bytes.length) break;
    const kind = compressionOf(bytes, at);
    if (kind === undefined) {
      if (types.size > 0) break; // The kernel stops here, too; what it has read counts.
      throw unreadable(name, "its first bytes are of no known format");
    }
    if (kind === "none") {
      at = addArchive(types, bytes, at, name);
      continue;
    }
    compression = kind;
    const unpacked = await unpack(bytes.subarray(at), kind, given);
    for (let inside = 0; inside < unpacked.bytes.length;) {
      inside = skipZeros(unpacked.bytes, addArchive(types, unpacked.bytes, inside, name));
    }
    at += unpacked.usedBytes;
  }
  return { types, compression };
}

/** The image with one more archive behind it, packed as the image's main archive is where Node can. */
export function appendArchive(image: Buffer, entries: readonly CpioEntry[], compression: Compression): Buffer {
  const paddingBytes = (512 - (image.length % 512)) % 512;
  const archive = writeCpio(entries);
  return Buffer.concat([image, Buffer.alloc(paddingBytes), pack(archive, compression)]);
}

function pack(archive: Buffer, compression: Compression): Buffer {
  if (compression === "gzip") return gzipSync(archive, { level: 6 });
  if (compression === "zstd") return zstdCompressSync(archive, { params: { [constants.ZSTD_c_compressionLevel]: 6 } });
  return archive; // Every kernel reads a plain archive.
}

function addArchive(types: Map<string, number>, bytes: Buffer, from: number, name: string): number {
  const reading = readCpio(bytes, from);
  if (reading.kind === "broken") throw unreadable(name, `${reading.reason} at byte ${reading.at}`);
  for (const entry of reading.entries) types.set(entry.name.replace(/^\.?\//, ""), entry.mode & cpioTypes.mask);
  return reading.end;
}

function compressionOf(bytes: Buffer, at: number): Compression | undefined {
  const magic = bytes.toString("hex", at, at + 6);
  if (magic.startsWith("303730373031") || magic.startsWith("303730373032")) return "none";
  if (magic.startsWith("1f8b")) return "gzip";
  if (magic.startsWith("28b52ffd")) return "zstd";
  if (magic === "fd377a585a00") return "xz";
  if (magic.startsWith("02214c18") || magic.startsWith("04224d18")) return "lz4";
  if (magic.startsWith("5d0000")) return "lzma";
  if (magic.startsWith("425a68")) return "bzip2";
  return undefined;
}

async function unpack(
  packed: Buffer,
  kind: Exclude<Compression, "none">,
  given: ReadInitrd,
): Promise<{ bytes: Buffer; usedBytes: number }> {
  if (kind === "gzip") return unpackHere(packed, gunzipSync, given.name);
  if (kind === "zstd") return unpackHere(packed, zstdDecompressSync, given.name);
  const usedBytes = findNextArchive(packed);
  return { bytes: await unpackOutside(trimZeros(packed.subarray(0, usedBytes)), kind, given), usedBytes };
}

async function unpackOutside(packed: Buffer, kind: keyof typeof outsideTools, given: ReadInitrd): Promise<Buffer> {
  const { tool, ending, args } = outsideTools[kind];
  const path = join(given.scratchFolder, `packed-initrd`);
  try {
    await writeFile(`${path}${ending}`, packed);
    await runCommand(tool, [...args, `${path}${ending}`, ...(tool === "lz4" ? [path] : [])]);
    if ((await stat(path)).size > unpackedBytesMax) throw unreadable(given.name, "it is too large");
    return await readFile(path);
  } catch (error) {
    throw error instanceof Fault ? error : unreadable(given.name, `${tool} could not unpack it`, error);
  } finally {
    await Promise.all([rm(path, { force: true }), rm(`${path}${ending}`, { force: true })]);
  }
}

type UnpackSync = typeof gunzipSync | typeof zstdDecompressSync;

function unpackHere(packed: Buffer, unpackSync: UnpackSync, name: string): { bytes: Buffer; usedBytes: number } {
  try {
    // With `info` Node answers an object, which its types do not tell.
    const answer: unknown = unpackSync(packed, { maxOutputLength: unpackedBytesMax, info: true });
    if (!isInfo(answer)) throw new TypeError("zlib gave no info");
    return { bytes: answer.buffer, usedBytes: answer.engine.bytesWritten };
  } catch (error) {
    throw unreadable(name, "it could not be unpacked", error);
  }
}

function isInfo(value: unknown): value is { buffer: Buffer; engine: { bytesWritten: number } } {
  return typeof value === "object" && value !== null && "buffer" in value && "engine" in value;
}

/** Where a further archive of ours starts: at a multiple of 512 bytes. The end when there is none. */
function findNextArchive(packed: Buffer): number {
  for (let at = 512; at < packed.length; at += 512) {
    if (packed[at - 1] === 0 && packed[at - 2] === 0 && packed[at - 3] === 0 && compressionOf(packed, at) !== undefined) return at;
  }
  return packed.length;
}

function trimZeros(bytes: Buffer): Buffer {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  return bytes.subarray(0, Math.min(bytes.length, end + 4)); // A format may end in zeros of its own.
}

function skipZeros(bytes: Buffer, from: number): number {
  let at = from;
  while (at < bytes.length && bytes[at] === 0) at += 1;
  return at;
}

function unreadable(name: string, reason: string, cause?: unknown): Fault {
  return new Fault("HydrationUnsupported", `could not read the initramfs ${name}: ${reason}`, { cause });
}
