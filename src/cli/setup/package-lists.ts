// Which Debian packages each use of Watari needs, and why.

import { labPackages } from "../../../lab/packages.ts";
import type { NeededPackage } from "./packages.ts";

const landingPackages: readonly NeededPackage[] = [
  { name: "postgresql", proof: "/usr/lib/postgresql", why: "keeps the hub's state; the hub starts a private cluster of its own" },
  { name: "qemu-system-x86", proof: "/usr/bin/qemu-system-x86_64", why: "runs landed machines" },
  { name: "qemu-utils", proof: "/usr/bin/qemu-img", why: "makes overlays of recovery points" },
  { name: "dnsmasq-base", proof: "/usr/sbin/dnsmasq", why: "answers the private zones and gives addresses to landed machines" },
  { name: "e2fsprogs", proof: "/usr/sbin/debugfs", why: "edits ext4 filesystems without a mount when a machine is hydrated" },
  { name: "mtools", proof: "/usr/bin/mcopy", why: "edits EFI partitions without a mount when a machine is hydrated" },
  { name: "ovmf", proof: "/usr/share/OVMF/OVMF_CODE_4M.fd", why: "is the firmware of landed EFI machines" },
  {
    name: "mmdebstrap",
    proof: "/usr/bin/mmdebstrap",
    why: "unpacks the helper machine that opens XFS, btrfs, LVM, RAID and encrypted disks",
  },
  { name: "xz-utils", proof: "/usr/bin/xz", why: "unpacks initramfs images and kernel modules" },
  { name: "zstd", proof: "/usr/bin/zstd", why: "unpacks kernel modules" },
  { name: "lz4", proof: "/usr/bin/lz4", why: "unpacks initramfs images" },
  { name: "bzip2", proof: "/usr/bin/bzip2", why: "unpacks initramfs images" },
  { name: "kmod", proof: "/usr/sbin/modprobe", why: "finds and loads kernel modules for landed networks and for the helper machine" },
  { name: "iproute2", proof: "/usr/bin/ip", why: "makes the networks of landed machines" },
  { name: "nftables", proof: "/usr/sbin/nft", why: "fences the networks of test machines" },
];

/** What a network plan is held against, its renderings and its checks. */
const networkTestPackages: readonly NeededPackage[] = [
  { name: "unbound", proof: "/usr/sbin/unbound", why: "reads the unbound form of a network plan, in tests" },
  { name: "bind9-utils", proof: "/usr/bin/named-checkzone", why: "reads BIND's zone files, in tests" },
  { name: "python3-pacparser", proof: "/usr/lib/python3/dist-packages/pacparser", why: "runs the proxy auto-configuration, in tests" },
  { name: "faketime", proof: "/usr/bin/faketime", why: "sets the clock of a check wrong, in the proof of the network" },
];

/** What the set-up page is looked at with. */
const browserTestPackages: readonly NeededPackage[] = [
  { name: "chromium", proof: "/usr/bin/chromium", why: "shows the set-up page, in tests" },
  { name: "fonts-noto-cjk", proof: "/usr/share/fonts/opentype/noto", why: "writes the set-up page's Japanese, in tests" },
];

/** The programs that benchmarks are measured beside. */
const benchPackages: readonly NeededPackage[] = [
  { name: "zstd", proof: "/usr/bin/zstd", why: "compresses to nowhere: the yardstick of first copies" },
  { name: "libnbd-bin", proof: "/usr/bin/nbdcopy", why: "copies disks over NBD" },
  { name: "nbdkit", proof: "/usr/bin/nbdkit", why: "takes what nbdcopy sends" },
  { name: "qemu-system-common", proof: "/usr/bin/qemu-storage-daemon", why: "copies by dirty bitmaps" },
  { name: "restic", proof: "/usr/bin/restic", why: "keeps generations of images" },
  { name: "borgbackup", proof: "/usr/bin/borg", why: "keeps generations of images" },
  { name: "casync", proof: "/usr/bin/casync", why: "keeps generations of images" },
  { name: "rsync", proof: "/usr/bin/rsync", why: "finds changes by reading both sides" },
  { name: "fio", proof: "/usr/bin/fio", why: "reads at random over NBD" },
];

export const setupUses = ["demo", "test", "bench", "move"] as const;
export type SetupUse = (typeof setupUses)[number];

/** The list for a use, each package once. */
export function packagesFor(use: SetupUse): readonly NeededPackage[] {
  const own = { demo: [], move: [], test: [...networkTestPackages, ...browserTestPackages], bench: benchPackages }[use];
  const all = [...landingPackages, ...(use === "move" ? [] : labPackages), ...own];
  return [...new Map(all.toReversed().map((needed) => [needed.name, needed])).values()].toReversed();
}
