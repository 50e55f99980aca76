// Makes the disks of the proof's guests in an emulated machine, so that LVM, RAID and encryption are real; once each, into the cache.

import { existsSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../../../src/base/run-command.ts";
import { startGuest } from "../../system/agent-guest.ts";
import { answerOf, luksKey, type BootGuest } from "./guests.ts";
import type { TreeKind } from "./guest-tree.ts";
import { networkScript } from "./network-script.ts";
import { rootImage, rootImageBytes, type RootKind } from "./root-image.ts";
import { installSourceRun, runSource } from "./source-run.ts";

const recipeVersion = 1;
const diskBytes = 2 * 2 ** 30;

/** Paths of the guest's disks in the cache. */
export function guestDisks(cacheFolder: string, guest: BootGuest): readonly string[] {
  const folder = join(cacheFolder, "boot-guests-1", `${guest.name}-${recipeVersion}`);
  return Array.from({ length: guest.diskCount }, (_, index) => join(folder, `disk${index}.raw`));
}

/** Builds those that are absent, all in one machine. */
export async function buildGuests(cacheFolder: string, wanted: readonly BootGuest[], say: (line: string) => void): Promise<void> {
  const absent = wanted.filter((guest) => guestDisks(cacheFolder, guest).some((path) => !existsSync(path)));
  const built = absent.length === 0 ? [] : await buildInOne(cacheFolder, absent, say);
  for (const guest of built) {
    const paths = guestDisks(cacheFolder, guest);
    if (guest.source !== undefined)
      say(
        await runSource(
          guest,
          paths.map((path) => `${path}.part`),
        ),
      );
    for (const path of paths) await rename(`${path}.part`, path);
  }
}

/** The builder has ended on return: one machine at a time. */
async function buildInOne(cacheFolder: string, absent: readonly BootGuest[], say: (line: string) => void): Promise<readonly BootGuest[]> {
  const built: BootGuest[] = [];
  const roots = new Map<string, string>();
  for (const guest of absent)
    roots.set(rootName(guest), await rootImage(cacheFolder, { release: guest.release, tree: treeKind(guest), kind: rootKind(guest) }));
  const treeDisks = [...roots].map(([name, path]) => ({ name, bus: "virtio" as const, sizeBytes: rootImageBytes, path }));
  const nameOf = (guest: BootGuest, index: number): string => `${guest.name}-${index}`;
  const targetDisks = absent.flatMap((guest) =>
    Array.from({ length: guest.diskCount }, (_, index) => ({ name: nameOf(guest, index), bus: "virtio" as const, sizeBytes: diskBytes })),
  );
  say(`the builder starts, for ${absent.map(({ name }) => name).join(" ")}`);
  await using builder = await startGuest({ suite: "trixie", more: [...treeDisks, ...targetDisks], vdbBytes: 2 ** 20 });
  for (const { name, path } of treeDisks)
    await runCommand("dd", [`if=${path}`, `of=${builder.disks[name] ?? ""}`, "bs=4M", "conv=notrunc", "status=none"]);
  for (const guest of absent) {
    const outcome = await builder.run("bash -s", new TextEncoder().encode(buildScript(guest))).then(
      (output) => ({ isBuilt: true, words: output.trim().split("\n").at(-1) ?? "" }),
      (error: unknown) => ({ isBuilt: false, words: String(error) }),
    );
    say(`${guest.name} is ${outcome.isBuilt ? "" : "not "}built: ${outcome.words}`);
    if (!outcome.isBuilt) continue; // The others are; its row of the proof says that it has no disks.
    const paths = guestDisks(cacheFolder, guest);
    for (const [index, path] of paths.entries()) {
      await mkdir(join(path, ".."), { recursive: true });
      await runCommand("cp", ["--sparse=always", builder.disks[nameOf(guest, index)] ?? "", `${path}.part`]);
    }
    built.push(guest);
  }
  return built;
}

/** What the root's filesystem is, whatever lies under it. */
function rootKind({ layout }: BootGuest): RootKind {
  return layout === "btrfs" ? "btrfs" : layout === "xfs" || layout === "lvm" ? "xfs" : "ext4";
}

const treeKind = ({ network = "plain" }: BootGuest): TreeKind => (network === "plain" ? "plain" : "network");

const rootName = (guest: BootGuest): string => `root${guest.release}${treeKind(guest).slice(0, 1)}${rootKind(guest)}`;

const mounting = `for f in dev proc sys; do mount --bind /$f /t/$f; mount --make-private /t/$f; done`;

/** An emulated guest on a busy host may need longer than systemd's 90 seconds to see its disks. */
const patience = "systemd.default_device_timeout_sec=900";

/** Disks, tree, boot loader and configuration of one guest; the last line of its output says how long it took. */
function buildScript(guest: BootGuest): string {
  const disk = (index: number): string => `/dev/disk/by-id/virtio-TEST-${guest.name}-${index}`;
  const isEfi = guest.firmware === "efi";
  return `set -e
one=$(readlink -f ${disk(0)}); two=$(readlink -f ${disk(1)} || true); key=${luksKey}
mkdir -p /t; exec 3>&1 4>&2 >/run/build.log 2>&1; copy() { dd if=/dev/disk/by-id/virtio-TEST-${rootName(guest)} of=$1 bs=4M conv=fsync; }; trap 'tail -n 15 /run/build.log >&4' ERR
${layoutScript(guest)}
${mounting}
${isEfi ? 'chroot /t mkfs.vfat ${one}1; mkdir -p /t/boot/efi; mount ${one}1 /t/boot/efi; echo "UUID=$(blkid -o value -s UUID ${one}1) /boot/efi vfat umask=0077 0 1" >> /run/fstab' : ""}
cp /run/fstab /t/etc/fstab
echo ${guest.name} > /t/etc/hostname
echo '${answerOf(guest)}' > /t/srv/www/index.html
${networkScript(guest)}
printf 'GRUB_DEFAULT=0\\nGRUB_TIMEOUT=0\\nGRUB_DISTRIBUTOR=Debian\\nGRUB_CMDLINE_LINUX_DEFAULT=""\\nGRUB_CMDLINE_LINUX="${patience}"\\nGRUB_DISABLE_OS_PROBER=true\\n' > /t/etc/default/grub
${guest.layout === "luks" ? luksScript : ""}
${guest.layout === "raid1" ? "mdadm --detail --scan >> /t/etc/mdadm/mdadm.conf" : ""}
${isEfi ? "chroot /t grub-install --target=x86_64-efi --efi-directory=/boot/efi --bootloader-id=debian --no-nvram" : `for d in $one ${guest.layout === "raid1" ? "$two" : ""}; do chroot /t grub-install --target=i386-pc $d; done`}
chroot /t update-grub
${guest.source === undefined ? "" : installSourceRun(guest)}
${namesScript(guest)}
for f in dev proc sys; do umount /t/$f; done
sync; umount -R /t; vgchange -an vg0 || true; cryptsetup close opened || true; mdadm --stop /dev/md0 || true
echo "in $SECONDS s" >&3
`;
}

function layoutScript({ layout, firmware }: BootGuest): string {
  const first = firmware === "efi" ? "-n1:0:+48M -t1:ef00" : "-n1:0:+1M -t1:ef02";
  const settle = "partprobe $one || blockdev --rereadpt $one || true; udevadm settle";
  const line = (device: string, folder: string, type: string, options = "defaults"): string =>
    `echo "UUID=$(blkid -o value -s UUID ${device}) ${folder} ${type} ${options} 0 1"`;
  switch (layout) {
    case "ext4":
      return `sgdisk ${first} -n2:0:0 $one; ${settle}
copy \${one}2; tune2fs -U random \${one}2; mount \${one}2 /t; ${line("${one}2", "/", "ext4")} > /run/fstab`;
    case "xfs":
      return `sgdisk ${first} -n2:0:0 $one; ${settle}
copy \${one}2; mount \${one}2 /t; ${line("${one}2", "/", "xfs")} > /run/fstab`;
    case "btrfs":
      return `sgdisk ${first} -n2:0:0 $one; ${settle}
copy \${one}2; mount \${one}2 /t; btrfs subvolume snapshot /t /t/@rootfs; btrfs subvolume create /t/@home; umount /t
mount -o subvol=@rootfs \${one}2 /t; mkdir -p /t/home; mount -o subvol=@home \${one}2 /t/home
${line("${one}2", "/", "btrfs", "defaults,subvol=@rootfs")} > /run/fstab; ${line("${one}2", "/home", "btrfs", "defaults,subvol=@home")} >> /run/fstab`;
    case "lvm":
      return `sgdisk ${first} -n2:0:+300M -n3:0:0 $one; ${settle}
mkfs.ext4 -q \${one}2; pvcreate -ff -y \${one}3 $two; vgcreate vg0 \${one}3 $two
lvcreate -y -q -n root -L 1700M vg0; lvcreate -y -q -n data-one -L 600M vg0; copy /dev/vg0/root; mkfs.ext4 -q /dev/vg0/data-one
mount /dev/vg0/root /t; mount \${one}2 /mnt; cp -a /t/boot/. /mnt/; umount /mnt; mount \${one}2 /t/boot
printf '/dev/mapper/vg0-root / xfs defaults 0 1\\n/dev/mapper/vg0-data--one /srv/data ext4 defaults,nofail 0 2\\n' > /run/fstab; mkdir -p /t/srv/data
${line("${one}2", "/boot", "ext4")} >> /run/fstab`;
    case "raid1":
      return `for d in $one $two; do sgdisk ${first} -n2:0:0 -t2:fd00 $d; done; ${settle}; partprobe $two || true; udevadm settle
mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --assume-clean --metadata=1.2 --name=root --homehost=any \${one}2 \${two}2
copy /dev/md0; mount /dev/md0 /t; ${line("/dev/md0", "/", "ext4")} > /run/fstab`;
    case "luks":
      return `sgdisk ${first} -n2:0:+300M -n3:0:0 $one; ${settle}
mkfs.ext4 -q \${one}2; printf %s $key | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - \${one}3
printf %s $key | cryptsetup open --key-file - \${one}3 opened; copy /dev/mapper/opened
mount /dev/mapper/opened /t; mount \${one}2 /mnt; cp -a /t/boot/. /mnt/; umount /mnt; mount \${one}2 /t/boot
echo '/dev/mapper/sda3_crypt / ext4 defaults 0 1' > /run/fstab; ${line("${one}2", "/boot", "ext4")} >> /run/fstab`;
  }
}

/** The key lies in the initramfs, so that nobody has to type it; /boot is not encrypted. */
const luksScript = `mkdir -m 700 /t/etc/keys; printf %s $key > /t/etc/keys/root.key; chmod 600 /t/etc/keys/root.key
uuid=$(blkid -o value -s UUID \${one}3); echo "sda3_crypt UUID=$uuid /etc/keys/root.key luks,initramfs" > /t/etc/crypttab
dmsetup rename opened sda3_crypt; chroot /t update-initramfs -u -k all; dmsetup rename sda3_crypt opened
sed -i "s#UUID=$uuid#/dev/sda3#" /t/etc/crypttab`;

function namesScript({ names, layout }: BootGuest): string {
  if (names === "uuid" || layout === "luks") return "";
  const name = names === "sdx" ? "/dev/sda2" : "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part2";
  return `uuid=$(blkid -o value -s UUID \${one}2); sed -i "s#^UUID=$uuid#${name}#" /t/etc/fstab; sed -i "s#root=UUID=$uuid#root=${name}#" /t/boot/grub/grub.cfg`;
}
