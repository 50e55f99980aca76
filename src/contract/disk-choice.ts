// Which of a machine's own disks are meant by disks as a vCenter shows them: by identity, by kernel name, by size where it is unique.

import { z } from "zod";
import type { SourceDisk } from "./agent-control.ts";
import { Fault } from "./errors.ts";
import type { DiskId } from "./ids.ts";
import { countShape } from "./shapes.ts";

/** A disk as a vCenter shows it; `label` may also be the id that an agent gave it. */
export const shownDiskShape = z.object({ label: z.string().max(255), uuid: z.string().max(64).optional(), sizeBytes: countShape });
export type ShownDisk = z.infer<typeof shownDiskShape>;

/** Ids of the disks meant. Throws DiskUnidentified when one cannot be told from others: never a guess. */
export function findDisks(shown: readonly ShownDisk[], disks: readonly SourceDisk[]): DiskId[] {
  return shown.map((wish) => {
    const named = disks.filter((disk) => isNamed(wish, disk));
    const found = named.length > 0 ? named : disks.filter((disk) => disk.sizeBytes === wish.sizeBytes);
    const [only, ...others] = found;
    if (only !== undefined && others.length === 0) return only.diskId;
    throw new Fault("DiskUnidentified", `could not tell which disk of the machine is "${wish.label}"`, {
      evidence: { label: wish.label, sizeBytes: wish.sizeBytes, candidates: found.map((disk) => disk.diskId) },
      action:
        "set disk.EnableUUID of the virtual machine to TRUE, so that its disks show their identity; or replicate all disks and remove this one by its own id",
    });
  });
}

/** Throws InputInvalid unless every id is a disk of the machine and its boot disk stays. */
export function requireExcludable(excludedDiskIds: readonly DiskId[], disks: readonly SourceDisk[]): void {
  const unknown = excludedDiskIds.filter((id) => !disks.some((disk) => disk.diskId === id));
  const boot = disks.find((disk) => disk.isBoot && excludedDiskIds.includes(disk.diskId));
  if (unknown.length === 0 && boot === undefined) return;
  throw new Fault(
    "InputInvalid",
    boot === undefined
      ? "could not leave disks out: the machine has none of these ids"
      : `could not leave out the disk ${boot.diskId}: the machine boots from it`,
    { evidence: { unknown, disks: disks.map((disk) => disk.diskId) }, action: "choose among the disks that do not hold the system" },
  );
}

function isNamed({ label, uuid }: ShownDisk, disk: SourceDisk): boolean {
  if (label === disk.diskId || uuid === disk.diskId || label === disk.deviceName) return true;
  // VMware shows a guest the disk's UUID as its serial number, without the hyphens.
  const hex = uuid?.toLowerCase().replaceAll(/[^0-9a-f]/g, "") ?? "";
  return hex.length === 32 && disk.diskId.replaceAll("-", "").endsWith(hex);
}
