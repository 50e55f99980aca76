// Filesystems on a guest's disks: found in their partitions, opened where this program knows them, named where it does not.

import { Fault } from "../../contract/errors.ts";
import type { Disk } from "../../disk/disk.ts";
import { identifyFilesystem, type Filesystem } from "../hydration/filesystem.ts";
import { readPartitionTable, type ReadAt } from "../hydration/partition-table.ts";
import { openExtFiles } from "./ext-reader.ts";
import type { GuestFiles, GuestNode } from "./guest-files.ts";

export interface GuestVolume {
  /** "1": the first partition of the first disk is "1.1"; a disk without partitions has "1.0". */
  readonly name: string;
  /** -1: put together from several. */
  readonly diskIndex: number;
  readonly partition: number;
  readonly offset: number;
  readonly sizeBytes: number;
  readonly filesystem: Filesystem;
}

/** Of all disks of a machine, in its order. */
export async function findVolumes(disks: readonly Disk[], signal?: AbortSignal): Promise<readonly GuestVolume[]> {
  const volumes: GuestVolume[] = [];
  for (const [diskIndex, disk] of disks.entries()) {
    const readAt = readerOf(disk, 0, signal);
    const { partitions } = await readPartitionTable({ sizeBytes: disk.sizeBytes, readAt });
    for (const { number: partition, offset, sizeBytes } of partitions)
      volumes.push({
        ...{ name: `${diskIndex + 1}.${partition}`, diskIndex, partition, offset, sizeBytes },
        filesystem: await identifyFilesystem(readAt, offset, sizeBytes),
      });
  }
  return volumes;
}

/** Throws OperationNotSupported by the name of what stands there. */
export async function openVolume(disks: readonly Disk[], volume: GuestVolume, signal?: AbortSignal): Promise<GuestFiles> {
  const disk = disks[volume.diskIndex];
  if (disk !== undefined && volume.filesystem.kind === "ext") return await openExtFiles(readerOf(disk, volume.offset, signal));
  throw new Fault(
    "OperationNotSupported",
    `could not read the files of volume ${volume.name}: it holds ${wordsOf[volume.filesystem.kind]}`,
    {
      evidence: { volume: volume.name, filesystem: volume.filesystem.kind },
      action: "files are read from ext2, ext3 and ext4; start the machine in a test for others",
      retry: "never",
    },
  );
}

const wordsOf: Readonly<Record<Filesystem["kind"], string>> = {
  ext: "an ext filesystem",
  xfs: "XFS",
  btrfs: "btrfs",
  swap: "swap",
  vfat: "FAT",
  lvm: "a physical volume of LVM",
  luks: "an encrypted volume (LUKS)",
  raid: "a member of a RAID (md)",
  unknown: "nothing that is known",
};

function readerOf(disk: Disk, base: number, signal: AbortSignal | undefined): ReadAt {
  return async (offset, into) => {
    if (offset < 0 || base + offset + into.length > disk.sizeBytes)
      throw new Fault("DataDamaged", "could not read the guest's files: the filesystem reaches beyond its disk", {
        evidence: { offset: base + offset, sizeBytes: disk.sizeBytes },
      });
    await disk.read(base + offset, into, signal);
  };
}

export const pathBytesMax = 4096;

/** Follows no links. Throws NotFound, and says where a link stands in the way and to where it leads. */
export async function findNode(files: GuestFiles, path: string): Promise<GuestNode> {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (names.includes("..") || Buffer.byteLength(path) > pathBytesMax)
    throw new Fault("InputInvalid", 'could not read a path of the guest: it is longer than 4096 bytes or has ".." in it');
  let node = files.root;
  for (const [index, name] of names.entries()) {
    const here = `/${names.slice(0, index).join("/")}`;
    if (node.kind === "link")
      throw new Fault("NotFound", `could not find ${path}: ${here} is a link`, {
        evidence: { link: here, leadsTo: (await files.readLink(node)).toString("utf8") },
        action: "ask for the path that the link leads to",
      });
    const found = node.kind === "folder" ? await files.find(node, Buffer.from(name)) : undefined;
    if (found === undefined)
      throw new Fault("NotFound", `could not find ${path} in the guest's files`, { evidence: { path, foundUpTo: here } });
    node = found;
  }
  return node;
}
