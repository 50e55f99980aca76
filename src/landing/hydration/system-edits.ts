// Edits beside text rules: names of cards, the old hypervisor's service, LVM's list of devices, SELinux labels.

import { isNamed, nothing, type Edit } from "./edit.ts";
import type { FileChange, VolumeFiles } from "./volume-files.ts";

export interface NamedCard {
  readonly mac: string;
  readonly guestName: string;
}

/** What the target's cards are. */
export interface CardHardware {
  /** Kernel driver of the target's cards. */
  readonly cardDriver: string;
  /** The target gives its cards addresses of its own: a card is known by its driver, which tells one card and no more. */
  readonly hasOwnAddresses?: boolean;
}

/** A card keeps the name it had, so that the guest's network configuration still means it (systemd.link). */
export async function planCardNames(
  rootFiles: VolumeFiles,
  { nics, hardware }: { readonly nics: readonly NamedCard[]; readonly hardware: CardHardware },
): Promise<Edit> {
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

export const unitsFolder = "/etc/systemd/system";
export const toolsUnits = ["open-vm-tools.service", "vmware-tools.service", "vmtoolsd.service"];

/** Told of each unit that was masked, and known by it when that is undone. */
export const maskedLine = (unit: string): string => `${unitsFolder}/${unit}: masked; it serves the old hypervisor`;

/** A unit is masked as systemctl would: by a link to nothing. A unit file of the operator's own is left. */
export async function planGuestTools(rootFiles: VolumeFiles): Promise<Edit> {
  const shipped = [...((await rootFiles.list("/usr/lib/systemd/system")) ?? []), ...((await rootFiles.list("/lib/systemd/system")) ?? [])];
  const own = await rootFiles.list(unitsFolder);
  if (own === undefined) return nothing;
  const units = toolsUnits.filter((unit) => isNamed(shipped, unit) && !isNamed(own, unit));
  return {
    rootChanges: units.map((unit) => ({ kind: "link", path: `${unitsFolder}/${unit}`, to: "/dev/null" })),
    changes: units.map(maskedLine),
  };
}

export const devicesFolder = "/etc/lvm/devices";
export const devicesName = "system.devices";

/** Red Hat 9 lists its physical volumes by the serial numbers of VMware's disks; without the list LVM looks at every disk, as before 9. */
export async function planLvmDevices(rootFiles: VolumeFiles): Promise<Edit> {
  const present = (await rootFiles.list(devicesFolder)) ?? [];
  if (!isNamed(present, devicesName)) return nothing;
  const path = `${devicesFolder}/${devicesName}`;
  const rootChange: FileChange = isNamed(present, `${devicesName}.watari-orig`)
    ? { kind: "remove", path }
    : { kind: "rename", from: path, to: `${path}.watari-orig` };
  return { rootChanges: [rootChange], changes: [`${path}: put aside; it names the old disks`] };
}

/** Files that were written from outside carry no label; an enforcing guest labels its files anew at the next start, once. */
export async function planRelabel(rootFiles: VolumeFiles, isRootChanged: boolean): Promise<Edit> {
  if (!isRootChanged) return nothing;
  const config = (await rootFiles.read(["/etc/selinux/config"])).get("/etc/selinux/config")?.toString("latin1");
  const mode = /^\s*SELINUX=(\w+)/m.exec(config ?? "")?.[1];
  if (mode !== "enforcing" && mode !== "permissive") return nothing;
  if (isNamed((await rootFiles.list("/")) ?? [], ".autorelabel")) return nothing;
  return {
    rootChanges: [{ kind: "write", path: "/.autorelabel", content: Buffer.alloc(0), mode: 0o644 }],
    changes: ["/.autorelabel: SELinux labels the files anew at the first start"],
  };
}
