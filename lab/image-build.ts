// Builds the guest image: packages by mmdebstrap, root file system without a mount, the rest in one boot on its own hardware.

import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { systemRandom } from "../src/base/random.ts";
import { runCommand, tryCommand } from "../src/base/run-command.ts";
import { Fault } from "../src/contract/errors.ts";
import { hostAptSettings, hostAptSources } from "../src/landing/helper/apt-sources.ts";
import { type Accelerator, chooseAccelerator } from "./accelerator.ts";
import { hardwareArguments } from "./hardware.ts";
import { guestFiles, guestFolder, guestPackages, ledgerDisk, leftOut, mebibyte, rootDisk, suite } from "./image-recipe.ts";

export interface BuildOptions {
  /** An empty folder that receives root.raw, ledger.raw and vmlinuz. */
  readonly folder: string;
  readonly cacheFolder: string;
  readonly progress: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface BuiltImage {
  readonly rootUuid: string;
  readonly card: string;
  readonly kernel: string;
}

const minuteMs = 60_000;
/** Whatever ends this process ends the helper too, and a private mount namespace takes its mounts along. */
const diesWithUs = ["--pdeathsig", "KILL", "--"] as const;
const privateMounts = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"] as const;

/** Leaves the finished image in `folder`; whatever it needed on the way is removed. */
export async function buildImage(options: BuildOptions): Promise<BuiltImage> {
  const { folder, progress } = options;
  const tree = join(folder, "tree");
  const uuids = { root: systemRandom.uuid(), swap: systemRandom.uuid() };
  progress("image: getting Debian 12 packages with mmdebstrap (a minute or two)");
  await installPackages(tree, options.signal);
  progress("image: adding the ledger and the machine's settings");
  await addGuestFiles(tree, uuids);
  progress("image: making the disks");
  const boot = await keepBootFiles(tree, folder);
  await makeRootDisk(join(folder, "root.raw"), tree, uuids.root);
  await writeFile(join(folder, "ledger.raw"), "");
  await truncate(join(folder, "ledger.raw"), ledgerDisk.sizeBytes);
  await rm(tree, { recursive: true, force: true });
  const accelerator = await chooseAccelerator({ kernel: boot.kernel, cacheFolder: options.cacheFolder });
  progress(`image: finishing on its own hardware: boot loader, LVM, XFS, initramfs (${accelerator.kind})`);
  const finished = await finishOnHardware({ folder, boot, accelerator, rootUuid: uuids.root, signal: options.signal });
  await rm(boot.initrd);
  return { rootUuid: uuids.root, ...finished };
}

async function installPackages(tree: string, signal: AbortSignal | undefined): Promise<void> {
  const settings = await hostAptSettings();
  const args = [
    "--variant=minbase",
    `--include=${guestPackages.join(",")}`,
    ...settings.map((setting) => `--aptopt=${setting}`),
    ...leftOut.map((path) => `--dpkgopt=path-exclude=${path}`),
    '--customize-hook=chroot "$1" useradd --create-home --shell /bin/bash --gid operator --groups sudo operator',
    '--customize-hook=chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer',
    '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*',
    suite,
    tree,
    "-",
  ];
  const stdin = await hostAptSources(suite);
  const result = await tryCommand("setpriv", [...diesWithUs, ...privateMounts, "mmdebstrap", ...args], {
    stdin,
    timeoutMs: 20 * minuteMs,
    env: { ...process.env, TMPDIR: dirname(tree) },
    ...(signal && { signal }),
  });
  if (result.exitCode !== 0) {
    throw new Fault("Internal", "could not make the guest's root file system with mmdebstrap", {
      causes: ["the Debian package source cannot be reached from here", "the package source is half updated"],
      action: "check that `apt-get update` works on this machine, then call again",
      evidence: { lastLines: result.stderr.trim().split("\n").slice(-8) },
    });
  }
}

async function addGuestFiles(tree: string, uuids: { readonly root: string; readonly swap: string }): Promise<void> {
  for (const file of guestFiles) {
    const target = join(tree, file.to);
    await mkdir(dirname(target), { recursive: true });
    await copyFile(join(guestFolder, file.from), target);
    await chmod(target, file.mode);
  }
  const ledger = join(tree, "usr/local/bin/ledger");
  await runCommand("go", ["build", "-trimpath", "-ldflags=-s -w", "-o", ledger, "."], {
    cwd: join(guestFolder, "ledger"),
    env: { ...process.env, GO111MODULE: "off", CGO_ENABLED: "0" },
    timeoutMs: 5 * minuteMs,
  });
  await mkdir(join(tree, "var/lib/ledger"), { recursive: true });
  await mkdir(join(tree, "srv/ledger"), { recursive: true });
  await writeFile(join(tree, "etc/watari-image"), `root_uuid=${uuids.root}\nswap_uuid=${uuids.swap}\n`);
  await writeFile(join(tree, "etc/fstab"), `UUID=${uuids.root} / ext4 errors=remount-ro 0 1\n`);
  await writeFile(join(tree, "etc/network/interfaces"), "auto lo\niface lo inet loopback\n");
  await writeFile(join(tree, "etc/hostname"), "fresh\n");
  for (const unit of ["watari-finish", "watari-instance"]) {
    const link = join(tree, `etc/systemd/system/multi-user.target.wants/${unit}.service`);
    await mkdir(dirname(link), { recursive: true });
    await symlink(`/etc/systemd/system/${unit}.service`, link);
  }
}

interface BootFiles {
  readonly kernel: string;
  readonly initrd: string;
}

async function keepBootFiles(tree: string, folder: string): Promise<BootFiles> {
  const names = await readdir(join(tree, "boot"));
  const kernelName = names.find((name) => name.startsWith("vmlinuz-"));
  const initrdName = names.find((name) => name.startsWith("initrd.img-"));
  if (kernelName === undefined || initrdName === undefined)
    throw new Fault("Internal", "could not find kernel and initramfs in the fresh image");
  const boot = { kernel: join(folder, "vmlinuz"), initrd: join(folder, "initrd") };
  await copyFile(join(tree, "boot", kernelName), boot.kernel);
  await copyFile(join(tree, "boot", initrdName), boot.initrd);
  return boot;
}

/** The partition table is written by the fresh system's own sfdisk, so that the host needs none. */
async function makeRootDisk(path: string, tree: string, rootUuid: string): Promise<void> {
  const inside = join(tree, "root.raw");
  await writeFile(inside, "");
  await truncate(inside, rootDisk.sizeBytes);
  const { rootStartMiB, rootSizeMiB } = rootDisk;
  const partitions = [
    "label: gpt",
    "start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649",
    `start=${rootStartMiB}MiB, size=${rootSizeMiB}MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4`,
    `start=${rootStartMiB + rootSizeMiB}MiB, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F`,
  ];
  await runCommand("chroot", [tree, "/sbin/sfdisk", "--quiet", "/root.raw"], { stdin: partitions.join("\n") });
  await rename(inside, path);
  const extended = `offset=${rootStartMiB * mebibyte},lazy_itable_init=0,lazy_journal_init=0`;
  const args = ["-q", "-F", "-t", "ext4", "-b", "4096", "-U", rootUuid, "-E", extended, "-d", tree, path, `${rootSizeMiB}M`];
  await runCommand("mke2fs", args, { timeoutMs: 10 * minuteMs });
}

interface FinishOptions {
  readonly folder: string;
  readonly boot: BootFiles;
  readonly accelerator: Accelerator;
  readonly rootUuid: string;
  readonly signal?: AbortSignal | undefined;
}

async function finishOnHardware(options: FinishOptions): Promise<{ readonly card: string; readonly kernel: string }> {
  const serial = join(options.folder, "finish.log");
  const hardware = hardwareArguments({
    accelerator: options.accelerator,
    cpuCount: 2,
    memoryMiB: 1024,
    mac: "00:50:56:00:00:01",
    disks: [
      { path: join(options.folder, "root.raw"), format: "raw", serial: "labroot" },
      { path: join(options.folder, "ledger.raw"), format: "raw", serial: "labdata" },
    ],
  });
  // A login prompt on the serial line would hang up the line that the script speaks on.
  const masked = "systemd.mask=serial-getty@ttyS0.service systemd.mask=ssh.service";
  const append = `root=UUID=${options.rootUuid} rw console=ttyS0,115200n8 quiet ipv6.disable=1 watari.finish ${masked}`;
  const boot = ["-kernel", options.boot.kernel, "-initrd", options.boot.initrd, "-append", append, "-no-reboot"];
  const args = [...hardware, ...boot, "-display", "none", "-chardev", `file,id=serial,path=${serial}`, "-serial", "chardev:serial"];
  const result = await tryCommand("setpriv", [...diesWithUs, "qemu-system-x86_64", ...args], {
    timeoutMs: 10 * minuteMs,
    ...(options.signal && { signal: options.signal }),
  });
  const log = await readFile(serial, "utf8").catch(() => ""); // QEMU may have ended before it made the file.
  const ready = /WATARI-IMAGE-READY card=(\S+) kernel=(\S+)/.exec(log);
  if (ready?.[1] === undefined || ready[2] === undefined) {
    throw new Fault("Internal", "could not finish the guest image on its hardware", {
      action: "read the serial log named in the evidence, then call again",
      evidence: { exitCode: result.exitCode, qemu: result.stderr.slice(-500), lastLines: log.trim().split(/\r?\n/).slice(-12) },
    });
  }
  return { card: ready[1], kernel: ready[2] };
}
