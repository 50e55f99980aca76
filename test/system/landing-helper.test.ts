// The sealed helper machine on a real XFS: a guest is hydrated in it, once, and its files are read out of it without a change to the disk.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog as log } from "../../src/base/log.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { openFileDisk } from "../../src/disk/file-disk.ts";
import { findNode, findVolumes } from "../../src/landing/files/guest-volumes.ts";
import { openHelpedFiles } from "../../src/landing/files/helped-files.ts";
import { ensureHelperImage } from "../../src/landing/helper/helper-image.ts";
import { startHelperMachine } from "../../src/landing/helper/helper-machine.ts";
import { writeCpio } from "../../src/landing/hydration/cpio.ts";
import { hydrate } from "../../src/landing/hydration/hydrate.ts";
import { openNbdServer } from "../../src/nbd/server.ts";

const hasTools = spawnSync("sh", ["-c", "command -v mkfs.xfs xfs_repair mmdebstrap qemu-system-x86_64"]).status === 0;
const skip = process.getuid?.() === 0 && hasTools ? false : "needs root, xfsprogs, mmdebstrap and QEMU";
const folder = mkdtempSync(join(tmpdir(), "wh-"));
after(() => rmSync(folder, { recursive: true }));

const image = join(folder, "disk.raw");
const helperImage = async () => await ensureHelperImage(process.env["WATARI_CACHE"] ?? "/var/cache/watari");
const files: Readonly<Record<string, string | Buffer>> = {
  fstab: "/dev/sda / xfs defaults 0 1\n",
  initrd: gzipSync(writeCpio([])),
  dep: "kernel/virtio_pci.ko:\nkernel/virtio_blk.ko:\n",
  module: "module",
};

/** mkfs.xfs puts the files there by itself: nothing is mounted on this host. */
async function makeGuest(): Promise<void> {
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  const at = (name: string) => `---644 0 0 ${join(folder, name)}`;
  const tree = `d--755 0 0\netc d--755 0 0\nfstab ${at("fstab")}\nsystemd d--755 0 0\nsystem d--755 0 0\n$\n$\n$
boot d--755 0 0\ninitrd.img-6 ${at("initrd")}\n$
lib d--755 0 0\nmodules d--755 0 0\n6 d--755 0 0\nmodules.dep ${at("dep")}\nkernel d--755 0 0
virtio_pci.ko ${at("module")}\nvirtio_blk.ko ${at("module")}\n$\n$\n$\n$\n$\n`;
  writeFileSync(join(folder, "prototype"), `/none\n0 0\n${tree}`);
  writeFileSync(image, "");
  truncateSync(image, 320 * 2 ** 20);
  await runCommand("mkfs.xfs", ["-q", "-p", join(folder, "prototype"), image]);
}

const digest = (): string => createHash("sha256").update(readFileSync(image)).digest("hex");

describe("the helper machine", { skip }, () => {
  it("hydrates a root on XFS, once, and leaves it sound", async () => {
    await makeGuest();
    const scratchFolder = join(folder, "scratch");
    mkdirSync(scratchFolder);
    const hardware = { drivers: { required: ["virtio_pci", "virtio_blk"], wished: [] }, cardDriver: "virtio_net" };
    const run = async () =>
      await hydrate({
        ...{ imagePaths: [image], bootDiskIndex: 0, nics: [{ mac: "52:54:00:aa:00:01", guestName: "ens192" }] },
        ...{ hardware, scratchFolder, helperImage, clock },
      });
    const { changes } = await run();
    assert.equal(changes.length, 3, changes.join("\n"));
    assert.match(changes.join("\n"), /initrd\.img-6: \+ virtio_pci virtio_blk\n\/etc\/fstab: \/dev\/sda → UUID=/);
    await runCommand("xfs_repair", ["-n", image]);
    assert.deepEqual((await run()).changes, []);
  });

  it("starts without its warm state when that is damaged, and writes it anew", async () => {
    const { kernel, initrd } = await helperImage();
    const scratchFolder = join(folder, "cold");
    mkdirSync(scratchFolder);
    const own = { kernel: join(scratchFolder, "vmlinux"), initrd: join(scratchFolder, "initrd") };
    linkSync(kernel, own.kernel);
    linkSync(initrd, own.initrd);
    const states = (): readonly string[] => readdirSync(scratchFolder).filter((name) => name.endsWith(".state"));
    const start = async (): Promise<void> => {
      await using helper = await startHelperMachine({ image: own, graphs: [], memory: "small", scratchFolder, clock });
      assert.equal((await helper.ask(["blocks"])).body.length, 0);
    };
    await start();
    const [name = ""] = states();
    truncateSync(join(scratchFolder, name), 100_000);
    await start();
    assert.deepEqual(states(), [name]);
    assert.ok(statSync(join(scratchFolder, name)).size > 1_000_000);
    await start();
  });

  it("reads files, and the disk stays as it is", async () => {
    const before = digest();
    await using disk = await openFileDisk(image, { access: "read" });
    const volumes = await findVolumes([disk]);
    await using helped = await openHelpedFiles({
      ...{ disks: [disk], volumes, helperImage, scratchFolder: join(folder, "h"), clock },
      exportDisk: async (content, { socketPath, exportName }) =>
        await openNbdServer({
          ...{ listen: { kind: "unix", path: socketPath }, clock, log },
          exports: [{ name: exportName, access: "read-only", disk: content }],
        }),
    });
    const [volume] = helped.volumes;
    assert.ok(volume !== undefined);
    const guest = await helped.open(volume);
    const read = async (path: string): Promise<Buffer> => {
      const pieces: Uint8Array[] = [];
      for await (const piece of guest.read(await findNode(guest, path))) pieces.push(piece);
      return Buffer.concat(pieces);
    };
    assert.equal((await read("/etc/fstab.watari-orig")).toString(), files["fstab"]);
    assert.deepEqual(await read("/boot/initrd.img-6.watari-orig"), files["initrd"]);
    await assert.rejects(findNode(guest, "/etc/none"), { code: "NotFound" });
    assert.equal(digest(), before);
  });
});
