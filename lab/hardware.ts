// The virtual hardware of a source machine as QEMU arguments: what VMware would show, a pvscsi controller and a vmxnet3 card.

import type { Accelerator } from "./accelerator.ts";

export interface HardwareDisk {
  readonly path: string;
  readonly format: "raw" | "qcow2";
  readonly serial: string;
  /** World-wide name, 16 hex digits; none when absent. */
  readonly wwn?: string;
}

export interface Hardware {
  readonly accelerator: Accelerator;
  readonly cpuCount: number;
  readonly memoryMiB: number;
  readonly mac: string;
  /** Tap device that the card is plugged into; an unplugged card when absent. */
  readonly tap?: string;
  readonly disks: readonly HardwareDisk[];
}

/** The same slots in every machine, so that the guest's device names stay the same. */
const controllerSlot = "0x10";
const cardSlot = "0x0b";

/** A flush in the guest is a flush on this machine's disk: cache=writeback keeps flushes. */
export function hardwareArguments(hardware: Hardware): readonly string[] {
  const disks = hardware.disks.flatMap((disk, index) => [
    "-drive",
    `if=none,id=disk${index},file=${disk.path},format=${disk.format},cache=writeback,discard=unmap`,
    "-device",
    `scsi-hd,bus=scsi0.0,scsi-id=${index},drive=disk${index},vendor=VMware,product=Virtual disk,serial=${disk.serial}${
      disk.wwn === undefined ? "" : `,wwn=0x${disk.wwn}`
    }${index === 0 ? ",bootindex=1" : ""}`,
  ]);
  const wire = hardware.tap === undefined ? [] : ["-netdev", `tap,id=wire,ifname=${hardware.tap},script=no,downscript=no`];
  const card = `vmxnet3,addr=${cardSlot},mac=${hardware.mac}${hardware.tap === undefined ? "" : ",netdev=wire"}`;
  return [
    "-machine",
    "pc",
    ...hardware.accelerator.arguments,
    "-smp",
    String(hardware.cpuCount),
    "-m",
    String(hardware.memoryMiB),
    "-nodefaults",
    "-vga",
    "none",
    "-smbios",
    "type=1,manufacturer=VMware,, Inc.,product=VMware Virtual Platform",
    "-device",
    `pvscsi,id=scsi0,addr=${controllerSlot}`,
    ...disks,
    ...wire,
    "-device",
    card,
  ];
}
