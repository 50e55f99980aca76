// What the guest image is made of; its hash names the cached result.

import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

export const guestFolder = join(import.meta.dirname, "guest");
export const suite = "bookworm";
export const mebibyte = 1 << 20;

export const rootDisk = { sizeBytes: 3072 * mebibyte, rootStartMiB: 2, rootSizeMiB: 2800 } as const;
export const ledgerDisk = { sizeBytes: 1024 * mebibyte } as const;

/** An ordinary server's packages: the ordinary kernel, so that both VMware's drivers and virtio's are modules. */
export const guestPackages = [
  "linux-image-amd64",
  "grub-pc",
  "initramfs-tools",
  "zstd",
  "systemd-sysv",
  "udev",
  "dbus",
  "ifupdown",
  "isc-dhcp-client",
  "openssh-server",
  "sudo",
  "lvm2",
  "xfsprogs",
  "kmod",
  "iproute2",
  "procps",
  "fdisk",
  "ca-certificates",
] as const;

/** What dpkg leaves out: nothing that a server without screen, sound and radio would miss. */
export const leftOut = [
  "/usr/share/man/*",
  "/usr/share/doc/*",
  "/usr/share/locale/*",
  "/lib/modules/*/kernel/sound/*",
  ...["gpu", "media", "infiniband", "iio", "staging", "net/wireless"].map((folder) => `/lib/modules/*/kernel/drivers/${folder}/*`),
] as const;

export interface GuestFile {
  readonly from: string;
  readonly to: string;
  readonly mode: number;
}

export const guestFiles: readonly GuestFile[] = [
  { from: "finish-image.sh", to: "usr/local/sbin/watari-finish", mode: 0o755 },
  { from: "watari-finish.service", to: "etc/systemd/system/watari-finish.service", mode: 0o644 },
  { from: "apply-instance.sh", to: "usr/local/sbin/watari-instance", mode: 0o755 },
  { from: "watari-instance.service", to: "etc/systemd/system/watari-instance.service", mode: 0o644 },
  { from: "ledger.service", to: "etc/systemd/system/ledger.service", mode: 0o644 },
  { from: "sshd.conf", to: "etc/ssh/sshd_config.d/watari.conf", mode: 0o644 },
  { from: "grub.conf", to: "etc/default/grub", mode: 0o644 },
];

/** Raise it by one when image-build.ts or hardware.ts makes another image of the same ingredients. */
const recipeVersion = 2;

/** Changes whenever anything that goes into the image changes. */
export async function recipeKey(): Promise<string> {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([recipeVersion, suite, rootDisk, ledgerDisk, guestPackages, leftOut, guestFiles]));
  const ledgerFiles = (await readdir(join(guestFolder, "ledger"))).filter((name) => name.endsWith(".go") && !name.endsWith("_test.go"));
  const names = [...guestFiles.map((file) => file.from), ...ledgerFiles.toSorted().map((name) => join("ledger", name))];
  for (const path of names.map((name) => join(guestFolder, name))) {
    const content = await readFile(path);
    hash.update(`${path.slice(import.meta.dirname.length)} ${content.length}\n`).update(content);
  }
  return hash.digest("hex").slice(0, 16);
}
