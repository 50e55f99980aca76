// The yardstick for the test migration: the landed disks as local raw files, booted on the same hardware, timed to the ledger's answer.

import { spawn } from "node:child_process";
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";
import { Fault } from "../../src/contract/errors.ts";
import { openQmp } from "../../src/landing/qemu/qmp.ts";
import { readScreenText } from "../../src/landing/qemu/screen-text.ts";
import { type LabPlace, namespaceOf } from "../place.ts";
import { endProcesses, inZone, isAlive, waitUntil } from "../processes.ts";

export interface RawBoot {
  readonly place: LabPlace;
  /** Hydrated clones of a machine that is off, in its order: each image an overlay that names its recovery point's NBD export. */
  readonly disks: readonly ClonedDisk[];
  readonly workFolder: string;
  readonly mac: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  readonly accelerator: "kvm" | "tcg";
}

interface ClonedDisk {
  readonly image: string;
  readonly isBoot: boolean;
}

interface RawDisk {
  readonly path: string;
  readonly isBoot: boolean;
}

const bootWaitMsMax = 600_000;
/** An emulated machine's boot loader speaks within seconds; after this long its firmware is stuck. */
const firstWordMsMax = 90_000;
const serialTailCharacters = 1500;
const registersCharactersMax = 6000;
const forwardedPort = 18_080;

/** Seconds from the start of QEMU to the ledger's first answer. Leaves nothing. */
export async function measureRawBoot(options: RawBoot): Promise<number> {
  const folder = join(options.workFolder, "raw-boot");
  await mkdir(folder, { recursive: true });
  try {
    const disks: RawDisk[] = [];
    for (const [index, { image, isBoot }] of options.disks.entries()) {
      const path = join(folder, `disk-${index}.raw`);
      await runCommand("qemu-img", ["convert", "-O", "raw", image, path], { timeoutMs: 600_000 });
      disks.push({ path, isBoot });
    }
    const boot = await bootOnce(options, { folder, disks });
    if (boot.kind === "answered") return boot.seconds;
    throw new Fault("ProbeFailed", "the same machine did not answer when it was booted from local raw files", { evidence: { ...boot } });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type Boot =
  | { readonly kind: "answered"; readonly seconds: number }
  /** No word on the serial console: the boot loader was not reached. */
  | { readonly kind: "silent"; readonly screen: string; readonly registers: string; readonly isRunning: boolean }
  | { readonly kind: "failed"; readonly serialTail: string; readonly isRunning: boolean };

async function bootOnce(
  options: RawBoot,
  { folder, disks }: { readonly folder: string; readonly disks: readonly RawDisk[] },
): Promise<Boot> {
  const { place } = options;
  const files = { serial: join(folder, "serial.log"), qmp: join(folder, "qmp.sock") };
  await writeFile(files.serial, "");
  const [program, ...args] = inZone(place, "landing", emulator(options, disks, files));
  const startMs = systemClock.monotonicMs();
  const child = spawn(program, args, { stdio: "ignore" });
  const { pid } = child;
  if (pid === undefined) throw new Fault("MissingProgram", "could not start QEMU for the raw boot");
  try {
    await waitUntil("the first word of the raw boot", firstWordMsMax, async () => (await stat(files.serial)).size > 0).catch(
      () => undefined,
    );
    if ((await stat(files.serial)).size === 0) return { kind: "silent", ...(await look(files.qmp)), isRunning: isAlive(pid) };
    const url = `http://127.0.0.1:${forwardedPort}/`;
    const namespace = `/run/netns/${namespaceOf(place, "landing")}`;
    const isAnswered = await waitUntil("the ledger of the raw boot", bootWaitMsMax, async () => {
      const answer = await tryCommand("nsenter", [`--net=${namespace}`, "--", "curl", "-sf", "--noproxy", "*", "--max-time", "2", url]);
      return answer.exitCode === 0;
    }).then(
      () => true,
      () => false, // Told below, with what the machine said last.
    );
    if (isAnswered) return { kind: "answered", seconds: (systemClock.monotonicMs() - startMs) / 1000 };
    const serial = await readFile(files.serial, "utf8");
    return { kind: "failed", serialTail: serial.slice(-serialTailCharacters), isRunning: isAlive(pid) };
  } finally {
    await endProcesses([pid]);
  }
}

/** The hardware of a landed machine (landing/qemu/emulator.ts), over raw files. */
function emulator(
  options: RawBoot,
  disks: readonly RawDisk[],
  files: { readonly serial: string; readonly qmp: string },
): readonly string[] {
  const accel = options.accelerator === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg,thread=multi", "-cpu", "max"];
  return [
    ["qemu-system-x86_64", "-machine", "q35", ...accel, "-rtc", "base=utc"],
    ["-smp", String(options.cpuCount), "-m", String(Math.round(options.memoryBytes / 2 ** 20))],
    ["-display", "none", "-nodefaults", "-vga", "std", "-device", "virtio-rng-pci"],
    disks.flatMap(({ path, isBoot }, index) => [
      ...["-drive", `if=none,id=disk${index},file=${path},format=raw,cache=writeback`],
      ...["-device", `virtio-blk-pci,drive=disk${index}${isBoot ? ",bootindex=0" : ""}`],
    ]),
    // Its own network inside QEMU: nothing of the lab is reached, only this port answers in the landing zone's loopback.
    ["-netdev", `user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:${forwardedPort}-:8080`],
    ["-device", `virtio-net-pci,netdev=n0,mac=${options.mac},romfile=`],
    ["-serial", `file:${files.serial}`, "-qmp", `unix:${files.qmp},server=on,wait=off`],
  ].flat();
}

/** What a machine that says nothing shows. */
async function look(socket: string): Promise<{ readonly screen: string; readonly registers: string }> {
  await using qmp = await openQmp(socket);
  if (qmp === undefined) return { screen: "no monitor", registers: "no monitor" };
  const registers = await qmp.execute("human-monitor-command", { "command-line": "info registers -a" });
  return { screen: (await readScreenText(qmp)) ?? "nothing", registers: String(registers).slice(0, registersCharactersMax) };
}
