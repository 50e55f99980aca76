// Looks into an initramfs image: early and main archives, compressed or not. The bytes themselves are never changed.

import { constants, gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
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
/** Zeros between archives: the kernel's lz4 takes four of them for its end, and they tell ours from packed bytes that look like one. */
const gapBytesMin = 8;
const toolMsMax = 120_000;
/** Formats that Node does not unpack. */
const outsideTools = {
  xz: ["xz", "-dcq", "--format=xz"],
  lzma: ["xz", "-dcq", "--format=lzma"],
  lz4: ["lz4", "-dcq"],
  bzip2: ["bzip2", "-dcq"],
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
    const unpacked = await unpack(bytes, at, kind, given);
    for (let inside = 0; inside < unpacked.bytes.length;) {
      inside = skipZeros(unpacked.bytes, addArchive(types, unpacked.bytes, inside, name));
    }
    at += unpacked.usedBytes;
  }
  return { types, compression };
}

/** Entries as an archive that is packed as the image's main archive is, where Node can. */
export function packArchive(entries: readonly CpioEntry[], compression: Compression): Buffer {
  return pack(writeCpio(entries), compression);
}

/** The image with one more packed archive behind it. */
export function appendArchive(image: Buffer, packed: Uint8Array): Buffer {
  const paddingBytes = ((512 - ((image.length + gapBytesMin) % 512)) % 512) + gapBytesMin;
  return Buffer.concat([image, Buffer.alloc(paddingBytes), packed]);
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
  bytes: Buffer,
  at: number,
  kind: Exclude<Compression, "none">,
  given: ReadInitrd,
): Promise<{ bytes: Buffer; usedBytes: number }> {
  if (kind === "gzip") return unpackHere(bytes.subarray(at), gunzipSync, given.name);
  if (kind === "zstd") return unpackHere(bytes.subarray(at), zstdDecompressSync, given.name);
  const end = findNextArchive(bytes, at);
  return { bytes: await unpackOutside(bytes.subarray(at, end), kind, given), usedBytes: end - at };
}

/** What a tool says of zeros behind its format is no matter: the archive's own end tells whether all came out. */
async function unpackOutside(packed: Buffer, kind: keyof typeof outsideTools, given: ReadInitrd): Promise<Buffer> {
  const [tool, ...args] = outsideTools[kind];
  const [from, to] = [join(given.scratchFolder, "initrd-packed"), join(given.scratchFolder, "initrd-unpacked")];
  try {
    await writeFile(from, packed);
    await using output = await open(to, "w");
    // A small file can unpack to more than the disk holds.
    const child = spawn("prlimit", [`--fsize=${unpackedBytesMax}`, tool, ...args, from], {
      stdio: ["ignore", output.fd, "ignore"],
      timeout: toolMsMax,
      killSignal: "SIGKILL",
    });
    await once(child, "close");
    const unpacked = await readFile(to);
    if (unpacked.length > 0 && unpacked.length < unpackedBytesMax) return unpacked;
    throw unreadable(given.name, `${tool} could not unpack it`);
  } catch (error) {
    throw error instanceof Fault ? error : unreadable(given.name, `${tool} could not unpack it`, error);
  } finally {
    await Promise.all([rm(from, { force: true }), rm(to, { force: true })]);
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

/** Where a further archive of ours starts: at a multiple of 512 bytes, behind zeros. The end when there is none. */
function findNextArchive(bytes: Buffer, from: number): number {
  const gap = Buffer.alloc(gapBytesMin);
  for (let at = Math.ceil((from + 1) / 512) * 512; at < bytes.length; at += 512) {
    if (at - gapBytesMin > from && bytes.subarray(at - gapBytesMin, at).equals(gap) && compressionOf(bytes, at) !== undefined) return at;
  }
  return bytes.length;
}

function skipZeros(bytes: Buffer, from: number): number {
  let at = from;
  while (at < bytes.length && bytes[at] === 0) at += 1;
  return at;
}

function unreadable(name: string, reason: string, cause?: unknown): Fault {
  return new Fault("HydrationUnsupported", `could not read the initramfs ${name}: ${reason}`, { cause });
}
