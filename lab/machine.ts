// Source machines: their identities, their disks on top of the cached image, and their QEMU processes.

import { connect } from "node:net";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { systemRandom } from "../src/base/random.ts";
import { runCommand } from "../src/base/run-command.ts";
import { Fault } from "../src/contract/errors.ts";
import type { Accelerator } from "./accelerator.ts";
import { hardwareArguments } from "./hardware.ts";
import type { GuestImage } from "./image.ts";
import { ledgerDisk, rootDisk } from "./image-recipe.ts";
import type { LabPlace } from "./place.ts";
import { daemonProcess, inZone } from "./processes.ts";

export interface MachineRequest {
  readonly name: string;
  /** Copies the disks of an earlier machine of the list: same machine-id, name, keys and data; another SMBIOS UUID and MAC. */
  readonly cloneOf?: string;
  /** Only names, lease and inventory when the lab comes up; the clone is taken, and started, by `takeClone`. */
  readonly isTakenLater?: boolean;
  readonly cpuCount?: number;
  readonly memoryMiB?: number;
}

export interface LabDisk {
  /** As vSphere names it. */
  readonly label: string;
  /** qcow2 file with the cached image behind it. */
  readonly path: string;
  readonly sizeBytes: number;
  /** SCSI serial number, as the guest sees it. */
  readonly serial: string;
  readonly wwn: string;
  /** Backing UUID, as vSphere shows it. */
  readonly uuid: string;
}

/** Everything known about one machine; kept in <state>/machines/<name>.json. */
export interface LabMachine {
  readonly name: string;
  readonly hostName: string;
  readonly cloneOf?: string;
  readonly isTakenLater?: boolean;
  readonly address: string;
  readonly mac: string;
  readonly smbiosUuid: string;
  readonly instanceUuid: string;
  readonly cpuCount: number;
  readonly memoryMiB: number;
  readonly tap: string;
  readonly disks: readonly LabDisk[];
  readonly ledgerUrl: string;
  /** Starts the machine from inside its zone. */
  readonly argv: readonly string[];
  readonly qmpSocket: string;
  readonly pidFile: string;
  readonly serialLog: string;
}

export interface Defining {
  readonly place: LabPlace;
  readonly accelerator: Accelerator;
  readonly requests: readonly MachineRequest[];
}

const namePattern = /^[a-z][a-z0-9-]{0,30}$/;
const machinesMax = 20;

/** Gives each requested machine its identity. Nothing is started or written. */
export function defineMachines(options: Defining): readonly LabMachine[] {
  const machines: LabMachine[] = [];
  if (options.requests.length > machinesMax) throw new Fault("InputInvalid", `could not define more than ${machinesMax} machines`);
  for (const [index, request] of options.requests.entries()) {
    if (!namePattern.test(request.name) || machines.some((machine) => machine.name === request.name)) {
      throw new Fault(
        "InputInvalid",
        `could not use ${JSON.stringify(request.name)} as a machine name: it is taken or not of a-z, 0-9 and -`,
      );
    }
    const original = machines.find((machine) => machine.name === request.cloneOf);
    if (request.cloneOf !== undefined && original === undefined) {
      throw new Fault("InputInvalid", `could not clone ${request.cloneOf} into ${request.name}: no machine of that name comes before it`);
    }
    if (request.isTakenLater === true && original === undefined)
      throw new Fault("InputInvalid", `could not put ${request.name} off: only a clone can be taken later`);
    machines.push(defineMachine(options, request, index, original));
  }
  return machines;
}

function defineMachine(options: Defining, request: MachineRequest, index: number, original: LabMachine | undefined): LabMachine {
  const { place } = options;
  const folder = join(place.stateFolder, "machines");
  const address = `10.10.0.${101 + index}`;
  const disks = [rootDisk.sizeBytes, ledgerDisk.sizeBytes].map((sizeBytes, unit) => defineDisk(place, request.name, unit, sizeBytes));
  const machine = {
    name: request.name,
    hostName: original?.hostName ?? request.name,
    ...(request.cloneOf === undefined ? {} : { cloneOf: request.cloneOf }),
    ...(request.isTakenLater === undefined ? {} : { isTakenLater: request.isTakenLater }),
    address,
    mac: `00:50:56:${hexPairs(systemRandom.bytes(1)[0] ?? 0)}:0a:${hexPairs(101 + index)}`,
    smbiosUuid: systemRandom.uuid(),
    instanceUuid: systemRandom.uuid(),
    cpuCount: request.cpuCount ?? 2,
    memoryMiB: request.memoryMiB ?? 1024,
    tap: `tap${index}`,
    disks,
    ledgerUrl: `http://${address}:8080`,
    qmpSocket: join(folder, `${request.name}.qmp`),
    pidFile: join(folder, `${request.name}.pid`),
    serialLog: join(folder, `${request.name}.serial.log`),
  };
  return { ...machine, argv: machineArgv({ ...machine, argv: [] }, options) };
}

