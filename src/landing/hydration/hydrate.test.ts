// Hydration edits exactly what it says, keeps what was there, changes nothing when repeated, and refuses before it edits.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { systemClock as clock } from "../../base/clock.ts";
import { runCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { cpioTypes, writeCpio } from "./cpio.ts";
import { ExtFiles } from "./ext-files.ts";
import { hydrate } from "./hydrate.ts";
import { readInitrd } from "./initrd.ts";
import { undoHydration } from "./undo-hydration.ts";

const skip = spawnSync("sh", ["-c", "command -v mke2fs debugfs"]).status === 0 ? false : "e2fsprogs is not installed";
const base = mkdtempSync(join(tmpdir(), "hydrate-"));
after(() => rmSync(base, { recursive: true }));

const release = "6.1.0-9-amd64";
const modules = `lib/modules/${release}`;
const uuid = "11111111-2222-4333-8444-555555555555";
const initrdPath = `/boot/initrd.img-${release}`;
const linkPath = "/etc/systemd/network/10-watari-ens192.link";

const mainArchive = writeCpio([
  { name: "usr", mode: cpioTypes.folder | 0o755, content: Buffer.alloc(0) },
  { name: "usr/lib", mode: cpioTypes.folder | 0o755, content: Buffer.alloc(0) },
  { name: "lib", mode: cpioTypes.link | 0o777, content: Buffer.from("usr/lib") },
  { name: `usr/${modules}/kernel/virtio.ko`, mode: cpioTypes.file | 0o644, content: Buffer.from("virtio") },
]);
const initrd = gzipSync(mainArchive);

const guestFiles: Readonly<Record<string, string | Buffer>> = {
  "etc/fstab": "# disks\n/dev/sda / ext4 defaults 0 1\n/dev/sdb none swap sw 0 0\n",
  "etc/systemd/system/keep": "",
  "usr/lib/systemd/system/open-vm-tools.service": "[Service]\n",
  "boot/grub/grub.cfg": "menuentry x {\n linux /boot/vmlinuz root=/dev/sda ro\n}\n",
  [initrdPath.slice(1)]: initrd,
  [`${modules}/modules.dep`]: "kernel/virtio.ko:\nkernel/virtio_pci.ko: kernel/virtio.ko\nkernel/virtio_blk.ko: kernel/virtio.ko\n",
  [`${modules}/modules.dep.bin`]: "index",
  [`${modules}/modules.builtin`]: "",
  [`${modules}/kernel/virtio.ko`]: "virtio",
  [`${modules}/kernel/virtio_pci.ko`]: "pci",
  [`${modules}/kernel/virtio_blk.ko`]: "blk",
};

/** A disk without a partition table that holds a small guest. */
async function makeGuest(
  changes: Readonly<Record<string, string | Buffer | undefined>> = {},
): Promise<{ image: string; scratchFolder: string }> {
  const folder = mkdtempSync(join(base, "guest-"));
  const tree = join(folder, "tree");
  for (const [path, content] of Object.entries({ ...guestFiles, ...changes })) {
    if (content === undefined) continue;
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), content);
  }
  const image = join(folder, "disk.raw");
  writeFileSync(image, "");
  truncateSync(image, 8 * 2 ** 20);
  await runCommand("mke2fs", ["-q", "-t", "ext4", "-F", "-m", "0", "-b", "1024", "-U", uuid, "-d", tree, image]);
  const scratchFolder = join(folder, "scratch");
  mkdirSync(scratchFolder);
  return { image, scratchFolder };
}

const testNics = [{ mac: "52:54:00:AA:00:01", guestName: "ens192" }];
const testHardware = { drivers: { required: ["virtio_pci", "virtio_blk"], wished: ["virtio_scsi"] }, cardDriver: "virtio_net" };

const run = async ({ image, scratchFolder }: { image: string; scratchFolder: string }) =>
  await hydrate({
    imagePaths: [image],
    bootDiskIndex: 0,
    nics: testNics,
    hardware: testHardware,
    scratchFolder,
    clock,
  });

async function refuses(guest: { image: string; scratchFolder: string }, words: RegExp): Promise<void> {
  const before = readFileSync(guest.image);
  await assert.rejects(run(guest), (error) => error instanceof Fault && error.code === "HydrationUnsupported" && words.test(error.message));
  assert.ok(readFileSync(guest.image).equals(before), "nothing was edited");
}

