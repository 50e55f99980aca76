// For tests: a landed machine whose whole system is a boot sector that greets and echoes on the serial console; the emulator, its UART and its screen are real.

import { spawnSync } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { runCommand } from "../../base/run-command.ts";
import { parseDiskId } from "../../contract/ids.ts";
import { machinePaths, writeRecord, type MachineRecord } from "./machine-record.ts";
import { openQemuTarget, type QemuTarget } from "./qemu-target.ts";

export const echoGreeting = "echo machine ready\r\n";
const diskBytes = 2 ** 20;
const signatureAt = 510;

/** Real mode at 0x7c00. COM1 is at 0x3f8, its line status at 0x3fd: bit 0 says that a byte has come, bit 5 that one may be sent. */
const code = [
  ["31c0 8ed8", "xor ax,ax; mov ds,ax"],
  ["be317c", "mov si,text"],
  ["ac 84c0 7405", "print: lodsb; test al,al; jz listen"],
  ["e81300 ebf6", "call put; jmp print"],
  ["bafd03", "listen: mov dx,0x3fd"],
  ["ec a801 74fb", "again: in al,dx; test al,1; jz again"],
  ["baf803 ec", "mov dx,0x3f8; in al,dx"],
  ["e80200 ebef", "call put; jmp listen"],
  ["50 bafd03", "put: push ax; mov dx,0x3fd"],
  ["ec a820 74fb", "full: in al,dx; test al,0x20; jz full"],
  ["58 baf803 ee c3", "pop ax; mov dx,0x3f8; out dx,al; ret; text:"],
] as const;

/** Why such a machine cannot be here; undefined when it can. */
export function echoMachineMissing(): string | undefined {
  const programs = ["qemu-system-x86_64", "qemu-img", "qemu-storage-daemon", "setpriv", "dnsmasq"];
  const missing = programs.filter((program) => spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0);
  return missing.length === 0 ? undefined : `missing programs: ${missing.join(", ")}`;
}

const echoNetworks = { none: { kind: "user", forwards: [], isSealed: true } } as const;

const echoRecord = (name: string): MachineRecord => ({
  version: 1,
  state: "landed",
  name,
  cpuCount: 1,
  memoryBytes: 64 * 2 ** 20,
  firmware: "bios",
  disks: [{ diskId: parseDiskId("boot"), isBoot: true, sizeBytes: diskBytes }],
  nics: [],
  network: { kind: "named", name: "none" },
  hydration: { seconds: 0, changes: [] },
});

/** Puts the machine where a target of this state folder finds it, standing by itself and switched off. */
export async function makeEchoMachine(stateFolder: string, name: string): Promise<void> {
  const paths = machinePaths(stateFolder, name);
  await mkdir(paths.folder, { recursive: true, mode: 0o700 });
  const disk = Buffer.alloc(diskBytes);
  Buffer.from(code.map(([hex]) => hex.replaceAll(" ", "")).join(""), "hex").copy(disk);
  disk.write(
    echoGreeting,
    code.reduce((sum, [hex]) => sum + hex.replaceAll(" ", "").length / 2, 0),
    "latin1",
  );
  disk.writeUInt16LE(0xaa55, signatureAt);
  const raw = join(paths.folder, "boot.raw");
  await writeFile(raw, disk);
  await runCommand("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, paths.overlay(0)]);
  await rm(raw);
  await writeRecord(paths, echoRecord(name));
}

export async function openEchoTarget(stateFolder: string): Promise<QemuTarget> {
  return await openQemuTarget({
    stateFolder,
    cacheFolder: join(stateFolder, "cache"),
    exportDisk: async () => await Promise.reject(new Error("an echo machine depends on no recovery point")),
    networks: echoNetworks,
    accelerator: "tcg",
    clock: systemClock,
    log: silentLog,
    stopMsMax: 0,
  });
}