/** VMware's disks show one number twice: as the backing's UUID, and without dashes as the SCSI serial. */
function defineDisk(place: LabPlace, name: string, unit: number, sizeBytes: number): LabDisk {
  const random = Buffer.from(systemRandom.bytes(13)).toString("hex");
  const serial = `6000c29${random}`.slice(0, 32);
  const uuid = [serial.slice(0, 8), serial.slice(8, 12), serial.slice(12, 16), serial.slice(16, 20), serial.slice(20)].join("-");
  return {
    label: `Hard disk ${unit + 1}`,
    path: join(place.diskFolder, `${name}-disk${unit}.qcow2`),
    sizeBytes,
    serial,
    wwn: `5000c29${serial.slice(7, 16)}`,
    uuid: uuid.replace(/^6000c29/, "6000C29"),
  };
}

function machineArgv(machine: LabMachine, options: Defining): readonly string[] {
  const { place, accelerator } = options;
  const disks = machine.disks.map((disk) => ({ path: disk.path, format: "qcow2" as const, serial: disk.serial, wwn: disk.wwn }));
  const given = ["administrator-key", "operator-hash", ...(machine.cloneOf === undefined ? ["hostname"] : [])];
  const firmware = given.flatMap((key) => {
    const file =
      key === "hostname" ? join(place.stateFolder, "machines", `${machine.name}.hostname`) : join(place.stateFolder, "secrets", key);
    return ["-fw_cfg", `name=opt/watari/${key},file=${file}`];
  });
  return [
    "qemu-system-x86_64",
    "-name",
    `${place.prefix}-${machine.name}`,
    "-uuid",
    machine.smbiosUuid,
    ...hardwareArguments({
      accelerator,
      cpuCount: machine.cpuCount,
      memoryMiB: machine.memoryMiB,
      mac: machine.mac,
      tap: machine.tap,
      disks,
    }),
    ...firmware,
    "-display",
    "none",
    "-chardev",
    `file,id=serial,path=${machine.serialLog},append=on`,
    "-serial",
    "chardev:serial",
    "-qmp",
    `unix:${machine.qmpSocket},server=on,wait=off`,
    "-pidfile",
    machine.pidFile,
    "-daemonize",
  ];
}

/** Makes the disks of a machine that is no clone: empty layers on top of the cached image. */
export async function makeDisks(machine: LabMachine, image: GuestImage): Promise<void> {
  const bases = [image.rootDisk, image.ledgerDisk];
  for (const [unit, disk] of machine.disks.entries()) {
    const base = bases[unit];
    if (base === undefined) throw new Error(`no image for disk ${unit}`);
    await runCommand("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, disk.path]);
  }
}

/** Copies a running machine's disks at one instant: paused, flushed, copied, continued. */
export async function copyDisks(original: LabMachine, clone: LabMachine): Promise<void> {
  await machineOrder(original, "stop");
  try {
    for (const [unit, disk] of original.disks.entries()) {
      const target = clone.disks[unit];
      if (target !== undefined) await copyFile(disk.path, target.path);
    }
  } finally {
    await machineOrder(original, "cont");
  }
}

export async function writeMachineFiles(place: LabPlace, machine: LabMachine): Promise<void> {
  const folder = join(place.stateFolder, "machines");
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${machine.name}.hostname`), machine.hostName);
  await writeFile(join(folder, `${machine.name}.json`), JSON.stringify(machine, undefined, 2), { mode: 0o600 });
}

/** Starts the machine; returns when its virtual CPUs run. A running machine stays as it is. */
export async function startMachine(place: LabPlace, machine: LabMachine): Promise<void> {
  if ((await machineProcess(place, machine)) !== undefined) return;
  const [program, ...args] = inZone(place, "onprem", machine.argv);
  await runCommand(program, args);
}

export async function machineProcess(place: LabPlace, machine: LabMachine): Promise<number | undefined> {
  return await daemonProcess(place, machine.pidFile);
}

/** Sends one QMP command without arguments and returns when QEMU has done it. */
async function machineOrder(machine: LabMachine, command: "stop" | "cont" | "system_powerdown" | "system_reset"): Promise<void> {
  const socket = connect(machine.qmpSocket);
  socket.setTimeout(10_000, () => socket.destroy(new Error(`QEMU did not answer ${command}`)));
  try {
    const lines = createInterface({ input: socket, crlfDelay: Infinity })[Symbol.asyncIterator]();
    await lines.next(); // The greeting.
    for (const name of ["qmp_capabilities", command]) {
      socket.write(`${JSON.stringify({ execute: name })}\n`);
      for (;;) {
        const line = await lines.next();
        if (line.done === true) throw new Error(`QEMU closed the line at ${name}`);
        const answer = JSON.parse(line.value) as { readonly return?: unknown; readonly error?: { readonly desc: string } };
        if (answer.error !== undefined) throw new Error(`QEMU refused ${name}: ${answer.error.desc}`);
        if (answer.return !== undefined) break;
      }
    }
  } finally {
    socket.destroy();
  }
}

function hexPairs(value: number): string {
  return (value % 64).toString(16).padStart(2, "0");
}
