// A throw-away Debian guest for tests of the agent: booted from a copy under emulation, reached by SSH, its hardware changed at will.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { systemClock } from "../../src/base/clock.ts";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";
import { agentGuestImage, type GuestSuite } from "./agent-guest-image.ts";

/** Address in the guest under which the given ports of this machine's loopback stand. */
export const wayOut = "10.0.2.100";
const bootMsMax = 240_000;

export interface GuestOptions {
  /** bookworm unless told. */
  readonly suite?: GuestSuite;
  /** Debian packages beside those of every guest. */
  readonly packages?: readonly string[];
  /** Ports of this machine's loopback that the guest reaches at `wayOut`; nothing else is to be reached. */
  readonly ways?: readonly number[];
  /** Further disks beside vda and vdb. "nvme" ones have a shared namespace, whose block device is bio-based. */
  readonly more?: readonly {
    readonly name: string;
    readonly sizeBytes: number;
    readonly bus: "virtio" | "nvme";
    /** Has a file, and is put on later. */
    readonly isLate?: boolean;
  }[];
  readonly vdbBytes?: number;
  /** Two unless told. */
  readonly cpuCount?: number;
}

export interface Guest extends AsyncDisposable {
  /** Files of the disks by the names that they were given, which are also in their serial numbers: TEST-vda. */
  readonly disks: Readonly<Record<"vda" | "vdb", string>> & Readonly<Record<string, string>>;
  /** Runs a shell command as root; throws when it fails. */
  run(command: string, stdin?: Uint8Array): Promise<string>;
  /** Starts a program whose lines are read and written. */
  start(command: string): GuestProgram;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** A command of the machine's monitor (QMP). */
  monitor(execute: string, given?: object): Promise<void>;
  /** Shuts down and starts again, or resets as a power cut would; resolves when it can be reached. */
  restart(how: "clean" | "cut"): Promise<void>;
}

export interface GuestProgram {
  readonly child: ChildProcess;
  /** The next JSON line. */
  next(): Promise<Record<string, unknown>>;
  say(line: string): void;
}

