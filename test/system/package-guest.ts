// A Debian 12 guest with systemd that has the packages which the hub's package names, and has never seen Watari; built once, cached.

import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hostAptSources } from "../../src/landing/helper/apt-sources.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { chooseAccelerator } from "../../src/landing/qemu/accelerator.ts";

const recipeVersion = 1;
const rootBytes = 4 * 2 ** 30;
const guestMsMax = 15 * 60_000;

const packages = [
  ...["linux-image-amd64", "initramfs-tools", "systemd-sysv", "udev", "dbus", "kmod", "zstd"],
  // What watari-hub depends on.
  ...["postgresql", "qemu-system-x86", "qemu-system-common", "qemu-utils", "dnsmasq-base", "e2fsprogs", "util-linux", "mount"],
  ...["procps", "fuse3", "iproute2", "ca-certificates", "libatomic1", "libstdc++6"],
];

/** Runs /mnt/trial.sh of the second disk once the machine is up, its words on the serial console. */
const trialUnit = `[Unit]
Description=Runs the trial
After=multi-user.target
[Service]
Type=oneshot
ExecStartPre=/bin/mount -o ro /dev/vdb /mnt
ExecStart=/bin/bash /mnt/trial.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
`;

export interface PackageGuest {
  readonly rootDisk: string;
  readonly kernel: string;
  readonly initrd: string;
}

export async function packageGuest(cacheFolder: string): Promise<PackageGuest> {
  const folder = join(cacheFolder, `package-guest-${recipeVersion}`);
  const guest = { rootDisk: join(folder, "root.raw"), kernel: join(folder, "vmlinuz"), initrd: join(folder, "initrd") };
  if (existsSync(folder)) return guest;
  await mkdir(cacheFolder, { recursive: true });
  const work = await mkdtemp(join(cacheFolder, ".package-guest-"));
  try {
    const [tree, fresh] = [join(work, "tree"), join(work, "fresh")];
    await mkdir(fresh);
    const args = ["--variant=minbase", `--include=${packages.join(",")}`, "--aptopt=APT::Install-Recommends false", "bookworm", tree, "-"];
    await runCommand("mmdebstrap", args, { timeoutMs: guestMsMax, stdin: await hostAptSources("bookworm") });
    await writeFile(join(tree, "etc/hostname"), "clean\n");
    await writeFile(join(tree, "etc/fstab"), "/dev/vda / ext4 errors=remount-ro 0 1\n");
    await writeFile(join(tree, "etc/systemd/system/trial.service"), trialUnit);
    await symlink("/etc/systemd/system/trial.service", join(tree, "etc/systemd/system/multi-user.target.wants/trial.service"));
    for (const [prefix, name] of [
      ["vmlinuz-", "vmlinuz"],
      ["initrd.img-", "initrd"],
    ] as const) {
      const found = (await readdir(join(tree, "boot"))).find((each) => each.startsWith(prefix));
      await copyFile(join(tree, "boot", found ?? ""), join(fresh, name));
    }
    await makeFilesystem(join(fresh, "root.raw"), tree, rootBytes);
    await rename(fresh, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return guest;
}

async function makeFilesystem(path: string, tree: string, sizeBytes: number): Promise<void> {
  await writeFile(path, "");
  await truncate(path, sizeBytes);
  await runCommand("mke2fs", ["-q", "-F", "-t", "ext4", "-d", tree, path], { timeoutMs: guestMsMax });
}

/** Boots the guest on a copy-on-write disk with `files` as its second one; answers what it said on its console when it is off. */
export async function runTrial(guest: PackageGuest, options: { readonly files: string; readonly work: string }): Promise<string> {
  const { files, work } = options;
  const [overlay, second, console] = [join(work, "root.qcow2"), join(work, "files.raw"), join(work, "console.log")];
  await runCommand("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", guest.rootDisk, overlay]);
  await makeFilesystem(second, files, 512 * 2 ** 20);
  const accelerator = await chooseAccelerator();
  const masked = "systemd.mask=serial-getty@ttyS0.service";
  const drive = (path: string, format: string): string => `file=${path},format=${format},if=virtio,cache=unsafe`;
  const args = [
    ...["-machine", "q35", "-accel", accelerator, "-cpu", accelerator === "kvm" ? "host" : "max", "-smp", "2", "-m", "2048"],
    ...["-nodefaults", "-display", "none", "-no-reboot", "-chardev", `file,id=serial,path=${console}`, "-serial", "chardev:serial"],
    ...["-drive", drive(overlay, "qcow2"), "-drive", `${drive(second, "raw")},readonly=on`],
    ...["-kernel", guest.kernel, "-initrd", guest.initrd, "-append", `root=/dev/vda rw console=ttyS0 quiet ${masked}`],
  ];
  await runCommand("setpriv", ["--pdeathsig", "KILL", "--", "qemu-system-x86_64", ...args], { timeoutMs: 2 * guestMsMax });
  return await readFile(console, "utf8");
}
