// The guests of the boot proof, as data: what they run, how their disks are made up, and how their cards get addresses.

import type { Release } from "./guest-tree.ts";

export interface BootGuest {
  readonly name: string;
  readonly release: Release;
  readonly firmware: "bios" | "efi";
  readonly layout: "ext4" | "xfs" | "btrfs" | "lvm" | "luks" | "raid1";
  readonly diskCount: 1 | 2;
  /** The first card answers, and has a fixed address unless it is dhcp's. */
  readonly cards: readonly ("static" | "dhcp")[];
  /** Who gives addresses; plain: ifupdown the fixed ones, systemd-networkd the others. */
  readonly network?: "plain" | "netplan" | "manager";
  /** It is started once on this hardware, and makes its initramfs there for no other; absent: its initramfs is made by the builder. */
  readonly source?: "pvscsi-vmxnet3" | "lsi-e1000e";
  /** What fstab and GRUB call the disks: hardware names are what a rescue or an old installer wrote. */
  readonly names: "uuid" | "sdx" | "by-path";
}

export const bootGuests: readonly BootGuest[] = [
  { name: "d12-ext4", release: 12, firmware: "bios", layout: "ext4", diskCount: 1, cards: ["dhcp"], names: "sdx" },
  { name: "d12-xfs", release: 12, firmware: "bios", layout: "xfs", diskCount: 1, cards: ["static"], names: "by-path" },
  { name: "d12-btrfs", release: 12, firmware: "bios", layout: "btrfs", diskCount: 1, cards: ["static"], names: "uuid" },
  { name: "d12-lvm-efi", release: 12, firmware: "efi", layout: "lvm", diskCount: 2, cards: ["dhcp"], names: "uuid" },
  { name: "d12-raid1", release: 12, firmware: "bios", layout: "raid1", diskCount: 2, cards: ["static"], names: "uuid" },
  { name: "d12-luks", release: 12, firmware: "bios", layout: "luks", diskCount: 1, cards: ["static"], names: "sdx" },
  { name: "d13-ext4-efi", release: 13, firmware: "efi", layout: "ext4", diskCount: 1, cards: ["static", "dhcp"], names: "uuid" },
  { name: "d11-ext4", release: 11, firmware: "bios", layout: "ext4", diskCount: 1, cards: ["static"], names: "sdx" },
  {
    ...{ name: "d12-pvscsi", release: 12, firmware: "bios", layout: "ext4", diskCount: 1, cards: ["static", "static"] },
    ...{ names: "sdx", network: "manager", source: "pvscsi-vmxnet3" },
  },
  {
    ...{ name: "d12-lsi", release: 12, firmware: "bios", layout: "xfs", diskCount: 1, cards: ["static", "dhcp"] },
    ...{ names: "by-path", network: "netplan", source: "lsi-e1000e" },
  },
];

/** Kernel drivers of a source's hardware. */
export const sourceDrivers = {
  "pvscsi-vmxnet3": { disk: "vmw_pvscsi", card: "vmxnet3" },
  "lsi-e1000e": { disk: "mptsas", card: "e1000e" },
} as const;

/** Opens the encrypted guest's disk; not a secret of anyone. */
export const luksKey = "proof-of-boot-0123456789abcdef";

/** The cards as VMware would name them. */
export function cardsOf(guest: BootGuest) {
  const serial = bootGuests.indexOf(guest) + 16;
  return guest.cards.map((kind, index) => ({
    kind,
    mac: `52:54:00:77:${serial.toString(16)}:0${index + 1}`,
    guestName: index === 0 ? "ens192" : "ens224",
    address: `10.44.${serial + index * 100}.20/24`,
  }));
}

export const answerOf = (guest: BootGuest): string => `${guest.name} answers`;
