// QEMU's command line follows from the record: disks in order, the right backing, nothing that a guest's name could change.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseDiskId } from "../../contract/ids.ts";
import { emulatorArguments } from "./emulator.ts";
import { machinePaths, type MachineRecord } from "./machine-record.ts";

const record: MachineRecord = {
  version: 1,
  state: "landed",
  name: "web",
  cpuCount: 2,
  memoryBytes: 512 * 2 ** 20,
  firmware: "bios",
  disks: [
    { diskId: parseDiskId("data"), isBoot: false, sizeBytes: 1 },
    { diskId: parseDiskId("boot"), isBoot: true, sizeBytes: 1 },
  ],
  nics: [{ mac: "52:54:00:00:00:01", guestName: "ens192" }],
  network: { kind: "isolated" },
  hydration: { seconds: 0, changes: [] },
};
const paths = machinePaths("/var/lib/a,b", "web");

describe("emulatorArguments", () => {
  const args = emulatorArguments(record, { paths, accelerator: "tcg", cards: ["tap,ifname=t0"], dependsOnPoint: [true, false] });

  it("attaches disks in the source's order and boots from the boot disk", () => {
    const devices = args.filter((word) => word.startsWith("virtio-blk-pci"));
    assert.deepEqual(
      devices.map((word) => /drive=(\w+)/.exec(word)?.[1]),
      ["disk0", "disk1"],
    );
    assert.deepEqual(
      devices.map((word) => word.includes("bootindex=0")),
      [false, true],
    );
  });

  it("gives the recovery point to the overlay that needs it, and to no other", () => {
    const nodes = args.filter((word) => word.startsWith("{")).map((word): Record<string, unknown> => JSON.parse(word));
    const backing = (name: string) => nodes.find((node) => node["node-name"] === name)?.["backing"];
    assert.equal(backing("disk0"), "point0");
    assert.equal(backing("disk1"), null);
    assert.equal(nodes.find((node) => node["node-name"] === "point0")?.["read-only"], true);
    assert.equal(
      nodes.some((node) => node["node-name"] === "point1"),
      false,
    );
  });

  it("escapes commas of paths and keeps the card's address", () => {
    assert.ok(args.some((word) => word.includes("logfile=/var/lib/a,,b/machines/web/serial.log")));
    assert.ok(args.some((word) => word.includes("mac=52:54:00:00:00:01")));
  });

  it("keeps names of sockets and taps short however long a machine's name is", () => {
    const long = machinePaths("/var/lib/watari/hub/landing", "x".repeat(60));
    assert.ok(long.qmpSocket.length < 60);
    assert.ok(long.tap(7).length <= 15);
  });
});
