// The deciding parts of hydration: fstab, kernel lines, drivers and what debugfs says.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { findMissingDrivers, parseModuleIndex } from "./drivers.ts";
import { parseListLine } from "./ext-files.ts";
import { parseFstab, rewriteFstab } from "./fstab.ts";
import { isPlainPath } from "./volume-files.ts";

const uuids: Readonly<Record<string, string>> = { "/dev/sda1": "aaaa-1", "/dev/sda5": "aaaa-5", "/dev/sdb": "bbbb", "/dev/sdaa2": "far" };
const findUuid = (source: string) => uuids[source];

describe("rewriteFstab", () => {
  it("replaces device names and leaves every other byte", () => {
    const old =
      "# /dev/sda1 was here\n/dev/sda1\t/  ext4 errors=remount-ro 0 1\nUUID=x /boot ext4 defaults 0 2\n/dev/sdb /data xfs  rw 0 0\n/dev/sdaa2 /far ext4 rw 0 0\n";
    const { text, changes } = rewriteFstab(old, findUuid);
    assert.equal(text, old.replace("\n/dev/sda1", "\nUUID=aaaa-1").replace("/dev/sdb ", "UUID=bbbb ").replace("/dev/sdaa2", "UUID=far"));
    assert.equal(changes.length, 3);
    assert.deepEqual(rewriteFstab(text, findUuid), { text, changes: [] });
  });

  it("tells of a device that it does not know, and leaves it", () => {
    const { text, changes } = rewriteFstab("/dev/sdz9 /lost ext4 rw 0 0", findUuid);
    assert.equal(text, "/dev/sdz9 /lost ext4 rw 0 0");
    assert.match(changes.join(), /\/dev\/sdz9 stays/);
  });

  it("keeps the number of entries whatever the text is", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("/dev/sda1 / ext4 rw", "# x", "", "LABEL=a /b xfs ro 0 0", "/dev/sdq3 none swap sw")),
        (lines) => {
          const text = lines.join("\n");
          assert.equal(parseFstab(rewriteFstab(text, findUuid).text).length, parseFstab(text).length);
        },
      ),
    );
  });
});

describe("findMissingDrivers", () => {
  const dependencies = [
    "kernel/drivers/virtio/virtio.ko:",
    "kernel/drivers/virtio/virtio_ring.ko.xz: kernel/drivers/virtio/virtio.ko",
    "kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko",
    "kernel/drivers/block/virtio-blk.ko.zst: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko",
  ].join("\n");
  const index = parseModuleIndex({ dependencies, builtin: "kernel/drivers/net/virtio_net.ko\n" });
  const needs = { required: ["virtio_pci", "virtio_blk"], wished: ["virtio_net", "virtio_scsi"] };

  it("takes modules with all they need, but for what is there", () => {
    assert.deepEqual(findMissingDrivers(index, new Set(["virtio", "ext4"]), needs), {
      kind: "missing",
      names: ["virtio_pci", "virtio_blk"],
      paths: ["kernel/drivers/block/virtio-blk.ko.zst", "kernel/drivers/virtio/virtio_pci.ko", "kernel/drivers/virtio/virtio_ring.ko.xz"],
    });
  });

  it("finds nothing missing when all is there, and says what cannot be", () => {
    assert.deepEqual(findMissingDrivers(index, new Set(["virtio_pci", "virtio_blk"]), needs), { kind: "complete" });
    const driver = "hv_storvsc";
    assert.deepEqual(findMissingDrivers(index, new Set(), { required: [driver], wished: [] }), { kind: "impossible", driver });
  });
});

describe("ExtFiles", () => {
  it("reads a line of a listing", () => {
    assert.deepEqual(parseListLine("/20/100644/0/7/initrd.img-6.1/6655282/"), [
      { name: "initrd.img-6.1", kind: "file", mode: 0o644, uid: 0, gid: 7, sizeBytes: 6_655_282 },
    ]);
    assert.equal(parseListLine("/336/120777/0/0/lib/7/")[0]?.kind, "link");
    assert.deepEqual(parseListLine("/2/040755/0/0/..//"), []);
  });

  it("lets no path into the command language that could be more than a path", () => {
    assert.ok(isPlainPath("/lib/modules/6.1.0-50-amd64/kernel/drivers/block/virtio_blk.ko"));
    for (const path of ["/a b", '/a"b', "/a\nrm /etc/passwd", "relative", "/a;b", "/a\0"]) assert.ok(!isPlainPath(path), path);
  });
});
