// The file tree of a proof's guest, one for each Debian release, as a tar archive in the cache: VMware's drivers only in its initramfs.

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../../../src/base/run-command.ts";
import { hostAptSources } from "../../../src/landing/helper/apt-sources.ts";

const recipeVersion = 1;
const buildMsMax = 1_500_000;

export const releases = { 11: "bullseye", 12: "bookworm", 13: "trixie" } as const;
export type Release = keyof typeof releases;

const packages = [
  ...["linux-image-amd64", "initramfs-tools", "systemd-sysv", "udev", "kmod", "zstd", "busybox", "iproute2", "ifupdown", "dbus"],
  ...["grub-pc-bin", "grub-efi-amd64-bin", "grub2-common", "e2fsprogs", "xfsprogs", "btrfs-progs", "dosfstools"],
  ...["lvm2", "mdadm", "cryptsetup", "cryptsetup-initramfs"],
];
/** Nothing of a server needs them, and an emulated builder unpacks them slowly. */
const withoutModules = [
  "drivers/gpu",
  "drivers/media",
  "drivers/infiniband",
  "drivers/net/wireless",
  "drivers/staging",
  "sound",
  "drivers/iio",
];

export const guestPort = 8080;

const customize = `#!/bin/sh
set -eu
root=$1
printf '%s\\n' vmw_pvscsi vmxnet3 mptsas e1000e sd_mod ext4 xfs btrfs dm-mod dm-crypt raid1 xts aesni_intel sha256_generic vfat > "$root/etc/initramfs-tools/modules"
echo MODULES=list > "$root/etc/initramfs-tools/conf.d/watari"
echo KEYFILE_PATTERN=/etc/keys/*.key > "$root/etc/cryptsetup-initramfs/conf-hook"
echo UMASK=0077 >> "$root/etc/initramfs-tools/initramfs.conf"
mkdir -p "$root/srv/www" "$root/etc/network"
cat > "$root/etc/systemd/system/answer.service" <<UNIT
[Unit]
Description=Answers over HTTP
After=network.target
[Service]
ExecStart=/bin/busybox httpd -f -p ${guestPort} -h /srv/www
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl enable answer.service
chroot "$root" passwd -d root
for unit in NetworkManager-wait-online.service systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer man-db.timer dpkg-db-backup.timer mdmonitor.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
chroot "$root" depmod "$(ls "$root/lib/modules")"
chroot "$root" update-initramfs -u -k all
rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists"
`;

/** network: with netplan and NetworkManager, too. */
export type TreeKind = "plain" | "network";
const networkPackages = ["netplan.io", "network-manager"];

export const treeName = (release: Release, kind: TreeKind): string => `${releases[release]}${kind === "plain" ? "" : "-network"}`;

/** Path of the cached archive; built when absent. */
export async function guestTree(cacheFolder: string, release: Release, kind: TreeKind): Promise<string> {
  const folder = join(cacheFolder, `boot-guests-${recipeVersion}`);
  const suite = releases[release];
  const path = join(folder, `${treeName(release, kind)}.tar`);
  if (existsSync(path)) return path;
  await mkdir(folder, { recursive: true });
  const work = await mkdtemp(join(folder, ".tree-"));
  try {
    const hook = join(work, "hook.sh");
    await writeFile(hook, customize, { mode: 0o755 });
    const own = (await hostAptSources("bookworm")).split("\n").filter((line) => release === 12 || line.endsWith(" bookworm main"));
    const left = [
      "/usr/share/doc/*",
      "/usr/share/locale/*",
      "/usr/share/man/*",
      ...withoutModules.flatMap((name) => [`/lib/modules/*/kernel/${name}/*`, `/usr/lib/modules/*/kernel/${name}/*`]),
    ];
    const made = join(work, "tree.tar");
    const args = [
      ...[
        "--variant=minbase",
        `--include=${[...packages, ...(kind === "network" ? networkPackages : [])].join(",")}`,
        "--aptopt=APT::Install-Recommends false",
      ],
      ...left.map((path) => `--dpkgopt=path-exclude=${path}`),
      // The initramfs is made once, when all is there.
      '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"; echo MODULES=list > "$1/etc/initramfs-tools/conf.d/watari"',
      ...[`--customize-hook=${hook} "$1"`, suite, made, "-"],
    ];
    await runCommand("mmdebstrap", args, { timeoutMs: buildMsMax, stdin: own.join("\n").replaceAll("bookworm", suite) });
    await rename(made, path);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return path;
}
