// A real guest lands on QEMU: without hydration it does not boot, with it it does, and every promise of Target holds.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog as log } from "../../src/base/log.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { parseDiskId } from "../../src/contract/ids.ts";
import { openFileDisk } from "../../src/disk/file-disk.ts";
import { machinePaths } from "../../src/landing/qemu/machine-record.ts";
import type { NamedNetwork } from "../../src/landing/qemu/network.ts";
import { openQemuTarget } from "../../src/landing/qemu/qemu-target.ts";
import { runTargetSuite } from "../../src/landing/target-suite.ts";
import type { ExportDisk, Target } from "../../src/landing/target.ts";
import { openNbdServer } from "../../src/nbd/server.ts";
import { buildGuestImage, guest, guestRootOffset } from "./guest-image.ts";

const bootSecondsMax = 240;
const cacheFolder = process.env["WATARI_CACHE"] ?? "/var/cache/watari";
const skip = process.getuid?.() === 0 ? undefined : "needs root for network namespaces and FUSE";
const image = skip === undefined ? await buildGuestImage(cacheFolder) : "";
const disk = skip === undefined ? await openFileDisk(image, { access: "read" }) : undefined;
after(async () => await disk?.[Symbol.asyncDispose]());

const exportDisk: ExportDisk = async (content, { socketPath, exportName }) =>
  await openNbdServer({
    listen: { kind: "unix", path: socketPath },
    exports: [{ name: exportName, access: "read-only", disk: content }],
    clock,
    log,
  });

const open = async (stateFolder: string, networks: Readonly<Record<string, NamedNetwork>> = {}) =>
  await openQemuTarget({ stateFolder, cacheFolder, exportDisk, networks, clock, log, stopMsMax: 5_000 });

runTargetSuite({
  kind: "qemu",
  skip,
  open: async () => {
    const stateFolder = await mkdtemp(join(tmpdir(), "wl-"));
    let target = await open(stateFolder);
    return {
      target,
      restart: async () => {
        await target[Symbol.asyncDispose]();
        target = await open(stateFolder);
        return target;
      },
      killMachine: async (name) => {
        process.kill(Number(readFileSync(machinePaths(stateFolder, name).pidFile, "utf8")), "SIGKILL");
        while ((await target.status(name)).power === "running") await clock.sleep(20);
      },
      leftovers: async () => await target.leftovers(),
      close: async () => await closeAll(target, stateFolder),
    };
  },
  disks: () => (disk === undefined ? [] : [{ diskId: parseDiskId("boot"), isBoot: true, content: disk }]),
  nic: { mac: guest.mac, guestName: guest.nicName },
  probe: { port: guest.port, path: guest.path },
  answer: `${guest.body}\n`,
  bootSecondsMax,
});

async function closeAll(target: Target, stateFolder: string): Promise<void> {
  for (const name of await target.list()) await target.under({ kind: "job", fence: 1 }).remove(name);
  await target[Symbol.asyncDispose]();
  rmSync(stateFolder, { recursive: true });
}

