// The yardstick for the test migration: the landed disks as local raw files, booted on the same hardware, timed to the ledger's answer.

import { spawn } from "node:child_process";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";
import { Fault } from "../../src/contract/errors.ts";
import { type LabPlace, namespaceOf } from "../place.ts";
import { endProcesses, inZone, isAlive, waitUntil } from "../processes.ts";

export interface RawBoot {
  readonly place: LabPlace;
  /** Hydrated clones of a machine that is off, boot disk first: each an overlay that names its recovery point's NBD export. */
  readonly images: readonly string[];
  readonly workFolder: string;
  readonly mac: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  readonly accelerator: "kvm" | "tcg";
}

const bootWaitMsMax = 600_000;
const serialTailCharacters = 1500;
const forwardedPort = 18_080;

/** Seconds from the start of QEMU to the ledger's first answer. Leaves nothing. */
export async function measureRawBoot(options: RawBoot): Promise<number> {
  const folder = join(options.workFolder, "raw-boot");
  await mkdir(folder, { recursive: true });
  const { place } = options;
  try {
    const disks: string[] = [];
    for (const [index, image] of options.images.entries()) {
      const raw = join(folder, `disk-${index}.raw`);
      await runCommand("qemu-img", ["convert", "-O", "raw", image, raw], { timeoutMs: 600_000 });
      disks.push("-drive", `file=${raw},format=raw,if=virtio,cache=writeback`);
    }
    const accel = options.accelerator === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg,thread=multi", "-cpu", "max"];
    const argv = [
      "qemu-system-x86_64",
      "-machine",
      "q35",
      ...accel,
      ...["-smp", String(options.cpuCount), "-m", String(Math.round(options.memoryBytes / 2 ** 20)), "-display", "none", "-nodefaults"],
      ...disks,
      // Its own network inside QEMU: nothing of the lab is reached, only this port answers in the landing zone's loopback.
      ...[
        "-netdev",
        `user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:${forwardedPort}-:8080`,
        "-device",
        `virtio-net-pci,netdev=n0,mac=${options.mac}`,
      ],
      ...["-serial", `file:${join(folder, "serial.log")}`],
    ];
    const [program, ...args] = inZone(place, "landing", argv);
    const startMs = systemClock.monotonicMs();
    const child = spawn(program, args, { stdio: "ignore" });
    const { pid } = child;
    if (pid === undefined) throw new Fault("MissingProgram", "could not start QEMU for the raw boot");
    try {
      const url = `http://127.0.0.1:${forwardedPort}/`;
      const namespace = `/run/netns/${namespaceOf(place, "landing")}`;
      await waitUntil("the ledger of the raw boot", bootWaitMsMax, async () => {
        const answer = await tryCommand("nsenter", [`--net=${namespace}`, "--", "curl", "-sf", "--noproxy", "*", "--max-time", "2", url]);
        return answer.exitCode === 0;
      });
      return (systemClock.monotonicMs() - startMs) / 1000;
    } catch (error) {
      const serial = await readFile(join(folder, "serial.log"), "utf8").catch(() => ""); // It may have printed nothing.
      throw new Fault("ProbeFailed", "the same machine did not answer when it was booted from local raw files", {
        evidence: { serialTail: serial.slice(-serialTailCharacters), isRunning: isAlive(pid) },
        cause: error,
      });
    } finally {
      await endProcesses([pid]);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