export async function startGuest(options: GuestOptions = {}): Promise<Guest> {
  const image = await agentGuestImage(options.suite ?? "bookworm", options.packages);
  const folder = await mkdtemp(join(tmpdir(), "watari-agent-guest-"));
  const more = options.more ?? [];
  const disks: Guest["disks"] = {
    vda: join(folder, "vda"),
    vdb: join(folder, "vdb"),
    ...Object.fromEntries(more.map(({ name }) => [name, join(folder, name)])),
  };
  await runCommand("cp", ["--sparse=always", join(image, "root.img"), disks.vda]);
  for (const { name, sizeBytes } of [{ name: "vdb", sizeBytes: options.vdbBytes ?? 3 * 2 ** 30 }, ...more]) {
    await writeFile(join(folder, name), "");
    await runCommand("truncate", ["-s", String(sizeBytes), join(folder, name)]);
  }
  const port = await freePort();
  const machine = spawn("qemu-system-x86_64", machineArguments(options, { image, folder, disks, port }), { stdio: "ignore" });
  const ssh = ["-i", join(image, "key"), "-p", String(port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
  ssh.push("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "root@127.0.0.1");
  const run = async (command: string, stdin?: Uint8Array): Promise<string> =>
    (await runCommand("ssh", [...ssh, command], { timeoutMs: 900_000, ...(stdin === undefined ? {} : { stdin }) })).stdout;
  const monitor = (execute: string, given?: object): Promise<void> => qmp(join(folder, "qmp"), execute, given);
  /** Resolves with the boot's id when it is another one than `before`. */
  const waitUp = async (before: string): Promise<void> => {
    const endMs = systemClock.monotonicMs() + bootMsMax;
    for (;;) {
      const seen = await tryCommand("ssh", [...ssh, "cat /proc/sys/kernel/random/boot_id"], { timeoutMs: 10_000 });
      if (seen.exitCode === 0 && seen.stdout !== before) return;
      if (systemClock.monotonicMs() > endMs || machine.exitCode !== null) throw new Error("the guest did not come up");
      await systemClock.sleep(500);
    }
  };
  const guest: Guest = {
    disks,
    run,
    monitor,
    start: (command) => startProgram([...ssh, command]),
    pause: () => monitor("stop"),
    resume: () => monitor("cont"),
    restart: async (how) => {
      const before = await run("cat /proc/sys/kernel/random/boot_id");
      if (how === "clean") await tryCommand("ssh", [...ssh, "systemctl reboot"], { timeoutMs: 10_000 });
      else await monitor("system_reset");
      await waitUp(before);
    },
    [Symbol.asyncDispose]: async () => {
      if (machine.exitCode === null) {
        machine.kill("SIGKILL");
        await once(machine, "exit");
      }
      await rm(folder, { recursive: true, force: true });
    },
  };
  try {
    await waitUp("");
    return guest;
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw error;
  }
}

function machineArguments(
  options: GuestOptions,
  place: { readonly image: string; readonly folder: string; readonly disks: Guest["disks"]; readonly port: number },
): string[] {
  const { image, folder, disks, port } = place;
  const args = `-accel tcg,thread=multi -cpu max -smp ${options.cpuCount ?? 2} -m 1024 -display none -monitor none`.split(" ");
  const buses = new Map((options.more ?? []).map(({ name, bus }) => [name, bus]));
  const late = new Set((options.more ?? []).filter(({ isLate }) => isLate === true).map(({ name }) => name));
  for (const [name, path] of Object.entries(disks)) {
    if (late.has(name)) continue;
    args.push("-drive", `file=${path},format=raw,if=none,id=${name},discard=unmap`);
    if (buses.get(name) === "nvme")
      args.push(
        "-device",
        `nvme-subsys,id=sub-${name},nqn=${name}`,
        "-device",
        `nvme,serial=TEST-${name},subsys=sub-${name}`,
        "-device",
        `nvme-ns,drive=${name},shared=on`,
      );
    else args.push("-device", `virtio-blk-pci,drive=${name},id=device-${name},serial=TEST-${name}`);
  }
  args.push("-kernel", join(image, "kernel"), "-initrd", join(image, "initrd"));
  args.push("-append", "root=LABEL=root rw console=ttyS0 quiet net.ifnames=0 no_timer_check", "-serial", `file:${join(folder, "console")}`);
  const ways = (options.ways ?? []).map((way) => `,guestfwd=tcp:${wayOut}:${way}-cmd:socat - TCP:127.0.0.1:${way}`).join("");
  args.push("-netdev", `user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:${port}-:22${ways}`, "-device", "virtio-net-pci,netdev=n");
  args.push("-qmp", `unix:${join(folder, "qmp")},server,nowait`);
  return args;
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

async function qmp(path: string, execute: string, given?: object): Promise<void> {
  const socket = connect(path);
  const answers = createInterface({ input: socket })[Symbol.asyncIterator]();
  await answers.next();
  for (const command of [{ execute: "qmp_capabilities" }, { execute, ...(given === undefined ? {} : { arguments: given }) }]) {
    socket.write(`${JSON.stringify(command)}\n`);
    for (let answer = await answers.next(); answer.done === true || !answer.value.includes('"return"'); answer = await answers.next()) {
      if (answer.done === true) throw new Error("the machine's monitor closed");
      if (answer.value.includes('"error"')) throw new Error(`the machine's monitor refused ${execute}: ${answer.value}`);
    }
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

/** Granules that differ between two files of one size, and how many were compared. */
export async function differingGranules(
  one: string,
  other: string,
): Promise<{ readonly compared: number; readonly differing: Set<number> }> {
  await using first = await open(one);
  await using second = await open(other);
  const chunk = 1 << 20;
  const [a, b] = [Buffer.alloc(chunk), Buffer.alloc(chunk)];
  const differing = new Set<number>();
  for (let at = 0; ; at += chunk) {
    const { bytesRead } = await first.read(a, 0, chunk, at);
    if (bytesRead === 0) return { compared: Math.ceil(at / 4096), differing };
    await second.read(b, 0, bytesRead, at);
    if (a.compare(b, 0, bytesRead, 0, bytesRead) === 0) continue;
    for (let offset = 0; offset < bytesRead; offset += 4096)
      if (a.compare(b, offset, offset + 4096, offset, offset + 4096) !== 0) differing.add((at + offset) / 4096);
  }
}
