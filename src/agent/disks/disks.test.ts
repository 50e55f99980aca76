// Promises about disks: identities, mounts, swaps, ranges.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { granuleBytes } from "../../disk/geometry.ts";
import { chooseIdentities, parseUnitSerial, readDosSignature, readGptGuid, toDiskId } from "./disk-identity.ts";
import { freezeOrder, parseMountinfo, parseSwaps } from "./mounts.ts";
import { alignInward, differingRanges, joinRanges, maskExcluded, withoutExcluded, type ByteRange } from "./ranges.ts";
import { disksUnder, listPhysicalDisks, placeOfDevice } from "./sysfs.ts";

const ranges = fc
  .array(fc.record({ offset: fc.nat(30), length: fc.nat(6) }), { maxLength: 6 })
  .map((list) => joinRanges(list.map(({ offset, length }) => ({ offset: offset * granuleBytes, length: length * granuleBytes }))));
const granulesOf = (list: readonly ByteRange[]): number[] =>
  list.flatMap((range) => Array.from({ length: range.length / granuleBytes }, (_, index) => range.offset / granuleBytes + index));

test("withoutExcluded leaves exactly the granules that are not excluded", () => {
  fc.assert(
    fc.property(ranges, ranges, (changed, excluded) => {
      const runs = changed.map((range) => ({ first: range.offset / granuleBytes, count: range.length / granuleBytes }));
      const left = [...withoutExcluded(runs, excluded)].flatMap((run) =>
        Array.from({ length: run.count }, (_, index) => run.first + index),
      );
      const hidden = new Set(granulesOf(excluded));
      assert.deepEqual(
        left,
        granulesOf(changed).filter((granule) => !hidden.has(granule)),
      );
    }),
  );
});

test("differingRanges covers what exactly one list covers", () => {
  fc.assert(
    fc.property(ranges, ranges, (one, other) => {
      const expected = new Set(granulesOf(one)).symmetricDifference(new Set(granulesOf(other)));
      assert.deepEqual(
        granulesOf(differingRanges(one, other)),
        [...expected].sort((a, b) => a - b),
      );
    }),
  );
});

test("maskExcluded zeros the excluded part and nothing else", () => {
  const bytes = new Uint8Array(100).fill(1);
  maskExcluded(bytes, 1000, [
    { offset: 990, length: 15 },
    { offset: 1095, length: 50 },
  ]);
  assert.deepEqual(
    [...bytes.keys()].filter((index) => bytes[index] === 0),
    [0, 1, 2, 3, 4, 95, 96, 97, 98, 99],
  );
});

test("alignInward keeps whole granules only", () => {
  assert.deepEqual(alignInward({ offset: 4097, length: 12_288 }), { offset: 8192, length: 8192 });
  assert.equal(alignInward({ offset: 1, length: 4096 }), undefined);
});

test("toDiskId makes ids that the contract accepts from any text, or none", () => {
  assert.equal(toDiskId("serial", "  WD-12 Ab_3 ")?.diskId, "serial-wd-12-ab-3");
  assert.equal(toDiskId("wwn", "0000"), undefined);
  fc.assert(fc.property(fc.string(), (text) => void toDiskId("serial", text)));
});

test("chooseIdentities passes over an identity that two disks claim", () => {
  const [one, two, gpt] = [toDiskId("serial", "same"), toDiskId("serial", "same"), toDiskId("gpt", "abc")];
  assert.ok(one !== undefined && two !== undefined && gpt !== undefined);
  assert.deepEqual(chooseIdentities([[one], [two, gpt]]), [undefined, gpt]);
});

test("partition tables and SCSI pages give their ids", () => {
  const head = Buffer.alloc(8192);
  assert.equal(readGptGuid(head), undefined);
  assert.equal(readDosSignature(head), undefined);
  head.write("EFI PART", 512, "latin1");
  Buffer.from("00112233445566778899aabbccddeeff", "hex").copy(head, 512 + 56);
  head.writeUInt16LE(0xaa55, 510);
  head.writeUInt32LE(0xdead_beef, 440);
  assert.equal(readGptGuid(head), "33221100-5544-7766-8899-aabbccddeeff");
  assert.equal(readDosSignature(head), "deadbeef");
  assert.equal(parseUnitSerial(Buffer.from([0, 0x80, 0, 3, 0x41, 0x42, 0x20])), "AB");
  assert.equal(parseUnitSerial(Buffer.from([0, 0x83, 0, 3, 0x41, 0x42, 0x20])), undefined);
});

