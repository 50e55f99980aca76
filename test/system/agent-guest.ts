// A throw-away Debian guest for tests of the agent: built once into the cache, booted from a copy under emulation, reached by SSH.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { access, copyFile, mkdir, mkdtemp, open, rename, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { systemClock } from "../../src/base/clock.ts";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";

const cacheFolder = join(process.env["WATARI_CACHE"] ?? "/var/cache/watari", "agent-test-guest-1");
const packages =
  "linux-image-cloud-amd64,systemd-sysv,udev,openssh-server,e2fsprogs,xfsprogs,lvm2,fio,gdisk,libatomic1,util-linux,iproute2";
const diskSizes = { vdb: 3 * 2 ** 30 } as const;

/** Why such a guest cannot run here; undefined when it can. */
export async function whyNoGuest(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "needs root to build the guest's image";
  for (const program of ["mmdebstrap", "qemu-system-x86_64", "mkfs.ext4", "ssh", "ssh-keygen"]) {
    const found = await tryCommand("which", [program]);
    if (found.exitCode !== 0) return `needs the program ${program}`;
  }
  return undefined;
}

async function buildImage(): Promise<void> {
  const isThere = await access(join(cacheFolder, "root.img")).then(
    () => true,
    () => false,
  );
  if (isThere) return;
  await mkdir(cacheFolder, { recursive: true });
  const tree = await mkdtemp(join(cacheFolder, "tree-"));
  const hook = [
    'echo guest > "$1/etc/hostname"',
    'printf "[Match]\\nName=e*\\n[Network]\\nDHCP=yes\\n" > "$1/etc/systemd/network/10.network"',
    'chroot "$1" systemctl enable systemd-networkd',
    'printf "/dev/vda / ext4 defaults 0 1\\n" > "$1/etc/fstab"',
    'mkdir -p "$1/opt/watari-agent/bin" "$1/root/.ssh"',
  ].join("; ");
  await runCommand(
    "mmdebstrap",
    ["--variant=minbase", `--include=${packages}`, `--customize-hook=${hook}`, "bookworm", join(tree, "root")],
    {
      timeoutMs: 900_000,
    },
  );
  const root = join(tree, "root");
  await rm(join(cacheFolder, "key"), { force: true });
  await runCommand("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(cacheFolder, "key")]);
  await copyFile(join(cacheFolder, "key.pub"), join(root, "root/.ssh/authorized_keys"));
  await copyFile(process.execPath, join(root, "opt/watari-agent/bin/node"));
  await runCommand("sh", ["-c", 'cp "$1"/boot/vmlinuz-* "$2/kernel"; cp "$1"/boot/initrd.img-* "$2/initrd"', "sh", root, cacheFolder]);
  const image = join(tree, "root.img");
  await runCommand("truncate", ["-s", "3G", image]);
  await runCommand("mkfs.ext4", ["-q", "-d", root, image]);
  await rename(image, join(cacheFolder, "root.img"));
  await rm(tree, { recursive: true, force: true });
}

export interface Guest extends AsyncDisposable {
  readonly disks: Readonly<Record<"vda" | "vdb", string>>;
  /** Runs a shell command as root; throws when it fails. */
  run(command: string, stdin?: Uint8Array): Promise<string>;
  /** Starts a program whose lines are read and written. */
  start(command: string): GuestProgram;
  pause(): Promise<void>;
  resume(): Promise<void>;
}

export interface GuestProgram {
  readonly child: ChildProcess;
  /** The next JSON line. */
  next(): Promise<Record<string, unknown>>;
  say(line: string): void;
}

export async function startGuest(): Promise<Guest> {
  await buildImage();
  const folder = await mkdtemp(join(tmpdir(), "watari-agent-guest-"));
  const disks = { vda: join(folder, "vda"), vdb: join(folder, "vdb") };
  await runCommand("cp", ["--sparse=always", join(cacheFolder, "root.img"), disks.vda]);
  await writeFile(disks.vdb, "");
  await runCommand("truncate", ["-s", String(diskSizes.vdb), disks.vdb]);
  const port = await freePort();
  const drives = Object.entries(disks).flatMap(([name, path]) => [
    ...["-drive", `file=${path},format=raw,if=none,id=${name},discard=unmap`],
    ...["-device", `virtio-blk-pci,drive=${name},serial=TEST-${name}`],
  ]);
  const args = [
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "1024",
    "-display",
    "none",
    "-monitor",
    "none",
    "-no-reboot",
  ];
  args.push("-kernel", join(cacheFolder, "kernel"), "-initrd", join(cacheFolder, "initrd"), ...drives);
  args.push("-append", "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0", "-serial", `file:${join(folder, "console")}`);
  args.push("-netdev", `user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:${port}-:22`, "-device", "virtio-net-pci,netdev=n");
  args.push("-qmp", `unix:${join(folder, "qmp")},server,nowait`);
  const machine = spawn("qemu-system-x86_64", args, { stdio: "ignore" });
  const ssh = ["-i", join(cacheFolder, "key"), "-p", String(port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
  ssh.push("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", "root@127.0.0.1");
  const guest: Guest = {
    disks,
    run: async (command, stdin) =>
      (await runCommand("ssh", [...ssh, command], { timeoutMs: 600_000, ...(stdin === undefined ? {} : { stdin }) })).stdout,
    start: (command) => startProgram([...ssh, command]),
    pause: () => qmp(join(folder, "qmp"), "stop"),
    resume: () => qmp(join(folder, "qmp"), "cont"),
    [Symbol.asyncDispose]: async () => {
      if (machine.exitCode === null) {
        machine.kill("SIGKILL");
        await once(machine, "exit");
      }
      await rm(folder, { recursive: true, force: true });
    },
  };
  try {
    const endMs = systemClock.monotonicMs() + 180_000;
    while ((await tryCommand("ssh", [...ssh, "true"], { timeoutMs: 10_000 })).exitCode !== 0) {
      if (systemClock.monotonicMs() > endMs || machine.exitCode !== null) throw new Error("the guest did not come up");
      await systemClock.sleep(500);
    }
    return guest;
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw error;
  }
}

function startProgram(args: readonly string[]): GuestProgram {
  const child = spawn("ssh", args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    next: async () => {
      const { value, done } = await lines.next();
      if (done === true) throw new Error("the guest's program has ended");
      const parsed: unknown = JSON.parse(value);
      if (typeof parsed !== "object" || parsed === null) throw new Error(`not an object: ${value}`);
      return { ...parsed };
    },
    say: (line) => void child.stdin.write(`${line}\n`),
  };
}

async function qmp(path: string, command: "stop" | "cont"): Promise<void> {
  const socket = connect(path);
  const answers = createInterface({ input: socket })[Symbol.asyncIterator]();
  await answers.next();
  for (const execute of ["qmp_capabilities", command]) {
    socket.write(`${JSON.stringify({ execute })}\n`);
    for (let answer = await answers.next(); !String(answer.value).includes('"return"'); answer = await answers.next())
      if (answer.done === true) throw new Error("the machine's monitor closed");
  }
  socket.destroy();
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** Granules that differ between two files of one size. */
export async function differingGranules(one: string, other: string): Promise<Set<number>> {
  await using first = await open(one);
  await using second = await open(other);
  const chunk = 1 << 20;
  const [a, b] = [Buffer.alloc(chunk), Buffer.alloc(chunk)];
  const differing = new Set<number>();
  for (let at = 0; ; at += chunk) {
    const { bytesRead } = await first.read(a, 0, chunk, at);
    if (bytesRead === 0) return differing;
    await second.read(b, 0, bytesRead, at);
    if (a.compare(b, 0, bytesRead, 0, bytesRead) === 0) continue;
    for (let offset = 0; offset < bytesRead; offset += 4096)
      if (a.compare(b, offset, offset + 4096, offset, offset + 4096) !== 0) differing.add((at + offset) / 4096);
  }
}
