// Which Debian packages each use of Watari needs, and why.

import { labPackages } from "../../../lab/packages.ts";
import type { NeededPackage } from "./packages.ts";

const landingPackages: readonly NeededPackage[] = [
  { name: "postgresql", proof: "/usr/lib/postgresql", why: "keeps the hub's state; the hub starts a private cluster of its own" },
  { name: "qemu-system-x86", proof: "/usr/bin/qemu-system-x86_64", why: "runs landed machines" },
  { name: "qemu-utils", proof: "/usr/bin/qemu-img", why: "makes overlays of recovery points" },
  { name: "dnsmasq-base", proof: "/usr/sbin/dnsmasq", why: "answers the private zones and gives addresses to landed machines" },
  { name: "e2fsprogs", proof: "/usr/sbin/debugfs", why: "edits ext4 filesystems without a mount when a machine is hydrated" },
  { name: "kmod", proof: "/usr/sbin/modprobe", why: "finds and loads kernel modules for landed networks" },
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

export const setupUses = ["demo", "test", "move"] as const;
export type SetupUse = (typeof setupUses)[number];

/** The list for a use, each package once. */
export function packagesFor(use: SetupUse): readonly NeededPackage[] {
  const all = [...landingPackages, ...(use === "move" ? [] : labPackages), ...(use === "test" ? networkTestPackages : [])];
  return [...new Map(all.toReversed().map((needed) => [needed.name, needed])).values()].toReversed();
}