test("freezeOrder takes each filesystem once, the deepest first and the root last", () => {
  const mounts = parseMountinfo(
    [
      "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro",
      "23 22 254:2 / /var/lib rw - xfs /dev/mapper/x rw",
      "24 23 254:3 / /var/lib/a\\040b rw - ext4 /dev/vdb1 rw",
      "25 22 254:2 /sub /srv/bind rw - xfs /dev/mapper/x rw",
      "26 22 254:4 / /cd ro - iso9660 /dev/x ro",
    ].join("\n"),
  );
  assert.deepEqual(
    freezeOrder(mounts.filter((mount) => mount.isWritable)).map((mount) => mount.path),
    ["/var/lib/a b", "/var/lib", "/"],
  );
});

test("parseSwaps lists active swaps", () => {
  const text =
    "Filename\t\t\t\tType\t\tSize\n/dev/vda2                               partition\t524284\t0\t-2\n/swap\\040file file 1 0 -3\n";
  assert.deepEqual(parseSwaps(text), [
    { path: "/dev/vda2", kind: "partition" },
    { path: "/swap file", kind: "file" },
  ]);
});

test("listPhysicalDisks follows the places on the buses, whatever names the disks got", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "watari-disks-"));
  t.after(async () => await rm(folder, { recursive: true }));
  const controller = "devices/pci0000:00/0000:00:05.0/host2";
  const unit = (name: string, target: number): string => `${controller}/target2:0:${target}/2:0:${target}:0/block/${name}`;
  const disks = [
    unit("sdc", 0),
    unit("sda", 9),
    unit("sdb", 10),
    "devices/virtual/block/zero0",
    "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
  ];
  for (const [index, path] of disks.entries()) {
    const place = join(folder, path);
    await mkdir(place, { recursive: true });
    await writeFile(join(place, "dev"), `8:${index * 16}\n`);
    await writeFile(join(place, "size"), "2048\n");
    const link = join(folder, "block", path.slice(path.lastIndexOf("/") + 1));
    await mkdir(dirname(link), { recursive: true });
    await symlink(place, link);
  }
  const listed = await listPhysicalDisks(folder);
  assert.deepEqual(
    listed.map(({ name }) => name),
    ["sdc", "sda", "sdb", "nvme0n1"],
  );
});

test("listPhysicalDisks shows a disk once that dm-multipath joins ways to, and what stands on it stands on that disk", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "watari-disks-"));
  t.after(async () => await rm(folder, { recursive: true }));
  const bus = (host: number, name: string): string => `devices/pci0000:00/0000:00:0${host}.0/host${host}/target/unit/block/${name}`;
  const mapping = (name: string): string => `devices/virtual/block/${name}`;
  const devices = { sda: bus(5, "sda"), sdb: bus(4, "sdb"), sdc: bus(6, "sdc"), "dm-0": mapping("dm-0"), "dm-1": mapping("dm-1") };
  for (const [index, [name, path]] of Object.entries(devices).entries()) {
    await mkdir(join(folder, path, "slaves"), { recursive: true });
    await writeFile(join(folder, path, "dev"), `8:${index}\n`);
    await writeFile(join(folder, path, "size"), "2048\n");
    for (const link of [join(folder, "block", name), join(folder, "dev/block", `8:${index}`), join(folder, "class/block", name)]) {
      await mkdir(dirname(link), { recursive: true });
      await symlink(join(folder, path), link);
    }
  }
  const stack = { "dm-0": { uuid: "mpath-35000c500", slaves: ["sda", "sdb"] }, "dm-1": { uuid: "LVM-abc", slaves: ["dm-0", "sdc"] } };
  for (const [name, { uuid, slaves }] of Object.entries(stack)) {
    await mkdir(join(folder, mapping(name), "dm"));
    await writeFile(join(folder, mapping(name), "dm/uuid"), `${uuid}\n`);
    for (const slave of slaves) await symlink(join(folder, "block", slave), join(folder, mapping(name), "slaves", slave));
  }
  assert.deepEqual(
    (await listPhysicalDisks(folder)).map(({ name, ways }) => [name, ...ways]),
    [
      ["dm-0", "sdb", "sda"],
      ["sdc", "sdc"],
    ],
  );
  assert.deepEqual(await disksUnder("8:4", folder), new Set(["dm-0", "sdc"]));
  assert.deepEqual(await placeOfDevice("dm-0", folder), { disk: "dm-0", offset: 0, length: 1 << 20 });
  assert.equal(await placeOfDevice("dm-1", folder), undefined);
});
