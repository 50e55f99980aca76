// Where the active swaps lie on the disks: what is in them dies with the machine and is not replicated. What is not certain is.

import { open, readFile, realpath, stat } from "node:fs/promises";
import { basename } from "node:path";
import { tryCommand } from "../../base/run-command.ts";
import { granuleBytes } from "../../disk/geometry.ts";
import type { SystemCalls } from "../kernel/system-calls.ts";
import { parseMountinfo, parseSwaps } from "./mounts.ts";
import { alignInward, joinRanges, type ByteRange } from "./ranges.ts";
import { placeOfDevice, readTrimmed } from "./sysfs.ts";

/** Label, UUID and signature of a swap stand in its first page: it stays, and the landed machine finds its swap again. */
const swapHeadBytes = granuleBytes;
/** As many ranges as the facts of a disk may name; the largest are taken. */
const rangesMax = 256;
const levelsMax = 8;

/** Excluded ranges by disk name. A swap in use cannot be moved, cut or written to as a file, so its place holds until swapoff. */
export async function readSwapRanges(calls: SystemCalls): Promise<ReadonlyMap<string, readonly ByteRange[]>> {
  const swaps = parseSwaps(await readFile("/proc/swaps", "utf8"));
  const found = new Map<string, ByteRange[]>();
  for (const { path, kind } of swaps) {
    const pieces = kind === "partition" ? await piecesOfDevice(path) : await piecesOfFile(calls, path);
    for (const { disk, range } of pieces) {
      const whole = alignInward(range);
      if (whole !== undefined) found.set(disk, [...(found.get(disk) ?? []), whole]);
    }
  }
  return new Map([...found].map(([disk, ranges]) => [disk, largest(joinRanges(ranges))]));
}

function largest(ranges: readonly ByteRange[]): readonly ByteRange[] {
  if (ranges.length <= rangesMax) return ranges;
  return joinRanges([...ranges].sort((a, b) => b.length - a.length).slice(0, rangesMax));
}

interface Piece {
  readonly disk: string;
  readonly range: ByteRange;
}

async function piecesOfDevice(path: string): Promise<readonly Piece[]> {
  const name = basename(await realpath(path).catch(() => path)); // Gone: then it has no place.
  const length = Number((await readTrimmed(`/sys/class/block/${name}/size`)) ?? "0") * 512;
  return await piecesOn(name, { offset: swapHeadBytes, length: length - swapHeadBytes });
}

const plainFilesystems = new Set(["ext2", "ext3", "ext4", "xfs"]);

/** Nothing where the filesystem's answer need not be a place on its one device (btrfs, XFS with a real-time device). */
async function piecesOfFile(calls: SystemCalls, path: string): Promise<readonly Piece[]> {
  await using file = await open(path, "r").catch(() => undefined);
  if (file === undefined) return [];
  const { dev } = await stat(path);
  const device = `${Math.floor(dev / 256) % 4096}:${(dev % 256) + Math.floor(dev / 2 ** 20) * 256}`;
  const mountinfo = await readFile("/proc/self/mountinfo", "utf8");
  const mount = parseMountinfo(mountinfo).find((one) => one.device === device);
  if (mount === undefined || !plainFilesystems.has(mount.kind) || mountinfo.includes("rtdev=")) return [];
  const name = basename(await realpath(`/sys/dev/block/${device}`));
  const pieces: Piece[] = [];
  for (const extent of readExtents(calls, file.fd)) {
    const skip = Math.max(0, swapHeadBytes - extent.logical);
    if (extent.length > skip) pieces.push(...(await piecesOn(name, { offset: extent.physical + skip, length: extent.length - skip })));
  }
  return pieces;
}

export interface Extent {
  readonly logical: number;
  readonly physical: number;
  readonly length: number;
}

const fiemapRequest = 0xc020_660b;
const fiemapHeadBytes = 32;
const fiemapExtentBytes = 56;
const extentsPerCall = 256;
const extentsMax = 4096;

