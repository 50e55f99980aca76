// Makes a clone boot on other hardware by file edits alone: drivers, device names, card names, the old hypervisor's service.

import type { Clock } from "../../base/clock.ts";
import type { HydrationReport } from "../target.ts";
import type { DriverNeeds } from "./drivers.ts";
import { openHelperVolumes } from "../helper/helper-volumes.ts";
import type { HelperImage } from "../helper/helper-image.ts";
import { rewriteFstab, rewriteKernelLines } from "./fstab.ts";
import { planInjection } from "./inject-drivers.ts";
import { planUpgrade } from "./plan-upgrade.ts";
import { planAgentRemoval } from "./remove-agent.ts";
import { findGuestRoot, findVolume, unsupported, type GuestRoot } from "./survey.ts";
import type { FileChange, GuestFile, VolumeFiles } from "./volume-files.ts";
import { plainVolumes, surveyPartitions, type GuestVolumes, type Volume } from "./volumes.ts";

/** What the target's machines are made of. */
export interface TargetHardware {
  readonly drivers: DriverNeeds;
  /** Kernel driver of the target's cards. */
  readonly cardDriver: string;
  /** The target gives its cards addresses of its own: a card is known by its driver, which tells one card and no more. */
  readonly hasOwnAddresses?: boolean;
}

