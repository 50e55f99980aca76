// Builds the throw-away Debian guests of the agent's tests, once each, into the cache: kernel, initrd, root filesystem and key.

import { access, copyFile, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";
import { hostAptSources } from "../../src/landing/helper/apt-sources.ts";

/** Debian releases with kernels 5.10, 6.1 and 6.12. */
export const guestSuites = ["bullseye", "bookworm", "trixie"] as const;
export type GuestSuite = (typeof guestSuites)[number];

const packages =
  "linux-image-cloud-amd64,systemd-sysv,udev,openssh-server,e2fsprogs,xfsprogs,btrfs-progs,lvm2,mdadm,cryptsetup-bin,fio,gdisk,libatomic1,util-linux,mount,fdisk,iproute2,procps";

/** Why such a guest cannot run here; undefined when it can. */
export async function whyNoGuest(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "needs root to build the guest's image";
  for (const program of ["mmdebstrap", "qemu-system-x86_64", "mkfs.ext4", "ssh", "ssh-keygen", "socat"]) {
    const found = await tryCommand("which", [program]);
    if (found.exitCode !== 0) return `needs the program ${program}`;
  }
  return undefined;
}

/** The folder with kernel, initrd, root.img and key; with further packages it is an image of its own. */
export async function agentGuestImage(suite: GuestSuite, more: readonly string[] = []): Promise<string> {
  const name = ["agent-test-guest-2", suite, ...more].join("-");
  const folder = join(process.env["WATARI_CACHE"] ?? "/var/cache/watari", name);
  const isThere = await access(join(folder, "root.img")).then(
    () => true,
    () => false,
  );
  if (!isThere) await buildImage(suite, folder, [packages, ...more].join(","));
  return folder;
}

const setUp = [
  'echo guest > "$1/etc/hostname"',
  'printf "[Match]\\nName=e*\\n[Network]\\nDHCP=yes\\n" > "$1/etc/systemd/network/10.network"',
  'chroot "$1" systemctl enable systemd-networkd',
  'printf "/dev/disk/by-label/root / ext4 defaults 0 1\\n" > "$1/etc/fstab"',
  'mkdir -p "$1/opt/watari-agent/bin" "$1/root/.ssh"',
  'rm -rf "$1/var/cache/apt/archives" "$1/usr/share/doc" "$1/usr/share/locale"',
].join("; ");

async function buildImage(suite: GuestSuite, folder: string, included: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const tree = await mkdtemp(join(folder, "tree-"));
  const root = join(tree, "root");
  // Other releases come from where this machine's own comes from.
  const own = (await hostAptSources("bookworm")).split("\n").filter((line) => suite === "bookworm" || line.endsWith(" bookworm main"));
  const sources = own.join("\n").replaceAll("bookworm", suite);
  const choice = ["--variant=minbase", "--aptopt=APT::Install-Recommends false", `--include=${included}`, `--customize-hook=${setUp}`];
  await runCommand("mmdebstrap", [...choice, suite, root, "-"], { timeoutMs: 900_000, stdin: new TextEncoder().encode(`${sources}\n`) });
  await rm(join(folder, "key"), { force: true });
  await runCommand("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(folder, "key")]);
  await copyFile(join(folder, "key.pub"), join(root, "root/.ssh/authorized_keys"));
  await copyFile(process.execPath, join(root, "opt/watari-agent/bin/node"));
  await runCommand("sh", ["-c", 'cp "$1"/boot/vmlinuz-* "$2/kernel"; cp "$1"/boot/initrd.img-* "$2/initrd"', "sh", root, folder]);
  const image = join(tree, "root.img");
  await runCommand("truncate", ["-s", "3G", image]);
  await runCommand("mkfs.ext4", ["-q", "-L", "root", "-d", root, image]);
  await rename(image, join(folder, "root.img"));
  await rm(tree, { recursive: true, force: true });
}
