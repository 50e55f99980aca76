// Finds a guest's root, its /boot, its modules and its EFI partition among the volumes of a clone.

import { Fault } from "../../contract/errors.ts";
import { diskIndexOf, parseFstab, type FstabEntry } from "./fstab.ts";
import type { VolumeFiles } from "./volume-files.ts";
import type { GuestVolumes, OpenedVolume, Volume } from "./volumes.ts";

/** Where the guest's files are. */
export interface GuestRoot {
  readonly rootFiles: VolumeFiles;
  /** Where /lib/modules is; another volume when /usr has its own. */
  readonly moduleFiles: VolumeFiles;
  readonly bootFiles: VolumeFiles;
  readonly bootFreeBytes: number;
  /** What to put before a path in /boot to find it in bootFiles. */
  readonly bootPrefix: "/boot" | "";
  readonly efiFiles: VolumeFiles | undefined;
}

/** Answers why it is not there when no volume holds a root that can be opened. */
export type RootFinding = { readonly kind: "found"; readonly guest: GuestRoot } | { readonly kind: "missing"; readonly reason: string };

/**
 * Boot disk first, then the others in their order. A root whose own fstab names it is taken before one that holds another machine's or
 * an old copy's fstab.
 */
export async function findGuestRoot(guest: GuestVolumes, bootDiskIndex: number): Promise<RootFinding> {
  const isOnBootDisk = ({ place }: Volume) => place.kind === "partition" && place.diskIndex === bootDiskIndex;
  const candidates = guest.volumes.toSorted((a, b) => Number(isOnBootDisk(b)) - Number(isOnBootDisk(a)));
  let second: RootFinding | undefined;
  for (const volume of candidates) {
    for await (const root of openRoots(guest, volume)) {
      const fstab = (await root.opened.files.read(["/etc/fstab"])).get("/etc/fstab")?.toString("utf8");
      if (fstab === undefined) continue;
      const entries = parseFstab(fstab);
      const finding = await openAround(guest, root.opened, entries);
      if (finding === undefined) continue;
      const own = entries.find(({ mountPoint }) => mountPoint === "/");
      const part = own?.options.find((option) => option.startsWith("subvol="))?.replace(/^subvol=\/?/, "");
      const isOwn = own !== undefined && findVolume(guest.volumes, own) === volume && part === root.subvolume;
      if (isOwn) return finding;
      if (second?.kind !== "found") second = finding;
    }
  }
  return second ?? { kind: "missing", reason: "no root filesystem of Linux was found" };
}

/** What belongs to a root; undefined when it is none: it has no kernels' modules. */
async function openAround(guest: GuestVolumes, root: OpenedVolume, entries: readonly FstabEntry[]): Promise<RootFinding | undefined> {
  const usr = await openMounted(guest, entries, ["/usr"]);
  const moduleFiles = usr?.volume?.files ?? root.files;
  if ((await moduleFiles.list("/lib/modules")) === undefined) return undefined;
  const boot = await openMounted(guest, entries, ["/boot"]);
  if (boot !== undefined && boot.volume === undefined)
    return { kind: "missing", reason: `its /boot (${boot.entry.source}) is on no filesystem that can be opened` };
  const efi = (await openMounted(guest, entries, ["/boot/efi", "/efi"]))?.volume ?? (await findEfi(guest));
  return {
    kind: "found",
    guest: {
      rootFiles: root.files,
      moduleFiles,
      bootFiles: boot?.volume?.files ?? root.files,
      bootFreeBytes: (boot?.volume ?? root).freeBytes,
      bootPrefix: boot === undefined ? "/boot" : "",
      efiFiles: efi?.files,
    },
  };
}

/** An EFI partition that fstab does not name. */
async function findEfi(guest: GuestVolumes): Promise<OpenedVolume | undefined> {
  for (const volume of guest.volumes) {
    if (volume.filesystem.kind !== "vfat") continue;
    const opened = await guest.open(volume);
    if (opened !== undefined && (await opened.files.list("/EFI")) !== undefined) return opened;
  }
  return undefined;
}

interface OpenedRoot {
  readonly opened: OpenedVolume;
  /** Of btrfs: which part of the volume, when it is not the default. */
  readonly subvolume: string | undefined;
}

