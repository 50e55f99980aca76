// Filesystems of a clone and who opens them: ext and FAT by this host's tools, all others in the helper machine.

import { open } from "node:fs/promises";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { ExtFiles } from "./ext-files.ts";
import { FatFiles } from "./fat-files.ts";
import { identifyFilesystem, type Filesystem } from "./filesystem.ts";
import { replayJournal } from "./journal.ts";
import { readPartitionTable, type Partition } from "./partition-table.ts";
import type { VolumeFiles } from "./volume-files.ts";

export interface Volume {
  /** For people. */
  readonly title: string;
  readonly place:
    | { readonly kind: "partition"; readonly diskIndex: number; readonly partition: Partition }
    /** Put together from others, and known to the guest under these names on any hardware. */
    | { readonly kind: "mapped"; readonly names: readonly string[]; readonly sizeBytes: number };
  readonly filesystem: Filesystem;
}

export interface OpenedVolume {
  readonly files: VolumeFiles;
  readonly freeBytes: number;
}

/** The volumes of one clone, opened once each. Close it after the last edit. */
export interface GuestVolumes extends AsyncDisposable {
  readonly volumes: readonly Volume[];
  /** What a person should know: an encrypted volume that stayed closed. */
  readonly remarks: readonly string[];
  /** `words`: mount options that choose a part of the volume, such as "subvol=@". Undefined: not a filesystem that can be opened here. */
  open(volume: Volume, words?: string): Promise<OpenedVolume | undefined>;
  /** Brings everything to the disks. Nothing may be opened or changed afterwards. */
  finish(): Promise<void>;
}

export interface VolumesOptions {
  /** Raw images in the source's order. */
  readonly imagePaths: readonly string[];
  readonly scratchFolder: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

/** Reads only. */
export async function surveyPartitions(imagePaths: readonly string[]): Promise<readonly Volume[]> {
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
      volumes.push({
        title: `disk ${diskIndex} partition ${partition.number}`,
        place: { kind: "partition", diskIndex, partition },
        filesystem: await identifyFilesystem(readAt, partition.offset, partition.sizeBytes),
      });
    }
  }
  return volumes;
}

/** What this host opens by itself. */
export function plainVolumes(volumes: readonly Volume[], options: VolumesOptions): GuestVolumes {
  const opened = new Map<Volume, Promise<OpenedVolume | undefined>>();
  return {
    volumes,
    remarks: [],
    open: async (volume) => {
      const found = opened.get(volume) ?? openPlain(volume, options);
      opened.set(volume, found);
      return await found;
    },
    finish: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
}

async function openPlain({ place, filesystem }: Volume, options: VolumesOptions): Promise<OpenedVolume | undefined> {
  if (place.kind !== "partition") return undefined;
  const { diskIndex, partition } = place;
  const { scratchFolder, signal } = options;
  const imagePath = options.imagePaths[diskIndex] ?? "";
  const where = { imagePath, offset: partition.offset, scratchFolder, ...(signal === undefined ? {} : { signal }) };
  if (filesystem.kind === "vfat") return { files: new FatFiles(where), freeBytes: 0 };
  if (filesystem.kind !== "ext") return undefined;
  if (filesystem.needsRecovery) await replayJournal({ ...options, imagePath, partition });
  return { files: new ExtFiles(where), freeBytes: filesystem.freeBytes };
}
