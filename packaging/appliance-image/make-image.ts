// Makes the appliance's image: Debian with our package as a bootable disk, stream-optimised, described and archived as an OVA. Nothing is mounted or booted.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir, open, readdir, readFile, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { runCommand } from "../../src/base/run-command.ts";
import { makePackage } from "../programs.ts";
import { renderManifest, renderOvf } from "./ovf.ts";

export interface ImageWish {
  readonly version: string;
  readonly epochSeconds: number;
  /** An empty folder for what is needed on the way. */
  readonly work: string;
  /** Gets the archive. */
  readonly folder: string;
  /** Lines of Debian's package sources, for mmdebstrap. */
  readonly aptSources: string;
  readonly aptSettings: readonly string[];
  readonly onStep: (text: string) => void;
}

export interface MadeImage {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

const sectorBytes = 512;
const mebibyte = 2 ** 20;
const diskBytes = 120 * 1024 * mebibyte;
const rootStartMiB = 2;
/** The root grows to the disk's end at the first boot. */
const rootMiB = 3072;
const rootUuid = "3b1f4f6e-0f0a-4f57-9a36-5d2a7c1e9b04";
const longMs = 30 * 60_000;

const packages = [
  ...["linux-image-amd64", "initramfs-tools", "zstd", "systemd-sysv", "systemd-timesyncd", "udev", "dbus", "kmod", "login"],
  ...["grub-pc-bin", "grub-common", "fdisk", "e2fsprogs", "iproute2", "procps", "hostname", "less", "open-vm-tools"],
  // What watari-appliance depends on.
  ...["ca-certificates", "libatomic1", "libstdc++6", "binutils"],
];
const leftOut = [
  "/usr/share/doc/*/examples/*",
  "/usr/share/locale/*",
  "/lib/modules/*/kernel/sound/*",
  "/lib/modules/*/kernel/drivers/gpu/*",
];

/** Needs root, mmdebstrap, mke2fs and qemu-img. */
export async function makeImage(wish: ImageWish): Promise<MadeImage> {
  const { work, version, onStep } = wish;
  onStep("making the appliance's package");
  const place = join(work, "package");
  await mkdir(place);
  const { path: packagePath } = await makePackage("appliance", { ...wish, work: place, folder: work, compression: "none" });
  onStep("getting Debian 12 with mmdebstrap");
  const tree = await makeTree(wish, packagePath);
  onStep("making the disk");
  const raw = await makeDisk(work, tree);
  const populatedBytes = (await stat(raw)).blocks * sectorBytes;
  await rm(tree, { recursive: true, force: true });
  onStep("compressing the disk");
  const name = `watari-appliance-${version.replaceAll(/[^A-Za-z0-9.+-]/g, "-")}`;
  const vmdk = join(work, `${name}-disk1.vmdk`);
  const format = ["-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=lsilogic"];
  await runCommand("qemu-img", ["convert", ...format, raw, vmdk], { timeoutMs: longMs });
  await rm(raw);
  return await archive(wish, { name, vmdk, populatedBytes, capacityBytes: diskBytes });
}

/** OVF first, then the manifest, then the disk (DSP0243, Distribution): a reader need not go back. */
async function archive(
  { version, folder, work, epochSeconds }: Pick<ImageWish, "version" | "folder" | "work" | "epochSeconds">,
  disk: { readonly name: string; readonly vmdk: string; readonly populatedBytes: number; readonly capacityBytes: number },
): Promise<MadeImage> {
  const { name, vmdk, populatedBytes, capacityBytes } = disk;
  const diskFile = basename(vmdk);
  const ovf = renderOvf({ version, diskFile, diskFileBytes: (await stat(vmdk)).size, capacityBytes, populatedBytes });
  const ovfFile = `${name}.ovf`;
  const manifestFile = `${name}.mf`;
  await writeFile(join(work, ovfFile), ovf);
  const files = [ovfFile, diskFile];
  const digests = await Promise.all(files.map(async (file) => ({ name: file, sha256: await digestOf(join(work, file)) })));
  await writeFile(join(work, manifestFile), renderManifest(digests));
  const path = join(folder, `${name}.ova`);
  const owner = ["--owner=0", "--group=0", "--numeric-owner", "--mode=0644", `--mtime=@${epochSeconds}`];
  const fresh = `${path}.fresh`;
  await runCommand("tar", ["--format=ustar", ...owner, "-C", work, "-cf", fresh, ovfFile, manifestFile, diskFile], { timeoutMs: longMs });
  await rename(fresh, path);
  return { path, sizeBytes: (await stat(path)).size, sha256: await digestOf(path) };
}

async function makeTree({ work, aptSources, aptSettings }: ImageWish, packagePath: string): Promise<string> {
  const tree = join(work, "tree");
  const files = join(work, "files");
  await mkdir(files);
  for (const name of ["first-boot.sh", "watari-first-boot.service"]) await copyFile(join(import.meta.dirname, name), join(files, name));
  await copyFile(packagePath, join(files, "watari-appliance.deb"));
  const hook = join(work, "hook.sh");
  await writeFile(hook, customise(files), { mode: 0o755 });
  const args = [
    ...["--variant=minbase", `--include=${packages.join(",")}`, "--aptopt=APT::Install-Recommends false"],
    ...[...aptSettings.map((setting) => `--aptopt=${setting}`), ...leftOut.map((path) => `--dpkgopt=path-exclude=${path}`)],
    ...[`--customize-hook=${hook} "$1"`, "bookworm", tree, "-"],
  ];
  await runCommand("mmdebstrap", args, { timeoutMs: longMs, stdin: aptSources });
  return tree;
}

const customise = (files: string): string => `#!/bin/sh
set -eu
root=$1
cp ${files}/watari-appliance.deb "$root/tmp/"
chroot "$root" dpkg --install /tmp/watari-appliance.deb
rm "$root/tmp/watari-appliance.deb"
install -D -m 755 ${files}/first-boot.sh "$root/usr/lib/watari-image/first-boot"
install -D -m 644 ${files}/watari-first-boot.service "$root/etc/systemd/system/watari-first-boot.service"
chroot "$root" systemctl enable watari-first-boot.service watari-appliance.service systemd-networkd.service systemd-timesyncd.service
chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer
# Nobody signs in with a password that others know: set-up gives one.
chroot "$root" passwd --lock root
echo watari-appliance > "$root/etc/hostname"
printf '127.0.0.1 localhost\\n127.0.1.1 watari-appliance\\n::1 localhost\\n' > "$root/etc/hosts"
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/resolv.conf"
printf 'UUID=${rootUuid} / ext4 errors=remount-ro,x-systemd.growfs 0 1\\n' > "$root/etc/fstab"
mkdir -p "$root/etc/repart.d" "$root/boot/grub"
printf '[Partition]\\nType=root-x86-64\\n' > "$root/etc/repart.d/50-root.conf"
kernel=$(ls "$root/lib/modules")
cat > "$root/boot/grub/grub.cfg" <<GRUB
set timeout=2
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
search --no-floppy --fs-uuid --set=root ${rootUuid}
menuentry "Watari replication appliance" {
  linux /vmlinuz root=UUID=${rootUuid} ro console=ttyS0,115200n8 console=tty0 quiet
  initrd /initrd.img
}
GRUB
ln -sf "boot/vmlinuz-$kernel" "$root/vmlinuz"
ln -sf "boot/initrd.img-$kernel" "$root/initrd.img"
chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,gpt2)/boot/grub' \\
  biosdisk part_gpt ext2 normal linux search search_fs_uuid configfile serial terminal
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/grub/boot.img"
rm -rf "$root/var/cache/apt/archives" "$root/var/lib/apt/lists"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
`;

/** Partition table by the fresh system's own sfdisk; boot loader in its own partition; the tree as ext4. */
async function makeDisk(work: string, tree: string): Promise<string> {
  const inside = join(tree, "disk.raw");
  await writeFile(inside, "");
  await truncate(inside, diskBytes);
  const table = [
    "label: gpt",
    "start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649",
    `start=${rootStartMiB}MiB, size=${rootMiB}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709`,
  ];
  await runCommand("chroot", [tree, "/sbin/sfdisk", "--quiet", "/disk.raw"], { stdin: table.join("\n") });
  const raw = join(work, "disk.raw");
  await rename(inside, raw);
  await writeBootLoader(raw, join(tree, "boot/grub"));
  const extended = `offset=${rootStartMiB * mebibyte},lazy_itable_init=0,lazy_journal_init=0`;
  const args = ["-q", "-F", "-t", "ext4", "-b", "4096", "-U", rootUuid, "-L", "root", "-E", extended, "-d", tree, raw, `${rootMiB}M`];
  await runCommand("mke2fs", args, { timeoutMs: longMs });
  if ((await stat(raw)).size !== diskBytes) throw new Error("mke2fs changed the size of the disk");
  return raw;
}

/** As grub-bios-setup would, which wants a device: where the second part lies is written into both. */
async function writeBootLoader(raw: string, folder: string): Promise<void> {
  const firstSector = mebibyte / sectorBytes;
  const names = await readdir(folder);
  if (!names.includes("core.img")) throw new Error("the boot loader was not made");
  const [boot, core] = [await readFile(join(folder, "boot.img")), await readFile(join(folder, "core.img"))];
  boot.writeBigUInt64LE(BigInt(firstSector), 0x5c);
  core.writeBigUInt64LE(BigInt(firstSector + 1), 0x1f4);
  await using file = await open(raw, "r+");
  await file.write(boot, 0, 440, 0); // The partition table of the protective MBR stays.
  await file.write(core, 0, core.length, mebibyte);
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
