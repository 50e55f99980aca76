// Builds a small Debian guest once and caches it: GPT, GRUB, ext4, VMware drivers only in its initrd, HTTP on 8080.

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../src/base/atomic-file.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { hostAptSources } from "../../src/landing/helper/apt-sources.ts";

const recipeVersion = 3;
const sectorBytes = 512;
const imageBytes = 1536 * 2 ** 20;
const bootPartition = { firstSector: 2048, sectorCount: 2048 };
const rootFirstSector = 4096;
/** First byte of the root filesystem. */
export const guestRootOffset = rootFirstSector * sectorBytes;
const rootUuid = "6f1c7a52-2d2b-4f0e-9c57-0a1b2c3d4e5f";

const packages = [
  "linux-image-amd64",
  "initramfs-tools",
  "systemd-sysv",
  "udev",
  "kmod",
  "zstd",
  "grub-pc-bin",
  "grub-common",
  "ifupdown",
  "isc-dhcp-client",
  "iproute2",
  "busybox",
  "e2fsprogs",
];

/** What stands in the guest: its web page and the name its card had at the source. */
export const guest = { port: 8080, path: "/index.html", body: "guest-answers", nicName: "ens192", mac: "52:54:00:77:0a:01" } as const;

/** Path of the cached raw image; built when absent. Throws when the tools or the mirror are absent. */
export async function buildGuestImage(cacheFolder: string): Promise<string> {
  const path = join(cacheFolder, `landing-guest-${recipeVersion}.raw`);
  if (existsSync(path)) return path;
  await mkdir(cacheFolder, { recursive: true });
  const work = await mkdtemp(join(cacheFolder, ".guest-"));
  try {
    const tree = join(work, "tree");
    await bootstrap(work, tree);
    const image = join(work, "disk.raw");
    await assemble(tree, image);
    await rename(image, path);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return path;
}

async function bootstrap(work: string, tree: string): Promise<void> {
  const hook = join(work, "hook.sh");
  await writeFile(hook, customizeScript, { mode: 0o755 });
  await runCommand(
    "mmdebstrap",
    [
      "--variant=minbase",
      `--include=${packages.join(",")}`,
      "--aptopt=APT::Install-Recommends false",
      "--dpkgopt=path-exclude=/usr/share/doc/*",
      "--dpkgopt=path-exclude=/usr/share/locale/*",
      '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"; echo MODULES=list > "$1/etc/initramfs-tools/conf.d/watari"',
      `--customize-hook=${hook} "$1"`,
      "bookworm",
      tree,
      "-",
    ],
    { timeoutMs: 900_000, stdin: await hostAptSources("bookworm") },
  );
}

const customizeScript = `#!/bin/sh
set -eu
root=$1
printf '%s\\n' vmw_pvscsi vmxnet3 sd_mod ext4 > "$root/etc/initramfs-tools/modules"
echo MODULES=list > "$root/etc/initramfs-tools/conf.d/watari"
echo landing-guest > "$root/etc/hostname"
printf 'UUID=${rootUuid} / ext4 errors=remount-ro 0 1\\n' > "$root/etc/fstab"
mkdir -p "$root/etc/network" "$root/srv/www" "$root/boot/grub"
printf 'auto lo\\niface lo inet loopback\\nauto ${guest.nicName}\\niface ${guest.nicName} inet dhcp\\n' > "$root/etc/network/interfaces"
printf '${guest.body}\\n' > "$root/srv/www/index.html"
cat > "$root/etc/systemd/system/answer.service" <<UNIT
[Unit]
Description=Answers over HTTP
After=network.target
[Service]
ExecStart=/bin/busybox httpd -f -p ${guest.port} -h /srv/www
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl enable answer.service
chroot "$root" passwd -d root
chroot "$root" update-initramfs -u -k all
kernel=$(ls "$root/lib/modules")
cat > "$root/boot/grub/grub.cfg" <<GRUB
set timeout=0
serial --unit=0 --speed=115200
terminal_output serial
search --no-floppy --fs-uuid --set=root ${rootUuid}
menuentry Debian {
  linux /boot/vmlinuz-$kernel root=UUID=${rootUuid} ro console=ttyS0 rootdelay=5
  initrd /boot/initrd.img-$kernel
}
GRUB
chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,gpt2)/boot/grub' \\
  biosdisk part_gpt ext2 normal linux search search_fs_uuid configfile serial echo
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/grub/boot.img"
rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists"
`;

/** Partition table, GRUB in its own partition, and the tree as ext4: written without mounting anything. */
async function assemble(tree: string, image: string): Promise<void> {
  const sectorCount = imageBytes / sectorBytes;
  const rootSectorCount = sectorCount - rootFirstSector - 2048;
  {
    await using file = await open(image, "wx");
    await file.truncate(imageBytes);
    const { gptImage } = await import("./gpt-image.ts");
    for (const piece of gptImage(sectorCount, [
      { type: "21686148-6449-6e6f-744e-656564454649", firstSector: bootPartition.firstSector, sectorCount: bootPartition.sectorCount },
      { type: "0fc63daf-8483-4772-8e79-3d69d8477de4", firstSector: rootFirstSector, sectorCount: rootSectorCount },
    ]))
      await file.write(piece.bytes, 0, piece.bytes.length, piece.offset);
    const boot = await readFile(join(tree, "boot/grub/boot.img"));
    boot.writeBigUInt64LE(BigInt(bootPartition.firstSector), 0x5c);
    await file.write(boot, 0, 440, 0); // The partition table of the protective MBR stays.
    const core = await readFile(join(tree, "boot/grub/core.img"));
    core.writeBigUInt64LE(BigInt(bootPartition.firstSector + 1), 0x1f4);
    await file.write(core, 0, core.length, bootPartition.firstSector * sectorBytes);
  }
  await runCommand(
    "mke2fs",
    [
      "-q",
      "-t",
      "ext4",
      "-F",
      "-U",
      rootUuid,
      "-L",
      "root",
      "-E",
      `offset=${guestRootOffset}`,
      "-d",
      tree,
      image,
      `${(rootSectorCount * sectorBytes) / 1024}k`,
    ],
    {
      timeoutMs: 300_000,
    },
  );
  if ((await stat(image)).size !== imageBytes) throw new Error("mke2fs changed the size of the image");
}

if (import.meta.main) {
  const path = await buildGuestImage(process.env["WATARI_CACHE"] ?? "/var/cache/watari");
  await writeFileAtomic(`${path}.built`, `${recipeVersion}\n`);
}
