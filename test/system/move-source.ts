// The machine that the test of `watari move` moves: the lab's guest behind QEMU's own address translation, alone in a network namespace.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import { runCommand, tryCommand, type CommandResult } from "../../src/base/run-command.ts";
import { chooseAccelerator } from "../../lab/accelerator.ts";
import { hardwareArguments } from "../../lab/hardware.ts";
import { guestImage } from "../../lab/image.ts";

export const ledgerPort = 8080;
/** The guest's way to the loopback address of its host. */
export const wayToHost = "10.0.2.2";
const bootMsMax = 240_000;

export interface MoveSource extends AsyncDisposable {
  readonly sshPort: number;
  readonly ledgerUrl: string;
  /** Private key that its root accepts. */
  readonly keyFile: string;
  /** Whether its emulator still runs. */
  isOn(): boolean;
}

/** A network namespace with nothing but its own loopback: what runs in it can reach nobody. */
export async function makeLonelyNetwork(): Promise<AsyncDisposable & { readonly enter: readonly [string, ...string[]] }> {
  const name = `wtmv-${process.pid}`;
  await runCommand("ip", ["netns", "add", name]);
  await runCommand("ip", ["-n", name, "link", "set", "lo", "up"]);
  return {
    enter: ["nsenter", `--net=/run/netns/${name}`],
    [Symbol.asyncDispose]: async () => void (await runCommand("ip", ["netns", "delete", name])),
  };
}

/** Boots the guest and waits until its ledger answers. */
export async function startSource(options: {
  readonly folder: string;
  readonly cacheFolder: string;
  readonly enter: readonly [string, ...string[]];
  readonly say: (text: string) => void;
}): Promise<MoveSource> {
  const { folder, cacheFolder, enter, say } = options;
  const image = await guestImage({ cacheFolder, progress: say });
  const accelerator = await chooseAccelerator({ kernel: image.kernelFile, cacheFolder });
  const keyFile = join(folder, "key");
  await runCommand("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", keyFile]);
  await writeFile(join(folder, "hostname"), "web1");
  await copyFile(`${keyFile}.pub`, join(folder, "administrator-key"));
  const disks = [];
  for (const [unit, base] of [image.rootDisk, image.ledgerDisk].entries()) {
    const path = join(folder, `source${unit}.qcow2`);
    await runCommand("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path]);
    disks.push({ path, format: "qcow2" as const, serial: `6000c29${unit}${"ab".repeat(12)}` });
  }
  // Free by construction: the namespace is new and only ours.
  const [sshPort, httpPort] = [2201, 8001];
  const hardware = { accelerator, cpuCount: 2, memoryMiB: 1024, mac: "00:50:56:00:0a:65", tap: "none", disks };
  const forwards = `hostfwd=tcp:127.0.0.1:${sshPort}-:22,hostfwd=tcp:127.0.0.1:${httpPort}-:${ledgerPort}`;
  const wired = hardwareArguments(hardware).map((argument) => (argument.startsWith("tap,id=wire") ? `user,id=wire,${forwards}` : argument));
  const given = ["administrator-key", "hostname"].flatMap((key) => ["-fw_cfg", `name=opt/watari/${key},file=${join(folder, key)}`]);
  const [program, ...args] = [...enter, "qemu-system-x86_64", "-uuid", systemRandom.uuid(), ...wired, ...given];
  const serial = join(folder, "serial.log");
  const child = spawn(program, [...args, "-display", "none", "-serial", `file:${serial}`], { stdio: "ignore" });
  const source: MoveSource = {
    sshPort,
    keyFile,
    ledgerUrl: `http://127.0.0.1:${httpPort}`,
    isOn: () => child.exitCode === null && child.signalCode === null,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "exit");
    },
  };
  const endsAtMs = systemClock.monotonicMs() + bootMsMax;
  while ((await askIn(enter, `${source.ledgerUrl}/`)).exitCode !== 0) {
    if (systemClock.monotonicMs() > endsAtMs || !source.isOn()) throw new Error(`the source did not come up; its console is in ${serial}`);
    await systemClock.sleep(500);
  }
  return source;
}

/** Asks a URL from inside the namespace. */
export async function askIn(enter: readonly [string, ...string[]], url: string): Promise<CommandResult> {
  const [program, ...args] = [...enter, "curl", "-sf", "--noproxy", "*", "--max-time", "5", url];
  return await tryCommand(program, args);
}
