// A real guest lands on QEMU: without hydration it does not boot, with it it does, and every promise of Target holds.

import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog as log } from "../../src/base/log.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { parseDiskId } from "../../src/contract/ids.ts";
import { openFileDisk } from "../../src/disk/file-disk.ts";
import { machinePaths } from "../../src/landing/qemu/machine-record.ts";
import { openQemuTarget } from "../../src/landing/qemu/qemu-target.ts";
import { runTargetSuite } from "../../src/landing/target-suite.ts";
import type { ExportDisk, Target } from "../../src/landing/target.ts";
import { openNbdServer } from "../../src/nbd/server.ts";
import { buildGuestImage, guest } from "./guest-image.ts";

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

const open = (stateFolder: string) => openQemuTarget({ stateFolder, exportDisk, networks: {}, clock, log, stopMsMax: 5_000 });

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
  for (const name of await target.list()) await target.remove(name);
  await target[Symbol.asyncDispose]();
  rmSync(stateFolder, { recursive: true });
}

describe("a guest with VMware's drivers only", { skip: skip ?? false }, () => {
  it("finds no root on virtio without hydration", async () => {
    const folder = await mkdtemp(join(tmpdir(), "wl-raw-"));
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
    const devices = ["-drive", `if=virtio,format=qcow2,file=${overlay}`, "-serial", `file:${serial}`, "-no-reboot"];
    const ended = new AbortController();
    const running = runCommand("qemu-system-x86_64", [...machine, ...devices], { timeoutMs: bootSecondsMax * 1000, signal: ended.signal });
    const stopped = assert.rejects(running);
    const deadlineMs = clock.monotonicMs() + bootSecondsMax * 1000;
    let words = "";
    while (!/Gave up waiting for root|does not exist|login:/.test(words) && clock.monotonicMs() < deadlineMs) {
      await clock.sleep(200);
      words = readFileSync(serial, "utf8");
    }
    ended.abort();
    await stopped;
    rmSync(folder, { recursive: true });
    assert.match(words, /Gave up waiting for root|does not exist/);
  });
});