describe("hydrate", { skip }, () => {
  it("makes every edit that it tells, and leaves a whole filesystem", async () => {
    const guest = await makeGuest();
    const { changes } = await run(guest);
    assert.deepEqual(changes, [
      `${initrdPath}: + virtio_pci virtio_blk`,
      `/etc/fstab: /dev/sda → UUID=${uuid}`,
      "/etc/fstab: ! /dev/sdb stays: no filesystem with a UUID was found there",
      `/boot/grub/grub.cfg: root=/dev/sda → root=UUID=${uuid}`,
      `${linkPath}: the card 52:54:00:aa:00:01 keeps the name ens192`,
      "/etc/systemd/system/open-vm-tools.service: masked; it serves the old hypervisor",
    ]);
    await runCommand("e2fsck", ["-fn", guest.image]);
    const files = new ExtFiles({ imagePath: guest.image, offset: 0, scratchFolder: guest.scratchFolder });
    const found = await files.read([
      initrdPath,
      `${initrdPath}.watari-orig`,
      "/etc/fstab",
      "/etc/fstab.watari-orig",
      "/boot/grub/grub.cfg",
      linkPath,
    ]);
    const text = (path: string) => found.get(path)?.toString("utf8");
    assert.equal(text("/etc/fstab"), `# disks\nUUID=${uuid} / ext4 defaults 0 1\n/dev/sdb none swap sw 0 0\n`);
    assert.equal(text("/etc/fstab.watari-orig"), guestFiles["etc/fstab"]);
    assert.match(text("/boot/grub/grub.cfg") ?? "", new RegExp(`root=UUID=${uuid} ro`));
    assert.match(text(linkPath) ?? "", /MACAddress=52:54:00:aa:00:01\nDriver=virtio_net\n\n\[Link\]\nName=ens192/);
    assert.ok(found.get(`${initrdPath}.watari-orig`)?.equals(initrd));
    const longer = found.get(initrdPath) ?? Buffer.alloc(0);
    assert.ok(longer.subarray(0, initrd.length).equals(initrd), "the old bytes stay");
    const { types } = await readInitrd(longer, { name: "initrd", scratchFolder: guest.scratchFolder });
    assert.equal(types.get("lib"), cpioTypes.link, "the link to usr/lib is not replaced");
    for (const name of ["kernel/virtio_pci.ko", "kernel/virtio_blk.ko", "modules.dep.bin"])
      assert.equal(types.get(`usr/${modules}/${name}`), cpioTypes.file);
    const masked = (await files.list("/etc/systemd/system"))?.find(({ name }) => name === "open-vm-tools.service");
    assert.equal(masked?.kind, "link");
  });

  it("is undone to the byte of every file, but for what the guest changed since", async () => {
    const guest = await makeGuest();
    const contents = async (): Promise<Record<string, string | undefined>> => {
      const files = new ExtFiles({ imagePath: guest.image, offset: 0, scratchFolder: guest.scratchFolder });
      const found: Record<string, string | undefined> = {};
      for (const folder of ["/etc", "/etc/systemd/system", "/etc/systemd/network", "/boot", "/boot/grub"])
        for (const { name, kind } of (await files.list(folder)) ?? []) {
          if (kind === "folder") continue;
          const path = `${folder}/${name}`;
          found[path] = (await files.read([path])).get(path)?.toString("hex");
        }
      return found;
    };
    const before = await contents();
    const { changes: told } = await run(guest);
    assert.notDeepEqual(await contents(), before);
    const options = { imagePaths: [guest.image], bootDiskIndex: 0, nics: testNics, hardware: testHardware, clock, told };
    const changes = await undoHydration({ ...options, scratchFolder: guest.scratchFolder });
    assert.equal(changes.filter((line) => line.startsWith("!")).length, 0, changes.join("\n"));
    assert.deepEqual(await contents(), before);
    assert.deepEqual(await undoHydration({ ...options, scratchFolder: guest.scratchFolder }), []);
    await runCommand("e2fsck", ["-fn", guest.image]);
    const changed = await makeGuest();
    const again = await run(changed);
    const files = new ExtFiles({ imagePath: changed.image, offset: 0, scratchFolder: changed.scratchFolder });
    const own = Buffer.from("# written on the target\n");
    await files.change([
      { kind: "remove", path: "/etc/fstab" },
      { kind: "write", path: "/etc/fstab", content: own, mode: 0o644 },
    ]);
    const left = { ...options, imagePaths: [changed.image], scratchFolder: changed.scratchFolder, told: again.changes };
    assert.match((await undoHydration(left)).join("\n"), /^! \/etc\/fstab: changed on the target/m);
    const later = new ExtFiles({ imagePath: changed.image, offset: 0, scratchFolder: changed.scratchFolder });
    assert.ok((await later.read(["/etc/fstab"])).get("/etc/fstab")?.equals(own));
  });

  it("changes nothing more when it is repeated", async () => {
    const guest = await makeGuest();
    await run(guest);
    const before = readFileSync(guest.image);
    const { changes } = await run(guest);
    assert.deepEqual(
      changes.filter((line) => !line.includes("!")),
      [],
    );
    assert.ok(readFileSync(guest.image).equals(before));
  });

  it("refuses a kernel without the drivers, a guest without an initramfs, and a disk without a system", async () => {
    await refuses(await makeGuest({ [`${modules}/modules.dep`]: "kernel/virtio.ko:\n" }), /no drivers for the target/);
    await refuses(await makeGuest({ [initrdPath.slice(1)]: undefined }), /no kernel/);
    await refuses(await makeGuest({ [initrdPath.slice(1)]: Buffer.from("not an initramfs at all") }), /could not read the initramfs/);
    await refuses(await makeGuest({ "etc/fstab": undefined }), /no root filesystem/);
  });

  it("replaces the initramfs in place when there is no room beside it, and refuses when there is none at all", async () => {
    const incompressible = Buffer.alloc(1_200_000).map((_, index) => (index * 2_654_435_761) >>> 24);
    const big = gzipSync(writeCpio([{ name: "big", mode: cpioTypes.file, content: incompressible }]), { level: 0 });
    const tight = await makeGuest({ [initrdPath.slice(1)]: big, ballast: Buffer.alloc(3_300_000, 1) });
    assert.match((await run(tight)).changes.join("\n"), /no room to keep the original/);
    await runCommand("e2fsck", ["-fn", tight.image]);
    const fat = Buffer.alloc(6_000_000, 7);
    const full = await makeGuest({
      [`${modules}/kernel/virtio_blk.ko`]: fat.subarray(0, 2_900_000),
      ballast: fat.subarray(0, 3_350_000),
      [initrdPath.slice(1)]: writeCpio([]),
    });
    await refuses(full, /no room/);
  });
});