/** Boots an image on an overlay of its own until the console says one of `words`, then cuts the power. Answers console and overlay. */
async function bootUntil(folder: string, words: RegExp, diskDevices: readonly string[]): Promise<{ said: string; overlay: string }> {
  const overlay = join(folder, "disk.qcow2");
  const serial = join(folder, "serial.log");
  await runCommand("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, overlay]);
  const machine = [
    "-machine",
    "q35",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "512M",
    "-nodefaults",
    "-display",
    "none",
  ];
  const devices = ["-drive", `if=none,id=d,format=qcow2,file=${overlay}`, ...diskDevices, "-serial", `file:${serial}`, "-no-reboot"];
  const child = spawn("qemu-system-x86_64", [...machine, ...devices], { stdio: "ignore" });
  const exited = once(child, "exit");
  const deadlineMs = clock.monotonicMs() + bootSecondsMax * 1000;
  let said = "";
  while (!words.test(said) && clock.monotonicMs() < deadlineMs) {
    await clock.sleep(200);
    said = readFileSync(serial, "utf8");
  }
  child.kill("SIGKILL");
  await exited;
  return { said, overlay };
}

describe("a guest with VMware's drivers only", { skip: skip ?? false }, () => {
  it("finds no root on virtio without hydration", async () => {
    const folder = await mkdtemp(join(tmpdir(), "wl-raw-"));
    const noRoot = /Gave up waiting for root|does not exist/;
    const { said } = await bootUntil(folder, new RegExp(`${noRoot.source}|login:`), ["-device", "virtio-blk-pci,drive=d"]);
    rmSync(folder, { recursive: true });
    assert.match(said, noRoot);
  });

  it("lands from a crash-consistent point: its journal is replayed on the clone", async () => {
    const folder = await mkdtemp(join(tmpdir(), "wl-"));
    const { said, overlay } = await bootUntil(folder, /login:/, ["-device", "pvscsi", "-device", "scsi-hd,drive=d"]);
    assert.match(said, /login:/);
    const crashed = join(folder, "crashed.raw");
    await runCommand("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", overlay, crashed]);
    const content = await openFileDisk(crashed, { access: "read" });
    const superblock = Buffer.alloc(1024);
    await content.read(guestRootOffset + 1024, superblock);
    assert.equal(superblock.readUInt32LE(0x60) & 4, 4, "the journal holds changes");
    const target = await open(join(folder, "state"));
    const nics = [{ mac: guest.mac, guestName: guest.nicName }];
    const shape = {
      name: "crashed",
      cpuCount: 2,
      memoryBytes: 512 * 2 ** 20,
      firmware: "bios",
      nics,
      network: { kind: "isolated" },
    } as const;
    await target.under({ kind: "job", fence: 1 }).launch({ ...shape, disks: [{ diskId: parseDiskId("boot"), isBoot: true, content }] });
    const outcome = await target.probe("crashed", { port: guest.port, path: guest.path }, bootSecondsMax);
    await target.under({ kind: "job", fence: 1 }).remove("crashed");
    assert.deepEqual(await target.leftovers(), []);
    await target[Symbol.asyncDispose]();
    await content[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
    assert.equal(outcome.kind, "answered", JSON.stringify(outcome));
  });
});

const childPath = join(import.meta.dirname, "landing-child.ts");

/** Starts the child, waits for its first words, and kills it as a crash would. */
async function crashChild(mode: "hang" | "land", stateFolder: string): Promise<void> {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", childPath, mode, stateFolder, image], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "exit");
}

describe("a hub that is killed", { skip: skip ?? false }, () => {
  it("leaves nothing of a machine that it was about to land", async () => {
    const stateFolder = await mkdtemp(join(tmpdir(), "wl-"));
    await crashChild("hang", stateFolder);
    const target = await open(stateFolder);
    assert.deepEqual(await target.list(), []);
    assert.deepEqual(await target.leftovers(), []);
    await closeAll(target, stateFolder);
  });

  it("finds its machine running, and serves it again", async () => {
    const stateFolder = await mkdtemp(join(tmpdir(), "wl-"));
    await crashChild("land", stateFolder);
    const target = await open(stateFolder);
    assert.equal((await target.status("child")).power, "running");
    assert.ok(disk !== undefined);
    await target.reattach("child", [{ diskId: parseDiskId("boot"), isBoot: true, content: disk }]);
    const outcome = await target.probe("child", { port: guest.port, path: guest.path }, bootSecondsMax);
    assert.equal(outcome.kind, "answered", JSON.stringify(outcome));
    await target.under({ kind: "job", fence: 1 }).remove("child");
    assert.deepEqual(await target.leftovers(), []);
    await closeAll(target, stateFolder);
  });
});

describe("networks", { skip: skip ?? false }, () => {
  it("a named bridge gives the machine its address, and keeps no tap", async () => {
    const stateFolder = await mkdtemp(join(tmpdir(), "wl-"));
    const args = ["--net", process.execPath, "--disable-warning=ExperimentalWarning", childPath, "bridge", stateFolder, image];
    const { stdout } = await runCommand("unshare", args, { timeoutMs: bootSecondsMax * 1000 });
    rmSync(stateFolder, { recursive: true });
    const told = JSON.parse(stdout);
    assert.equal(told.outcome.body, `${guest.body}\n`);
    assert.match(told.addresses.join(), /^10\.78\.0\.\d+$/);
    assert.deepEqual([told.leftovers, told.links], [[], []]);
  });

  it("a user network forwards a port of this host to the machine", async () => {
    assert.ok(disk !== undefined);
    const hostPort = await freePort();
    const stateFolder = await mkdtemp(join(tmpdir(), "wl-"));
    const target = await open(stateFolder, { nat: { kind: "user", forwards: [{ hostPort, guestPort: guest.port }] } });
    const disks = [{ diskId: parseDiskId("boot"), isBoot: true, content: disk }];
    const nics = [{ mac: guest.mac, guestName: guest.nicName }];
    const shape = { name: "nat", cpuCount: 2, memoryBytes: 512 * 2 ** 20, firmware: "bios", disks, nics } as const;
    await target.under({ kind: "job", fence: 1 }).launch({ ...shape, network: { kind: "named", name: "nat" } });
    const outcome = await target.probe("nat", { port: guest.port, path: guest.path }, bootSecondsMax);
    await closeAll(target, stateFolder);
    assert.equal(outcome.kind, "answered", JSON.stringify(outcome));
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  server.close();
  await once(server, "close");
  return address.port;
}
