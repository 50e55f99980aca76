// Measures from order to answer against a boot of the same system from a local raw file: at most 1.3 times that plus 10 s.
// Run: node bench/landing.ts [--rounds 2] [--json FILE]. Needs root; builds a small guest image once.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock as clock } from "../src/base/clock.ts";
import { silentLog as log } from "../src/base/log.ts";
import { runCommand } from "../src/base/run-command.ts";
import { parseDiskId } from "../src/contract/ids.ts";
import { openFileDisk } from "../src/disk/file-disk.ts";
import { chooseAccelerator } from "../src/landing/qemu/accelerator.ts";
import { probeHttp } from "../src/landing/qemu/http-probe.ts";
import { machinePaths } from "../src/landing/qemu/machine-record.ts";
import { openQemuTarget, type QemuTarget } from "../src/landing/qemu/qemu-target.ts";
import type { LaunchSpec } from "../src/landing/target.ts";
import { openNbdServer } from "../src/nbd/server.ts";
import { buildGuestImage, guest } from "../test/system/guest-image.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "2" }, json: { type: "string" } } });
const roundCount = Number(values.rounds);
const bootSecondsMax = 300;
const name = "timed";

const image = await buildGuestImage(process.env["WATARI_CACHE"] ?? "/var/cache/watari");
const stateFolder = await mkdtemp(join(tmpdir(), "wl-"));
const hostPort = await freePort();
const accelerator = await chooseAccelerator();
await using disk = await openFileDisk(image, { access: "read" });
await using target = await openQemuTarget({
  stateFolder,
  cacheFolder: process.env["WATARI_CACHE"] ?? "/var/cache/watari",
  networks: { nat: { kind: "user", forwards: [{ hostPort, guestPort: guest.port }] } },
  accelerator,
  clock,
  log,
  exportDisk: async (content, { socketPath, exportName }) =>
    await openNbdServer({
      listen: { kind: "unix", path: socketPath },
      exports: [{ name: exportName, access: "read-only", disk: content }],
      clock,
      log,
    }),
});
const spec: LaunchSpec = {
  name,
  cpuCount: 2,
  memoryBytes: 512 * 2 ** 20,
  firmware: "bios",
  disks: [{ diskId: parseDiskId("boot"), isBoot: true, content: disk }],
  nics: [{ mac: guest.mac, guestName: guest.nicName }],
  network: { kind: "named", name: "nat" },
};

try {
  const raw = await hydratedRaw(target);
  const landed: number[] = [];
  const local: number[] = [];
  const hydration: number[] = [];
  for (let round = 0; round < roundCount; round++) {
    const startedMs = clock.monotonicMs();
    hydration.push((await target.under({ kind: "job", fence: 1 }).launch(spec)).hydration.seconds);
    await answer();
    landed.push((clock.monotonicMs() - startedMs) / 1000);
    await target.under({ kind: "job", fence: 1 }).remove(name);
    local.push(await rawBootSeconds(raw));
  }
  const result = {
    roundCount,
    accelerator,
    orderToProbeSeconds: median(landed),
    rawBootToProbeSeconds: median(local),
    hydrationSeconds: median(hydration),
  };
  console.log(JSON.stringify(result));
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(result)}\n`);
  if (result.orderToProbeSeconds > 1.3 * result.rawBootToProbeSeconds + 10) process.exitCode = 1;
} finally {
  await target.under({ kind: "job", fence: 1 }).remove(name);
  await rm(stateFolder, { recursive: true });
}

/** The same system as a raw file: a hydrated clone before its first boot is not to be had, so one that was filled and stopped. */
async function hydratedRaw(from: QemuTarget): Promise<string> {
  const raw = join(stateFolder, "raw");
  const commands = from.under({ kind: "job", fence: 1 });
  await commands.launch(spec);
  await answer();
  await commands.fill(name, () => undefined);
  await commands.stop(name);
  await runCommand("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", machinePaths(stateFolder, name).overlay(0), raw]);
  await commands.remove(name);
  return raw;
}

async function rawBootSeconds(raw: string): Promise<number> {
  const startedMs = clock.monotonicMs();
  const cpu = accelerator === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg,thread=multi", "-cpu", "max"];
  const machine = ["-machine", "q35", ...cpu, "-smp", "2", "-m", "512M", "-nodefaults", "-display", "none", "-vga", "std"];
  const devices = ["-device", "virtio-rng-pci", "-drive", `if=virtio,format=raw,snapshot=on,file=${raw}`, "-serial", "null"];
  const card = [
    "-netdev",
    `user,id=n0,hostfwd=tcp:127.0.0.1:${hostPort}-:${guest.port}`,
    "-device",
    `virtio-net-pci,netdev=n0,mac=${guest.mac}`,
  ];
  const child = spawn("qemu-system-x86_64", [...machine, ...devices, ...card], { stdio: "ignore" });
  await answer();
  const seconds = (clock.monotonicMs() - startedMs) / 1000;
  child.kill("SIGKILL");
  await once(child, "exit");
  return seconds;
}

async function answer(): Promise<void> {
  const order = { macs: [], addresses: [`127.0.0.1:${hostPort}`], port: guest.port, path: guest.path, timeoutSeconds: bootSecondsMax };
  const outcome = await probeHttp(order, clock);
  if (outcome.kind !== "answered") throw new Error(`the guest did not answer: ${outcome.reason}`);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || address === null) throw new Error("no free port");
  return address.port;
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}
