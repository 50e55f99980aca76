// QEMU's command line for a landed machine. Pure: from a record and its surroundings to arguments.

import type { MachinePaths, MachineRecord } from "./machine-record.ts";

export type Accelerator = "kvm" | "tcg";

export interface EmulatorSurroundings {
  readonly paths: MachinePaths;
  readonly accelerator: Accelerator;
  /** One per card: how it is wired, in QEMU's words for -netdev, without the id. */
  readonly cards: readonly string[];
  /** Disks whose overlay still needs the recovery point. */
  readonly dependsOnPoint: readonly boolean[];
  /** Files of the firmware for "efi". */
  readonly efi?: { readonly codePath: string; readonly variablesPath: string };
}

/** The guest's reads wait this long for a restarted server; then it stops until someone reattaches. */
const reconnectSecondsMax = 600;

export const qcow2Node = (index: number): string => `disk${index}`;

/** The block graph of one disk: a copy-on-write overlay over the NBD export, or alone once it is filled. */
export function blockGraph(paths: MachinePaths, index: number, dependsOnPoint: boolean): readonly object[] {
  const file = { driver: "file", filename: paths.overlay(index), "node-name": `file${index}`, discard: "unmap" };
  const overlay = { driver: "qcow2", file: `file${index}`, "node-name": qcow2Node(index), discard: "unmap" };
  if (!dependsOnPoint) return [file, { ...overlay, backing: null }];
  const point = {
    driver: "nbd",
    server: { type: "unix", path: paths.nbdSocket(index) },
    export: exportNameOf(index),
    "reconnect-delay": reconnectSecondsMax,
    "read-only": true,
    "node-name": `point${index}`,
  };
  return [point, file, { ...overlay, backing: `point${index}` }];
}

export function exportNameOf(index: number): string {
  return `disk${index}`;
}

const screenViewersMax = 8;

/** What the guest says goes into the file whether or not somebody is at the socket, who may only be one. */
function serialLine({ serial, serialSocket }: Pick<MachinePaths, "serial" | "serialSocket">): string {
  return `socket,id=serial,path=${escaped(serialSocket)},server=on,wait=off,logfile=${escaped(serial)},logappend=on`;
}

export function emulatorArguments(record: MachineRecord, around: EmulatorSurroundings): readonly string[] {
  const { paths, accelerator } = around;
  return [
    ["-name", `watari-${record.name}`, "-nodefaults", "-no-user-config", "-pidfile", paths.pidFile],
    ["-machine", "q35", "-accel", accelerator === "kvm" ? "kvm" : "tcg,thread=multi"],
    ["-cpu", accelerator === "kvm" ? "host" : "max", "-smp", String(record.cpuCount)],
    ["-m", `${Math.ceil(record.memoryBytes / 2 ** 20)}M`, "-rtc", "base=utc"],
    ["-display", "none", "-vga", "std", "-device", "virtio-rng-pci"],
    ["-vnc", `unix:${escaped(paths.screenSocket)},share=force-shared,connections=${screenViewersMax}`],
    ["-chardev", serialLine(paths), "-serial", "chardev:serial"],
    ["-qmp", `unix:${escaped(paths.qmpSocket)},server=on,wait=off`],
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    firmwareArguments(around),
    record.disks.flatMap((disk, index) => diskArguments(around, index, disk)),
    record.nics.flatMap(({ mac }, index) =>
      [
        ["-netdev", `${around.cards[index] ?? "user,restrict=on"},id=net${index}`],
        ["-device", `virtio-net-pci,netdev=net${index},mac=${mac},romfile=`],
      ].flat(),
    ),
  ].flat();
}

/** virtio-blk holds 20 bytes of serial number; the guest finds its disk under it in /dev/disk/by-id. */
export const serialLengthMax = 20;

function diskArguments(around: EmulatorSurroundings, index: number, { diskId, isBoot }: MachineRecord["disks"][number]): readonly string[] {
  const nodes = blockGraph(around.paths, index, around.dependsOnPoint[index] ?? true);
  // A failing disk stops the guest instead of telling it: nothing it was promised is lost.
  const device = `virtio-blk-pci,drive=${qcow2Node(index)},id=virtio${index},serial=${diskId.slice(0, serialLengthMax)},rerror=stop,werror=stop`;
  return [...nodes.flatMap((node) => ["-blockdev", JSON.stringify(node)]), "-device", isBoot ? `${device},bootindex=0` : device];
}

function firmwareArguments({ efi }: EmulatorSurroundings): readonly string[] {
  if (efi === undefined) return [];
  return [
    ["-drive", `if=pflash,format=raw,readonly=on,file=${escaped(efi.codePath)}`],
    ["-drive", `if=pflash,format=raw,file=${escaped(efi.variablesPath)}`],
  ].flat();
}

/** A comma ends a value in QEMU's option syntax; doubled it is a comma. */
function escaped(path: string): string {
  return path.replaceAll(",", ",,");
}
