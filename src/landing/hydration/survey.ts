// Surveys a clone's disks: partitions, filesystems, and which of them is the root. Reads only, but for journals.

import { open } from "node:fs/promises";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { ExtFiles } from "./ext-files.ts";
import { identifyFilesystem, type Filesystem } from "./filesystem.ts";
import { parseFstab } from "./fstab.ts";
import { replayJournal } from "./journal.ts";
import { readPartitionTable, type Partition } from "./partition-table.ts";

export interface Volume {
  readonly diskIndex: number;
  readonly partition: Partition;
  readonly filesystem: Filesystem;
}

export type ExtVolume = Volume & { readonly filesystem: Filesystem & { readonly kind: "ext" } };

/** Where the guest's files are. */
export interface GuestRoot {
  readonly root: ExtVolume;
  readonly rootFiles: ExtFiles;
  /** The volume of /boot, the root itself when it has no own. */
  readonly boot: ExtVolume;
  readonly bootFiles: ExtFiles;
  /** What to put before a path in /boot to find it in bootFiles. */
  readonly bootPrefix: "/boot" | "";
  readonly fstab: string;
}

export interface SurveyOptions {
  /** Raw images in the source's order. */
  readonly imagePaths: readonly string[];
  readonly bootDiskIndex: number;
  readonly scratchFolder: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

export async function surveyVolumes(imagePaths: readonly string[]): Promise<readonly Volume[]> {
  const volumes: Volume[] = [];
  for (const [diskIndex, path] of imagePaths.entries()) {
    await using file = await open(path, "r");
    const { size: sizeBytes } = await file.stat();
    const readAt = async (offset: number, into: Buffer) => {
      const cannot = `could not read disk ${diskIndex} of the clone at byte ${offset}`;
      const { bytesRead } = await file.read(into, 0, into.length, offset).catch((cause: unknown) => {
        throw new Fault("DataDamaged", cannot, { cause });
      });
      if (bytesRead !== into.length) throw new Fault("DataDamaged", cannot);
    };
    const { partitions } = await readPartitionTable({ sizeBytes, readAt });
    for (const partition of partitions) {
      volumes.push({ diskIndex, partition, filesystem: await identifyFilesystem(readAt, partition.offset, partition.sizeBytes) });
    }
  }
  return volumes;
}

/** Finds the root. Throws Fault HydrationUnsupported with what was found instead. */
export async function findGuestRoot(volumes: readonly Volume[], options: SurveyOptions): Promise<GuestRoot> {
  const candidates = volumes
    .filter(isExt)
    .sort((a, b) => Number(b.diskIndex === options.bootDiskIndex) - Number(a.diskIndex === options.bootDiskIndex));
  const open = async (volume: ExtVolume) => await openFiles(volume, options);
  for (const root of candidates) {
    const rootFiles = await open(root);
    const fstab = (await rootFiles.read(["/etc/fstab"])).get("/etc/fstab")?.toString("utf8");
    if (fstab === undefined || (await rootFiles.list("/lib/modules")) === undefined) continue;
    const bootEntry = parseFstab(fstab).find(({ mountPoint }) => mountPoint === "/boot");
    if (bootEntry === undefined) return { root, rootFiles, boot: root, bootFiles: rootFiles, bootPrefix: "/boot", fstab };
    const boot = volumes.find((volume) => isNamed(volume, bootEntry.source));
    if (boot === undefined || !isExt(boot)) throw unsupported(volumes, `its /boot (${bootEntry.source}) is not on ext2, ext3 or ext4`);
    return { root, rootFiles, boot, bootFiles: await open(boot), bootPrefix: "", fstab };
  }
  throw unsupported(volumes, "no root filesystem of Linux on ext2, ext3 or ext4 was found");
}

function isExt(volume: Volume): volume is ExtVolume {
  return volume.filesystem.kind === "ext";
}

async function openFiles(volume: ExtVolume, options: SurveyOptions): Promise<ExtFiles> {
  const imagePath = options.imagePaths[volume.diskIndex] ?? "";
  const { scratchFolder, signal } = options;
  const { offset } = volume.partition;
  const files = new ExtFiles({ imagePath, offset, scratchFolder, ...(signal === undefined ? {} : { signal }) });
  if (volume.filesystem.needsRecovery) await replayJournal({ ...options, imagePath, partition: volume.partition });
  return files;
}

/** Whether an fstab source means this volume. */
function isNamed(volume: Volume, source: string): boolean {
  const { filesystem, diskIndex, partition } = volume;
  const uuid = "uuid" in filesystem ? filesystem.uuid : undefined;
  if (source.startsWith("UUID=")) return source.slice(5).replaceAll('"', "").toLowerCase() === uuid?.toLowerCase();
  if (source.startsWith("/dev/disk/by-uuid/")) return source.slice(18).toLowerCase() === uuid?.toLowerCase();
  if (source.startsWith("LABEL=")) return filesystem.kind === "ext" && filesystem.label !== "" && source.slice(6) === filesystem.label;
  return source === `/dev/sd${String.fromCodePoint(97 + diskIndex)}${partition.number}`;
}

function unsupported(volumes: readonly Volume[], reason: string): Fault {
  const found = volumes.map(
    ({ diskIndex, partition, filesystem }) => `disk ${diskIndex} partition ${partition.number}: ${filesystem.kind}`,
  );
  return new Fault("HydrationUnsupported", `could not hydrate the clone: ${reason}`, { evidence: { found: found.slice(0, 60) } });
}
