// The Debian packages that the lab needs, each with the reason why.

import { existsSync } from "node:fs";

export interface NeededPackage {
  readonly name: string;
  /** A program or file whose presence proves that the package is installed. */
  readonly proof: string;
  readonly why: string;
}

export const labPackages: readonly NeededPackage[] = [
  { name: "qemu-system-x86", proof: "/usr/bin/qemu-system-x86_64", why: "runs the source machine on VMware-like hardware" },
  { name: "qemu-utils", proof: "/usr/bin/qemu-img", why: "makes the machines' disks on top of the cached image" },
  { name: "mmdebstrap", proof: "/usr/bin/mmdebstrap", why: "makes the guest's Debian 12 from the configured package sources" },
  { name: "e2fsprogs", proof: "/usr/sbin/mke2fs", why: "makes the guest's root file system without a mount" },
  { name: "iproute2", proof: "/usr/bin/ip", why: "makes the zones: network namespaces, links, bridges" },
  { name: "nftables", proof: "/usr/sbin/nft", why: "refuses and counts every packet that tries a forbidden way" },
  { name: "dnsmasq-base", proof: "/usr/sbin/dnsmasq", why: "answers names and gives addresses in the zones" },
  { name: "squid", proof: "/usr/sbin/squid", why: "is the proxy, the only way out of the closed network" },
  { name: "golang-go", proof: "/usr/bin/go", why: "builds the vCenter simulator and the guest's ledger" },
  {
    name: "golang-github-vmware-govmomi-dev",
    proof: "/usr/share/gocode/src/github.com/vmware/govmomi/simulator/simulator.go",
    why: "is the source of VMware's own vCenter simulator",
  },
  { name: "curl", proof: "/usr/bin/curl", why: "asks the ledger from inside the site" },
  { name: "openssh-client", proof: "/usr/bin/ssh-keygen", why: "makes the key that signs in to the source machine" },
  { name: "openssl", proof: "/usr/bin/openssl", why: "hashes the guest's and the proxy's passwords" },
  { name: "bind9-dnsutils", proof: "/usr/bin/dig", why: "shows what each zone's names resolve to" },
];

/** The packages whose proof is absent, in the list's order. */
export function missingPackages(): readonly NeededPackage[] {
  return labPackages.filter((entry) => !existsSync(entry.proof));
}
