// Reads sysfs: whole physical disks, and which of them a mounted device stands on.

import { readdir, readFile, readlink, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** A whole physical disk as the kernel names it at this boot. */
export interface PhysicalDisk {
  readonly name: string;
  /** Names of the devices that lead to it: several under dm-multipath, else its own alone. */
  readonly ways: readonly string[];
  /** (major << 20) | minor, as trace events carry it. */
  readonly device: number;
  readonly sizeBytes: number;
  readonly logicalBlockBytes: number;
}

const virtualNames = /^(loop|ram|zram|dm-|md|sr|fd|nbd|drbd|rbd)/;
/** Devices without a place on a bus, but for NVMe namespaces with several ways to them, which stand there. */
const virtualPlaces = /\/devices\/virtual\/(?!nvme-subsystem\/)/;
const levelsMax = 16;

export async function readTrimmed(path: string): Promise<string | undefined> {
  const text = await readFile(path, "utf8").catch(() => undefined); // Absent attributes are normal in sysfs.
  return text?.replaceAll("\0", "").trim();
}

/** Compares paths by their numbers as numbers: the disk at 2:0:10:0 comes after the one at 2:0:9:0. */
const pathOrder = new Intl.Collator("en", { numeric: true });

/**
 * Disks with a device behind them; not loop, md, zram, CD or other removable drives, and of dm only what joins several ways to one disk:
 * that is the disk then, whichever way its reads and writes take, and the ways are none. In the order of their places on the
 * machine's buses: SCSI disks get their names (sda, sdb) in the order in which they answer, which differs from boot to boot.
 */
export async function listPhysicalDisks(sysFolder = "/sys"): Promise<PhysicalDisk[]> {
  const names = await readdir(join(sysFolder, "block"));
  const placed: { readonly place: string; readonly disk: PhysicalDisk }[] = [];
  const waysOf = new Map(await Promise.all(names.map(async (name) => [name, await waysTo(name, sysFolder)] as const)));
  const joined = new Set([...waysOf].flatMap(([name, ways]) => ways.filter((way) => way !== name)));
  for (const name of names) {
    const [way, ...more] = waysOf.get(name) ?? [];
    const isJoin = way !== undefined && (more.length > 0 || way !== name);
    if (way === undefined || joined.has(name) || (virtualNames.test(name) && !isJoin)) continue;
    const folder = join(sysFolder, "block", name);
    const attribute = async (path: string): Promise<string> => (await readTrimmed(join(folder, path))) ?? "";
    const target = await realpath(join(sysFolder, "block", way));
    if (virtualPlaces.test(target) || (await attribute("removable")) === "1" || (await attribute("hidden")) === "1") continue;
    const sizeBytes = Number(await attribute("size")) * 512;
    if (!(sizeBytes > 0)) continue;
    const device = parseDevice(await attribute("dev"));
    const logicalBlockBytes = Number(await attribute("queue/logical_block_size")) || 512;
    if (device !== undefined) placed.push({ place: target, disk: { name, ways: [way, ...more], device, sizeBytes, logicalBlockBytes } });
  }
  return placed.sort((one, other) => pathOrder.compare(one.place, other.place)).map(({ disk }) => disk);
}

/** Whether the device joins several ways to one disk: multipathd says so in the name that it gives the mapping for good. */
async function isJoinOfWays(folder: string): Promise<boolean> {
  return (await readTrimmed(join(folder, "dm/uuid")))?.startsWith("mpath-") === true;
}

/** The devices that lead to a disk, in the order of their places; none when all of them are gone. */
export async function waysTo(name: string, sysFolder = "/sys"): Promise<readonly string[]> {
  const folder = join(sysFolder, "block", name);
  if (!(await isJoinOfWays(folder))) return [name];
  const slaves = await readdir(join(folder, "slaves")).catch((): string[] => []); // The mapping has just gone.
  const placed = await Promise.all(
    slaves.map(async (way) => ({ way, place: await realpath(join(folder, "slaves", way)).catch(() => way) })),
  );
  return placed.sort((one, other) => pathOrder.compare(one.place, other.place)).map(({ way }) => way);
}

/** "8:1" as (major << 20) | minor. */
function parseDevice(text: string): number | undefined {
  const [, major, minor] = /^(\d+):(\d+)$/.exec(text.trim()) ?? [];
  return major === undefined || minor === undefined ? undefined : Number(major) * 2 ** 20 + Number(minor);
}

/** Names of the whole disks under a device ("254:3"): through partitions, LVM, md and crypt, as far as where ways are joined. */
export async function disksUnder(majorMinor: string, sysFolder = "/sys"): Promise<Set<string>> {
  const found = new Set<string>();
  const walk = async (folder: string, level: number): Promise<void> => {
    if (level > levelsMax) return;
    if (await isJoinOfWays(folder)) return void found.add(basename(folder));
    const slaves = await readdir(join(folder, "slaves")).catch((): string[] => []); // Partitions have no such folder.
    for (const slave of slaves) await walk(await realpath(join(folder, "slaves", slave)), level + 1);
    if (slaves.length > 0) return;
    const isPartition = (await readTrimmed(join(folder, "partition"))) !== undefined;
    found.add(basename(isPartition ? dirname(folder) : folder));
  };
  const folder = await realpath(join(sysFolder, "dev/block", majorMinor)).catch(() => undefined); // Not a block device: nothing is under it.
  if (folder !== undefined) await walk(folder, 0);
  return found;
}

/** Where a partition or whole disk lies: disk name and byte range; undefined for other mapped devices. */
export async function placeOfDevice(
  name: string,
  sysFolder = "/sys",
): Promise<{ disk: string; offset: number; length: number } | undefined> {
  const link = await readlink(join(sysFolder, "class/block", name)).catch(() => undefined); // Gone since it was listed.
  if (link === undefined) return undefined;
  const folder = await realpath(join(sysFolder, "class/block", name));
  const length = Number((await readTrimmed(join(folder, "size"))) ?? "0") * 512;
  const start = await readTrimmed(join(folder, "start"));
  if (start !== undefined) return { disk: basename(dirname(folder)), offset: Number(start) * 512, length };
  return virtualNames.test(name) && !(await isJoinOfWays(folder)) ? undefined : { disk: name, offset: 0, length };
}
