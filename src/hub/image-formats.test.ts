// Image files of a disk in every format: qemu-img finds them sound and equal to the disk, and Azure's rules for VHDs are kept.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { runCommand } from "../base/run-command.ts";
import { parseDiskId } from "../contract/ids.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import type { ExportDisk } from "../landing/target.ts";
import { imageFormats, writeImages } from "../landing/qemu/write-images.ts";
import { openNbdServer } from "../nbd/server.ts";

const exportDisk: ExportDisk = async (disk, { socketPath, exportName }) =>
  await openNbdServer({
    listen: { kind: "unix", path: socketPath },
    exports: [{ name: exportName, access: "read-only", disk }],
    clock: systemClock,
    log: silentLog,
  });
const absent = spawnSync("qemu-img", ["--version"]).error === undefined ? false : "qemu-img is not here";

describe("Image files", () => {
  for (const format of imageFormats)
    it(`of format ${format} hold the disk`, { skip: absent }, async () => {
      const folder = await mkdtemp(join(tmpdir(), "watari-images-"));
      try {
        // No whole number of MiB; noise, a hole, text.
        const content = Buffer.concat([randomBytes(300_032), Buffer.alloc(2 << 20), Buffer.alloc(65_536 * 3, "text ")]);
        const raw = join(folder, "expected.raw");
        const { files } = await writeImages(
          {
            ...{ folder: join(folder, "out"), format, isHydrated: false, nics: [], onProgress: () => undefined },
            disks: [{ diskId: parseDiskId("disk-1"), isBoot: true, content: new MemoryDisk(content) }],
          },
          { exportDisk, scratchFolder: join(folder, "x"), clock: systemClock, random: systemRandom, cacheFolder: folder },
        );
        const [file] = files;
        assert.ok(file !== undefined && file.path.endsWith(`disk0.${format}`));
        const driver = format === "vhd" ? "vpc" : format;
        const isAligned = format === "vhd";
        const sizeBytes = isAligned ? Math.ceil(content.length / 2 ** 20) * 2 ** 20 : content.length;
        await writeFile(raw, Buffer.concat([content, Buffer.alloc(sizeBytes - content.length)]));
        const { stdout } = await runCommand("qemu-img", ["info", "--output=json", "-f", driver, file.path]);
        assert.equal((JSON.parse(stdout) as { "virtual-size": number })["virtual-size"], sizeBytes);
        await runCommand("qemu-img", ["compare", "-f", "raw", "-F", driver, raw, file.path]);
        if (format === "qcow2" || format === "vmdk") await runCommand("qemu-img", ["check", "-q", "-f", driver, file.path]);
        await runCommand("qemu-img", ["convert", "-f", driver, "-O", "raw", file.path, join(folder, "back.raw")]);
        assert.ok((await readFile(join(folder, "back.raw"))).equals(await readFile(raw)));
        if (format !== "vhd") return;
        const bytes = await readFile(file.path);
        assert.equal(bytes.length, sizeBytes + 512);
        const footer = bytes.subarray(sizeBytes);
        const told = footer.readUInt32BE(64);
        footer.writeUInt32BE(0, 64);
        assert.equal(told, ~footer.reduce((sum, byte) => sum + byte, 0) >>> 0, "its checksum is right");
        assert.deepEqual([footer.readUInt32BE(60), footer.readBigUInt64BE(48)], [2, BigInt(sizeBytes)]);
      } finally {
        await rm(folder, { recursive: true });
      }
    });
});
