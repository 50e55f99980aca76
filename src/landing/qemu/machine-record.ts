// What a target remembers of a landed machine on disk, so that another process can take it over.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { countShape, diskIdShape } from "../../contract/shapes.ts";
import type { LaunchSpec } from "../target.ts";

const networkShape = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("isolated") }),
  z.object({ kind: z.literal("named"), name: z.string().max(200) }),
]);

const recordShape = z.object({
  version: z.literal(1),
  /** landing: not whole; whoever finds it removes it. */
  state: z.enum(["landing", "landed"]),
  name: z.string().regex(/^[a-z0-9-]{1,60}$/),
  cpuCount: countShape.min(1).max(1024),
  memoryBytes: countShape.min(2 ** 20),
  firmware: z.enum(["bios", "efi"]),
  disks: z.array(z.object({ diskId: diskIdShape, isBoot: z.boolean(), sizeBytes: countShape })).max(64),
  nics: z.array(z.object({ mac: z.string().max(20), guestName: z.string().max(64), address: z.string().max(64).optional() })).max(16),
  network: networkShape,
  /** Each overlay has a bitmap of what was written to it since it was made. */
  tracksWrites: z.boolean().exactOptional(),
  /** It is not started: its source runs again, or shall. */
  isBarred: z.boolean().exactOptional(),
  hydration: z.object({ seconds: z.number(), changes: z.array(z.string()) }),
});

export type MachineRecord = z.infer<typeof recordShape>;

/** Where a machine's things are. Sockets have short paths: a unix socket's is at most 107 bytes long. */
export interface MachinePaths {
  readonly folder: string;
  readonly record: string;
  readonly pidFile: string;
  readonly serial: string;
  readonly leases: string;
  readonly netPidFile: string;
  readonly scratch: string;
  readonly qmpSocket: string;
  /** What is there only while its disks are read: copies of overwritten blocks, a daemon's pid file, views. */
  readonly viewFolder: string;
  readonly viewSocket: string;
  readonly serialSocket: string;
  readonly screenSocket: string;
  overlay(index: number): string;
  nbdSocket(index: number): string;
  /** Name of the tap of a card; at most 15 letters. */
  tap(index: number): string;
}

export function machinePaths(stateFolder: string, name: string): MachinePaths {
  const folder = join(stateFolder, "machines", name);
  const short = createHash("sha256").update(`${stateFolder}\0${name}`).digest("hex").slice(0, 8);
  const sockets = join(stateFolder, "s");
  return {
    folder,
    record: join(folder, "machine.json"),
    pidFile: join(folder, "qemu.pid"),
    serial: join(folder, "serial.log"),
    leases: join(folder, "leases"),
    netPidFile: join(folder, "net.pid"),
    scratch: join(folder, "scratch"),
    qmpSocket: join(sockets, `${short}.qmp`),
    viewFolder: join(folder, "view"),
    viewSocket: join(sockets, `${short}.v`),
    serialSocket: join(sockets, `${short}.tty`),
    screenSocket: join(sockets, `${short}.vnc`),
    overlay: (index) => join(folder, `disk-${index}.qcow2`),
    nbdSocket: (index) => join(sockets, `${short}.${index}`),
    tap: (index) => `wl${short}${index}`,
  };
}

export function recordOf(spec: LaunchSpec): MachineRecord {
  return {
    version: 1,
    state: "landing",
    name: spec.name,
    cpuCount: spec.cpuCount,
    memoryBytes: spec.memoryBytes,
    firmware: spec.firmware,
    disks: spec.disks.map(({ diskId, isBoot, content }) => ({ diskId, isBoot, sizeBytes: content.sizeBytes })),
    nics: spec.nics.map(({ mac, guestName, address }) => ({ mac, guestName, ...(address === undefined ? {} : { address }) })),
    network: spec.network,
    ...(spec.tracksWrites === true ? { tracksWrites: true } : {}),
    hydration: { seconds: 0, changes: [] },
  };
}

export async function writeRecord(paths: MachinePaths, record: MachineRecord): Promise<void> {
  await writeFileAtomic(paths.record, `${JSON.stringify(record, undefined, 2)}\n`);
}

/** undefined when there is no such machine, or its record is not readable: then it is not whole. */
export async function readRecord(paths: MachinePaths): Promise<MachineRecord | undefined> {
  const text = await readFile(paths.record, "utf8").catch(() => undefined); // Absent is an answer.
  if (text === undefined) return undefined;
  const parsed = recordShape.safeParse(JSON.parse(text));
  return parsed.success ? parsed.data : undefined;
}
