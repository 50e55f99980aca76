// Promises of the disk choice: an identity wins, a size decides only where it is unique, the boot disk stays.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { SourceDisk } from "./agent-control.ts";
import { findDisks, requireExcludable } from "./disk-choice.ts";
import { Fault } from "./errors.ts";
import { parseDiskId } from "./ids.ts";

const disk = (diskId: string, deviceName: string, sizeBytes: number, isBoot = false): SourceDisk => ({
  diskId: parseDiskId(diskId),
  deviceName,
  sizeBytes,
  identifiedBy: "serial",
  isBoot,
  excluded: [],
});
const disks = [
  disk("serial-6000c29a0b1c2d3e4f50617283940a1b", "sda", 100, true),
  disk("serial-6000c29affffffffffffffffffffffff", "sdb", 200),
  disk("gpt-1-2", "sdc", 200),
  disk("gpt-3-4", "sdd", 300),
];
const find = (label: string, sizeBytes: number, uuid?: string): string | undefined =>
  findDisks([{ label, sizeBytes, ...(uuid === undefined ? {} : { uuid }) }], disks)[0];

describe("findDisks", () => {
  it("knows a disk by VMware's UUID, by the agent's id and by its kernel name", () => {
    assert.equal(find("Hard disk 2", 200, "6000C29a-ffff-ffff-ffff-ffffffffffff"), "serial-6000c29affffffffffffffffffffffff");
    assert.equal(find("gpt-1-2", 0), "gpt-1-2");
    assert.equal(find("sdc", 200), "gpt-1-2");
  });
  it("takes a size only where one disk has it", () => {
    assert.equal(find("Hard disk 4", 300), "gpt-3-4");
    assert.throws(
      () => find("Hard disk 3", 200),
      (error) => error instanceof Fault && error.code === "DiskUnidentified",
    );
    assert.throws(() => find("Hard disk 9", 999), Fault);
  });
});

describe("requireExcludable", () => {
  it("keeps the boot disk and refuses what the machine does not have", () => {
    requireExcludable([parseDiskId("gpt-1-2")], disks);
    for (const id of ["serial-6000c29a0b1c2d3e4f50617283940a1b", "gpt-9"])
      assert.throws(
        () => requireExcludable([parseDiskId(id)], disks),
        (error) => error instanceof Fault && error.code === "InputInvalid",
      );
  });
});
