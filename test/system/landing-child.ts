// A program of its own that lands a machine, for tests that kill it or run it in another network namespace.

import { spawn } from "node:child_process";
import { join } from "node:path";
import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog as log } from "../../src/base/log.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { parseDiskId } from "../../src/contract/ids.ts";
import type { Disk } from "../../src/disk/disk.ts";
import { openFileDisk } from "../../src/disk/file-disk.ts";
import { openQemuTarget } from "../../src/landing/qemu/qemu-target.ts";
import type { LandingNetwork, LaunchSpec } from "../../src/landing/target.ts";
import { openNbdServer } from "../../src/nbd/server.ts";
import { guest } from "./guest-image.ts";

const [mode = "", stateFolder = "", image = ""] = process.argv.slice(2);
const leasesFile = join(stateFolder, "bridge-leases");

const disk = await openFileDisk(image, { access: "read" });
const target = await openQemuTarget({
  stateFolder,
  cacheFolder: process.env["WATARI_CACHE"] ?? "/var/cache/watari",
  networks: { lan: { kind: "bridge", bridge: "br-lan", leasesFile } },
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

if (mode === "hang") await landAndHang();
else if (mode === "land") await landAndWait();
else await landOnBridge();

/** Says so when hydration reads for the first time, and then never gets an answer. */
async function landAndHang(): Promise<void> {
  const silent: Disk = {
    sizeBytes: disk.sizeBytes,
    read: async () => {
      process.stdout.write("reading\n");
      await new Promise(() => undefined);
    },
    extents: async (offset, length) => [{ offset, length, kind: "data" }],
    [Symbol.asyncDispose]: async () => undefined,
  };
  await target.under({ kind: "job", fence: 1 }).launch(specOf(silent, { kind: "isolated" }));
}

async function landAndWait(): Promise<void> {
  await target.under({ kind: "job", fence: 1 }).launch(specOf(disk, { kind: "isolated" }));
  process.stdout.write("landed\n");
  await clock.sleep(3_600_000);
}

/** Runs in a fresh namespace: makes a bridge with DHCP, lands on it, asks, removes. */
async function landOnBridge(): Promise<void> {
  const batch = ["link set lo up", "link add br-lan type bridge", "addr add 10.78.0.1/24 dev br-lan", "link set br-lan up"];
  await runCommand("ip", ["-batch", "-"], { stdin: batch.join("\n") });
  const dhcp = [
    "--conf-file=/dev/null",
    "--keep-in-foreground",
    "--port=0",
    "--no-ping",
    "--interface=br-lan",
    "--bind-interfaces",
    "--user=root",
  ];
  const range = ["--dhcp-range=10.78.0.50,10.78.0.60,1h", `--dhcp-leasefile=${leasesFile}`, "--pid-file"];
  const server = spawn("dnsmasq", [...dhcp, ...range], { stdio: "ignore" });
  await target.under({ kind: "job", fence: 1 }).launch(specOf(disk, { kind: "named", name: "lan" }));
  const outcome = await target.probe("child", { port: guest.port, path: guest.path }, 240);
  const { addresses } = await target.status("child");
  await target.under({ kind: "job", fence: 1 }).remove("child");
  const leftovers = await target.leftovers();
  await target[Symbol.asyncDispose]();
  server.kill();
  const links = (await runCommand("ip", ["-o", "link", "show"])).stdout.split("\n").filter((line) => line.includes(": wl"));
  process.stdout.write(JSON.stringify({ outcome, addresses, leftovers, links }));
  await disk[Symbol.asyncDispose]();
}

function specOf(content: Disk, network: LandingNetwork): LaunchSpec {
  return {
    name: "child",
    cpuCount: 2,
    memoryBytes: 512 * 2 ** 20,
    firmware: "bios",
    disks: [{ diskId: parseDiskId("boot"), isBoot: true, content }],
    nics: [{ mac: guest.mac, guestName: guest.nicName }],
    network,
  };
}
