// What goes back to the source has none of hydration's edits, and all that the guest wrote; the landed disks stay as they are.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { it } from "node:test";
import { gzipSync } from "node:zlib";
import { systemClock as clock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { runCommand } from "../base/run-command.ts";
import { parseDiskId } from "../contract/ids.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import { cpioTypes, writeCpio } from "../landing/hydration/cpio.ts";
import { openLandedDisks } from "../landing/qemu/landed-disks.ts";
import { writeRecord, type MachineRecord } from "../landing/qemu/machine-record.ts";
import { Machine } from "../landing/qemu/machine.ts";
import type { ExportDisk, LandedReading } from "../landing/target.ts";
import { openNbdServer } from "../nbd/server.ts";

const tools = ["mke2fs", "debugfs", "qemu-img", "qemu-storage-daemon"];
const missing = tools.filter((tool) => spawnSync("sh", ["-c", `command -v ${tool}`]).status !== 0);
const hasFuse = spawnSync("test", ["-w", "/dev/fuse"]).status === 0;
const skip = missing.length > 0 ? `not installed: ${missing.join(" ")}` : hasFuse ? false : "no /dev/fuse";

const release = "6.1.0-9-amd64";
const modules = `lib/modules/${release}`;
const fstab = "/dev/sda / ext4 defaults 0 1\n";
const initrd = gzipSync(writeCpio([{ name: "usr", mode: cpioTypes.folder | 0o755, content: Buffer.alloc(0) }]));
const guestFiles: Readonly<Record<string, string | Buffer>> = {
  "etc/fstab": fstab,
  "etc/systemd/system/keep": "",
  "usr/lib/systemd/system/open-vm-tools.service": "[Service]\n",
  [`boot/initrd.img-${release}`]: initrd,
  [`${modules}/modules.dep`]: "kernel/virtio_pci.ko:\nkernel/virtio_blk.ko:\n",
  [`${modules}/modules.builtin`]: "",
  [`${modules}/kernel/virtio_pci.ko`]: "pci",
  [`${modules}/kernel/virtio_blk.ko`]: "blk",
};

async function makeImage(folder: string): Promise<Buffer> {
  const [tree, image] = [join(folder, "tree"), join(folder, "disk.raw")];
  for (const [path, content] of Object.entries(guestFiles)) {
    await mkdir(dirname(join(tree, path)), { recursive: true });
    await writeFile(join(tree, path), content);
  }
  await writeFile(image, "");
  await truncate(image, 8 << 20);
  await runCommand("mke2fs", ["-q", "-t", "ext4", "-F", "-b", "1024", "-d", tree, image]);
  return await readFile(image);
}

async function landHydrated(stateFolder: string, content: Buffer): Promise<Machine> {
  const disk = { diskId: parseDiskId("boot"), isBoot: true };
  const nics = [{ mac: "52:54:00:aa:00:01", guestName: "ens192" }];
  const record: MachineRecord = {
    ...{ version: 1, state: "landed", name: "guest", cpuCount: 1, memoryBytes: 64 << 20, firmware: "bios" },
    ...{ disks: [{ ...disk, sizeBytes: content.length }], nics },
    ...{ network: { kind: "isolated" }, tracksWrites: true, hydration: { seconds: 0, changes: [] } },
  };
  await mkdir(join(stateFolder, "s"), { recursive: true });
  const exportDisk: ExportDisk = async (served, { socketPath, exportName }) =>
    await openNbdServer({
      listen: { kind: "unix", path: socketPath },
      exports: [{ name: exportName, access: "read-only", disk: served }],
      ...{ clock, log: silentLog },
    });
  const helperImage = async (): Promise<never> => await Promise.reject(new Error("no helper is needed here"));
  const around = { stateFolder, networks: {}, accelerator: "tcg", clock, served: new Map(), exportDisk, helperImage } as const;
  const machine = new Machine(record, around);
  await mkdir(machine.paths.folder, { recursive: true });
  await machine.exportContents([{ ...disk, content: new MemoryDisk(Uint8Array.from(content)) }]);
  await machine.createOverlays();
  const { changes } = await machine.hydrateOverlays({ nics });
  const hydrated = { ...record, hydration: { seconds: 0, changes: [...changes] } };
  await writeRecord(machine.paths, hydrated);
  // As the fill leaves it.
  await runCommand("qemu-img", ["rebase", "-q", "-b", "", machine.paths.overlay(0)]);
  await machine.closeExports();
  return new Machine(hydrated, around);
}

async function readGuest(machine: Machine, folder: string, shape: NonNullable<LandedReading["shape"]>) {
  await using landed = await openLandedDisks(machine, { clock, shape });
  const [disk] = landed.disks;
  const bytes = Buffer.alloc(disk?.content.sizeBytes ?? 0);
  await disk?.content.read(0, bytes);
  const image = join(folder, `${shape}.raw`);
  await writeFile(image, bytes);
  const fileOf = async (path: string): Promise<Buffer> => {
    const out = join(folder, "out");
    await rm(out, { force: true });
    await runCommand("debugfs", ["-R", `dump ${path} ${out}`, image]);
    return await readFile(out);
  };
  await runCommand("e2fsck", ["-fn", image]);
  return { undone: landed.undone, fstab: (await fileOf("/etc/fstab")).toString(), initrd: await fileOf(`/boot/initrd.img-${release}`) };
}

it("the clone for the source has the old names and drivers again, the landed disk has not", { skip }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "watari-clones-"));
  const machine = await landHydrated(join(folder, "l"), await makeImage(folder));
  try {
    const before = await readGuest(machine, folder, "asLanded");
    assert.match(before.fstab, /^UUID=/);
    assert.ok(before.initrd.length > initrd.length);
    const { undone, ...back } = await readGuest(machine, folder, "forSource");
    assert.equal(back.fstab, fstab);
    assert.ok(back.initrd.equals(initrd));
    assert.deepEqual(
      undone.toSorted().map((line) => line.replace(/^(\S+: \w+).*/, "$1")),
      [
        `/boot/initrd.img-${release}: the`,
        "/etc/fstab: the",
        "/etc/systemd/network/10-watari-ens192.link: removed",
        "/etc/systemd/system/open-vm-tools.service: unmasked",
      ],
    );
    assert.deepEqual(await readGuest(machine, folder, "asLanded"), before, "the landed disk is as it was");
  } finally {
    await machine.erase();
    await rm(folder, { recursive: true, force: true });
  }
});