/** A volume once; of btrfs each part that a system may be installed in: the default first, then by the installers' names. */
async function* openRoots(guest: GuestVolumes, volume: Volume): AsyncGenerator<OpenedRoot, void, undefined> {
  if (volume.filesystem.kind === "vfat") return;
  const whole = await guest.open(volume);
  if (whole === undefined) return;
  yield { opened: whole, subvolume: undefined };
  if (volume.filesystem.kind !== "btrfs") return;
  const top = await guest.open(volume, "subvolid=5");
  if (top === undefined) return;
  const folders = ((await top.files.list("/")) ?? []).filter(({ kind, name }) => kind === "folder" && /^[A-Za-z0-9@._-]+$/.test(name));
  const names = folders.map(({ name }) => name);
  const sorted = [...usualSubvolumes.filter((name) => names.includes(name)), ...names.filter((name) => !usualSubvolumes.includes(name))];
  for (const name of sorted.slice(0, subvolumesMax)) {
    const part = (await top.files.list(`/${name}/etc`)) === undefined ? undefined : await guest.open(volume, `subvol=/${name}`);
    if (part !== undefined) yield { opened: part, subvolume: name };
  }
}

const usualSubvolumes: readonly string[] = ["@", "@rootfs", "root"];
const subvolumesMax = 32;

interface Mounted {
  readonly entry: FstabEntry;
  /** Undefined: fstab names it, and it cannot be opened. */
  readonly volume: OpenedVolume | undefined;
}

async function openMounted(
  guest: GuestVolumes,
  entries: readonly FstabEntry[],
  mountPoints: readonly string[],
): Promise<Mounted | undefined> {
  const entry = entries.find(({ mountPoint, options }) => mountPoints.includes(mountPoint) && !options.includes("bind"));
  if (entry === undefined) return undefined;
  const volume = findVolume(guest.volumes, entry);
  const words = entry.options.find((option) => /^subvol(id)?=[A-Za-z0-9@._/-]+$/.test(option));
  return { entry, volume: volume === undefined ? undefined : await guest.open(volume, words) };
}

const kindOfType: Readonly<Record<string, string>> = { ext2: "ext", ext3: "ext", ext4: "ext" };

/** The volume that an fstab line means; undefined when that is not sure. */
export function findVolume(volumes: readonly Volume[], { source, type }: Pick<FstabEntry, "source" | "type">): Volume | undefined {
  const uuid = /^(?:UUID=|\/dev\/disk\/by-uuid\/)"?([^"]+)"?$/.exec(source)?.[1];
  if (uuid !== undefined)
    return volumes.find(({ filesystem }) => "uuid" in filesystem && filesystem.uuid?.toLowerCase() === uuid.toLowerCase());
  const label = /^(?:LABEL=|\/dev\/disk\/by-label\/)"?([^"]+)"?$/.exec(source)?.[1];
  if (label !== undefined) return onlyOne(volumes.filter(({ filesystem }) => "label" in filesystem && filesystem.label === label));
  const mapped = volumes.find(({ place }) => place.kind === "mapped" && place.names.includes(source));
  if (mapped !== undefined) return mapped;
  const plain = /^\/dev\/(?:sd|vd|hd|xvd)([a-z]{1,3})(\d{0,3})$/.exec(source);
  if (plain !== null)
    return volumes.find(
      ({ place }) =>
        place.kind === "partition" && place.diskIndex === diskIndexOf(plain[1] ?? "") && place.partition.number === Number(plain[2] ?? 0),
    );
  return findByPath(volumes, { source, type });
}

/** A path or id names the old hardware; it is sure only when no other disk has such a partition with such a filesystem. */
function findByPath(volumes: readonly Volume[], { source, type }: Pick<FstabEntry, "source" | "type">): Volume | undefined {
  const match = /^\/dev\/disk\/by-(?:path|id)\/[^/]*?(?:-part(\d{1,3}))?$/.exec(source);
  if (match === null) return undefined;
  const number = Number(match[1] ?? 0);
  const kind = kindOfType[type] ?? type;
  return onlyOne(
    volumes.filter(
      ({ place, filesystem }) =>
        place.kind === "partition" && place.partition.number === number && (kind === "" || kind === "auto" || filesystem.kind === kind),
    ),
  );
}

function onlyOne<T>(items: readonly T[]): T | undefined {
  return items.length === 1 ? items[0] : undefined;
}

/** With what was found, for whoever must repair it. */
export function unsupported(guest: GuestVolumes, reason: string): Fault {
  const found = guest.volumes.map(({ title, filesystem }) => `${title}: ${filesystem.kind}`);
  return new Fault("HydrationUnsupported", `could not hydrate the clone: ${reason}`, {
    evidence: { found: [...found, ...guest.remarks].slice(0, 60) },
  });
}