/** The places of a file by FIEMAP (kernel documentation, filesystems/fiemap). None when any of them is not certain. */
function readExtents(calls: SystemCalls, fd: number): readonly Extent[] {
  const extents: Extent[] = [];
  for (let start = 0n; extents.length < extentsMax;) {
    const buffer = new Uint8Array(fiemapHeadBytes + extentsPerCall * fiemapExtentBytes);
    const view = new DataView(buffer.buffer);
    view.setBigUint64(0, start, true);
    view.setBigUint64(8, 2n ** 63n - 1n - start, true);
    view.setUint32(24, extentsPerCall, true);
    try {
      calls.call("ioctl", fd, fiemapRequest, calls.addressOf(buffer));
    } catch {
      return []; // A filesystem that does not tell: the file is replicated.
    }
    const answer = parseExtents(view);
    if (answer === undefined) return [];
    extents.push(...answer.extents);
    const last = answer.extents.at(-1);
    if (answer.isLast || last === undefined) return extents;
    start = BigInt(last.logical + last.length);
  }
  return [];
}

const extentFlags = { last: 0x1, unwritten: 0x800, merged: 0x1000 };

/** undefined when an extent says anything but "here I am, alone": unknown, delayed, packed, encrypted, shared. */
export function parseExtents(view: DataView): { readonly extents: readonly Extent[]; readonly isLast: boolean } | undefined {
  const count = view.getUint32(20, true);
  const extents: Extent[] = [];
  let isLast = false;
  for (let index = 0; index < count; index++) {
    const at = fiemapHeadBytes + index * fiemapExtentBytes;
    if (at + fiemapExtentBytes > view.byteLength) return undefined;
    const flags = view.getUint32(at + 40, true);
    if ((flags & ~(extentFlags.last | extentFlags.unwritten | extentFlags.merged)) !== 0) return undefined;
    isLast ||= (flags & extentFlags.last) !== 0;
    const numberAt = (offset: number): number => Number(view.getBigUint64(at + offset, true));
    extents.push({ logical: numberAt(0), physical: numberAt(8), length: numberAt(16) });
  }
  return { extents, isLast };
}

/** A range of a device as ranges of whole disks: through partitions and linear mappings. Nothing when anything else lies between. */
async function piecesOn(name: string, range: ByteRange, level = 0): Promise<readonly Piece[]> {
  if (level > levelsMax || range.length <= 0) return [];
  const place = await placeOfDevice(name);
  if (place !== undefined) {
    if (range.offset + range.length > place.length) return [];
    return [{ disk: place.disk, range: { offset: place.offset + range.offset, length: range.length } }];
  }
  if (!name.startsWith("dm-")) return [];
  const number = await readTrimmed(`/sys/class/block/${name}/dev`);
  const [major, minor] = (number ?? "").split(":");
  const table = await tryCommand("dmsetup", ["table", "--major", major ?? "", "--minor", minor ?? ""]);
  const parts = table.exitCode === 0 ? mapLinear(table.stdout, range) : [];
  const pieces: Piece[] = [];
  for (const part of parts) {
    const under = basename(await realpath(`/sys/dev/block/${part.device}`).catch(() => ""));
    pieces.push(...(await piecesOn(under, part.range, level + 1)));
  }
  return pieces;
}

/** A range through a device-mapper table; nothing when a line of it is not "linear". */
export function mapLinear(table: string, range: ByteRange): readonly { readonly device: string; readonly range: ByteRange }[] {
  const lines = table.split("\n").filter((line) => line.trim() !== "");
  const parts: { readonly device: string; readonly range: ByteRange }[] = [];
  for (const line of lines) {
    const [, start, count, device, at] = /^(\d+) (\d+) linear (\d+:\d+) (\d+)$/.exec(line.trim()) ?? [];
    if (start === undefined || count === undefined || device === undefined || at === undefined) return [];
    const segment = { offset: Number(start) * 512, length: Number(count) * 512 };
    const first = Math.max(segment.offset, range.offset);
    const end = Math.min(segment.offset + segment.length, range.offset + range.length);
    if (end > first) parts.push({ device, range: { offset: Number(at) * 512 + first - segment.offset, length: end - first } });
  }
  return parts;
}