export interface HydrateOptions {
  /** The clone's disks as raw files, in the source's order. They are written to. */
  readonly imagePaths: readonly string[];
  readonly bootDiskIndex: number;
  readonly nics: readonly { readonly mac: string; readonly guestName: string }[];
  readonly hardware: TargetHardware;
  /** A disk beside it upgrades the operating system. */
  readonly upgradesSystem?: boolean;
  /** An own, empty folder of the host. */
  readonly scratchFolder: string;
  /** Asked for only when the guest needs the helper machine; absent: such guests are refused. */
  readonly helperImage?: () => Promise<HelperImage>;
  /** Passphrases and key files of encrypted volumes; each is tried at each. */
  readonly unlockKeys?: readonly Uint8Array[];
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

/** Repeating it changes nothing more. Throws Fault HydrationUnsupported for what it does not know yet; then nothing was edited. */
export async function hydrate(options: HydrateOptions): Promise<HydrationReport> {
  const startedMs = options.clock.monotonicMs();
  await using opened = await openGuest(options);
  const { guest, volumes } = opened;
  const injection = await planInjection({ guest, needs: options.hardware.drivers, scratchFolder: options.scratchFolder });
  const edits: readonly Edit[] = [
    await planFstab(guest, volumes.volumes),
    await planGrub(guest, volumes.volumes),
    await planCardNames(guest.rootFiles, options),
    await planGuestTools(guest.rootFiles),
    await planAgentRemoval(guest.rootFiles),
    ...(options.upgradesSystem === true ? [await planUpgrade(guest.rootFiles)] : []),
  ];
  options.signal?.throwIfAborted();
  const bootChanges = [...injection.bootChanges, ...edits.flatMap((edit) => edit.bootChanges ?? [])];
  if (bootChanges.length > 0) await guest.bootFiles.change(bootChanges);
  const rootChanges = edits.flatMap((edit) => edit.rootChanges ?? []);
  if (rootChanges.length > 0) await guest.rootFiles.change(rootChanges);
  await volumes.finish();
  const changes = [...volumes.remarks, ...injection.changes, ...edits.flatMap((edit) => edit.changes)];
  return { seconds: (options.clock.monotonicMs() - startedMs) / 1000, changes };
}

interface OpenedGuest extends AsyncDisposable {
  readonly volumes: GuestVolumes;
  readonly guest: GuestRoot;
}

/** By this host's own tools where they suffice; else in the helper machine. */
async function openGuest(options: HydrateOptions): Promise<OpenedGuest> {
  const partitions = await surveyPartitions(options.imagePaths);
  const plain = plainVolumes(partitions, options);
  const near = await findGuestRoot(plain, options.bootDiskIndex);
  if (near.kind === "found") return { volumes: plain, guest: near.guest, [Symbol.asyncDispose]: async () => undefined };
  if (options.helperImage === undefined || !partitions.some(needsHelper)) throw unsupported(plain, near.reason);
  const graphs = options.imagePaths.map((filename, index) => ({
    nodes: [
      { driver: "file", filename, locking: "off", "node-name": `file${index}`, discard: "unmap" },
      { driver: "raw", file: `file${index}`, "node-name": `disk${index}`, discard: "unmap" },
    ],
    topNode: `disk${index}`,
  }));
  const image = await options.helperImage();
  const helped = await openHelperVolumes({ ...options, image, graphs, partitions, keys: options.unlockKeys ?? [], access: "write" });
  try {
    const far = await findGuestRoot(helped, options.bootDiskIndex);
    if (far.kind === "missing") throw unsupported(helped, far.reason);
    return { volumes: helped, guest: far.guest, [Symbol.asyncDispose]: async () => await helped[Symbol.asyncDispose]() };
  } catch (error) {
    await helped[Symbol.asyncDispose]();
    throw error;
  }
}

function needsHelper({ filesystem: { kind } }: Volume): boolean {
  return kind === "xfs" || kind === "btrfs" || kind === "lvm" || kind === "luks" || kind === "raid";
}

interface Edit {
  readonly rootChanges?: readonly FileChange[];
  readonly bootChanges?: readonly FileChange[];
  readonly changes: readonly string[];
}

const nothing: Edit = { changes: [] };

function uuidFinder(volumes: readonly Volume[]) {
  return (source: string, type: string): string | undefined => {
    const volume = findVolume(volumes, { source, type });
    return volume !== undefined && "uuid" in volume.filesystem ? volume.filesystem.uuid : undefined;
  };
}

async function planFstab(guest: GuestRoot, volumes: readonly Volume[]): Promise<Edit> {
  const { text, changes } = rewriteFstab(guest.fstab, uuidFinder(volumes));
  if (text === guest.fstab) return { changes };
  return { rootChanges: await replaceFile(guest.rootFiles, { folder: "/etc", name: "fstab", text }), changes };
}

/** GRUB finds its files by UUID on every target; only the kernel's own words may name a device. */
async function planGrub(guest: GuestRoot, volumes: readonly Volume[]): Promise<Edit> {
  const folders = ["grub", "grub2"].map((name) => `${guest.bootPrefix}/${name}`);
  const found = await guest.bootFiles.read(folders.map((folder) => `${folder}/grub.cfg`));
  const edits: Edit[] = [];
  for (const folder of folders) {
    const old = found.get(`${folder}/grub.cfg`)?.toString("utf8");
    if (old === undefined) continue;
    const shownPath = `/boot${folder.slice(guest.bootPrefix.length)}/grub.cfg`;
    const { text, changes } = rewriteKernelLines(old, shownPath, uuidFinder(volumes));
    if (text !== old) edits.push({ bootChanges: await replaceFile(guest.bootFiles, { folder, name: "grub.cfg", text }), changes });
  }
  return { bootChanges: edits.flatMap((edit) => edit.bootChanges ?? []), changes: edits.flatMap((edit) => edit.changes) };
}

/** A card keeps the name it had, so that the guest's network configuration still means it (systemd.link). */
async function planCardNames(rootFiles: VolumeFiles, { nics, hardware }: HydrateOptions): Promise<Edit> {
  const named = nics.filter(({ guestName, mac }) => /^[A-Za-z0-9._-]{1,15}$/.test(guestName) && /^[0-9a-fA-F:]{17}$/.test(mac));
  if (named.length === 0) return nothing;
  const folder = "/etc/systemd/network";
  if (hardware.hasOwnAddresses === true && nics.length > 1)
    return { changes: [`! ${folder}: the target gives ${nics.length} cards new addresses; they may get other names`] };
  if ((await rootFiles.list("/etc/systemd")) === undefined) {
    return { changes: [`! ${folder}: the guest has no systemd; its cards may get other names`] };
  }
  const present = await rootFiles.list(folder);
  const rootChanges: FileChange[] = present === undefined ? [{ kind: "makeFolder", path: folder }] : [];
  const changes: string[] = [];
  const written = await rootFiles.read(named.map(({ guestName }) => `${folder}/10-watari-${guestName}.link`));
  for (const { mac, guestName } of named) {
    const name = `10-watari-${guestName}.link`;
    const matched = hardware.hasOwnAddresses === true ? "" : `MACAddress=${mac.toLowerCase()}\n`;
    const text = `[Match]\n${matched}Driver=${hardware.cardDriver}\n\n[Link]\nName=${guestName}\n`;
    if (written.get(`${folder}/${name}`)?.toString("utf8") === text) continue;
    if (present?.some((file) => file.name === name) === true) rootChanges.push({ kind: "remove", path: `${folder}/${name}` });
    rootChanges.push({ kind: "write", path: `${folder}/${name}`, content: Buffer.from(text), mode: 0o644 });
    changes.push(`${folder}/${name}: the card ${mac.toLowerCase()} keeps the name ${guestName}`);
  }
  return changes.length === 0 ? nothing : { rootChanges, changes };
}

const toolsUnits = ["open-vm-tools.service", "vmware-tools.service", "vmtoolsd.service"];

/** A unit is masked as systemctl would: by a link to nothing. A unit file of the operator's own is left. */
async function planGuestTools(rootFiles: VolumeFiles): Promise<Edit> {
  const folder = "/etc/systemd/system";
  const shipped = [...((await rootFiles.list("/usr/lib/systemd/system")) ?? []), ...((await rootFiles.list("/lib/systemd/system")) ?? [])];
  const own = await rootFiles.list(folder);
  if (own === undefined) return nothing;
  const units = toolsUnits.filter((unit) => isNamed(shipped, unit) && !isNamed(own, unit));
  return {
    rootChanges: units.map((unit) => ({ kind: "link", path: `${folder}/${unit}`, to: "/dev/null" })),
    changes: units.map((unit) => `${folder}/${unit}: masked; it serves the old hypervisor`),
  };
}

function isNamed(files: readonly GuestFile[], name: string): boolean {
  return files.some((file) => file.name === name);
}

/** New text under the old name and rights; the old file stays beside it. */
async function replaceFile(files: VolumeFiles, given: { folder: string; name: string; text: string }): Promise<readonly FileChange[]> {
  const inFolder = (await files.list(given.folder)) ?? [];
  const path = `${given.folder}/${given.name}`;
  const keep: readonly FileChange[] = isNamed(inFolder, `${given.name}.watari-orig`)
    ? [{ kind: "remove", path }]
    : [{ kind: "rename", from: path, to: `${path}.watari-orig` }];
  const mode = inFolder.find((file) => file.name === given.name)?.mode ?? 0o644;
  return [...keep, { kind: "write", path, content: Buffer.from(given.text), mode }];
}
