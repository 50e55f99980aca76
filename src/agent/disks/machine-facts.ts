// Facts of the machine that the agent runs on: names, hardware, network and disks.

import { constants } from "node:fs";
import { open, readdir, readFile, realpath, stat } from "node:fs/promises";
import { availableParallelism, hostname, networkInterfaces, release, totalmem } from "node:os";
import { basename, join } from "node:path";
import type { MachineFacts, SourceDisk } from "../../contract/agent-control.ts";
import { Fault } from "../../contract/errors.ts";
import { allocatePageAligned } from "../kernel/page-aligned.ts";
import type { SystemCalls } from "../kernel/system-calls.ts";
import { chooseIdentities, identitiesOf, type DiskIdentity } from "./disk-identity.ts";
import { headBytes } from "./open-disk.ts";
import { parseMountinfo } from "./mounts.ts";
import { readSwapRanges } from "./swaps.ts";
import { disksUnder, listPhysicalDisks, readTrimmed, type PhysicalDisk } from "./sysfs.ts";

/** Throws Fault DiskUnidentified when a disk has nothing to be known by. */
export async function readMachineFacts(calls: SystemCalls): Promise<MachineFacts> {
  const osRelease = (await readTrimmed("/etc/os-release")) ?? "";
  const addresses = Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).filter((one) => !one.internal).map((one) => one.address),
  );
  return {
    hostname: hostname(),
    smbiosUuid: ((await readTrimmed("/sys/class/dmi/id/product_uuid")) ?? "").toLowerCase(),
    osMachineId: (await readTrimmed("/etc/machine-id")) ?? "",
    bootId: (await readTrimmed("/proc/sys/kernel/random/boot_id")) ?? "",
    osName: /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(osRelease)?.[1] ?? "Linux",
    kernelRelease: release(),
    firmware: (await stat("/sys/firmware/efi").catch(() => undefined)) === undefined ? "bios" : "efi", // Absent: started by a BIOS.
    cpuCount: availableParallelism(),
    memoryBytes: totalmem(),
    addresses: addresses.slice(0, 64),
    nics: await readNics(),
    disks: await readDisks(calls),
  };
}

async function readNics(): Promise<MachineFacts["nics"]> {
  const nics: MachineFacts["nics"] = [];
  for (const name of (await readdir("/sys/class/net")).sort()) {
    const folder = join("/sys/class/net", name);
    const hasDevice = (await stat(join(folder, "device")).catch(() => undefined)) !== undefined; // Bridges, veth and lo have none.
    if (hasDevice && nics.length < 64) nics.push({ name, mac: (await readTrimmed(join(folder, "address"))) ?? "" });
  }
  return nics;
}

/** The physical disks with their identities; the source of every other question about disks. */
async function readDisks(calls: SystemCalls): Promise<SourceDisk[]> {
  const disks = await listPhysicalDisks();
  const candidates = await Promise.all(disks.map(async (disk) => identitiesOf(disk.ways, await readHead(disk))));
  const identities = chooseIdentities(candidates);
  const [boot, swaps] = await Promise.all([bootDisks(), readSwapRanges(calls)]);
  return disks.map((disk, index) => {
    const identity = identities[index];
    if (identity === undefined) throw unidentified(disks, candidates, index);
    return {
      ...identity,
      deviceName: disk.name,
      sizeBytes: disk.sizeBytes,
      isBoot: boot.has(disk.name),
      excluded: [...(swaps.get(disk.name) ?? [])],
    };
  });
}

/** Two devices of one identity and one size are most likely two ways to one disk. */
function unidentified(disks: readonly PhysicalDisk[], candidates: readonly (readonly DiskIdentity[])[], index: number): Fault {
  const { name = "", sizeBytes = 0 } = disks[index] ?? {};
  const ids = new Set(candidates[index]?.map(({ diskId }) => diskId));
  const twin = disks.find(
    (other, at) => at !== index && other.sizeBytes === sizeBytes && candidates[at]?.some(({ diskId }) => ids.has(diskId)) === true,
  );
  if (twin === undefined)
    return new Fault(
      "DiskUnidentified",
      `could not tell the disk ${name} from others: it has no serial number, WWN or partition table of its own`,
      { evidence: { disk: name, sizeBytes } },
    );
  return new Fault("DiskUnidentified", `could not tell the disk ${name} from ${twin.name}: both have one identity and one size`, {
    causes: ["they are two ways to one disk, and nothing joins them", "one is a copy of the other"],
    action: "start multipathd, so that the ways become one disk, or give each disk an identity of its own",
    evidence: { disk: name, twin: twin.name, sizeBytes, identities: [...ids] },
  });
}

async function readHead(disk: PhysicalDisk): Promise<Uint8Array> {
  await using file = await open(join("/dev", disk.name), constants.O_RDONLY | constants.O_DIRECT);
  const head = allocatePageAligned(headBytes);
  await file.read(head, 0, headBytes, 0);
  return head;
}

async function bootDisks(): Promise<Set<string>> {
  const mounts = parseMountinfo(await readFile("/proc/self/mountinfo", "utf8"));
  const boot = new Set<string>();
  for (const mount of mounts)
    if (["/", "/boot", "/boot/efi"].includes(mount.path)) for (const disk of await disksUnder(await deviceOf(mount))) boot.add(disk);
  return boot;
}

/** Device number of the mount; btrfs shows an anonymous one, its source's is meant then. */
export async function deviceOf(mount: { readonly device: string; readonly source: string }): Promise<string> {
  if (!mount.device.startsWith("0:") || !mount.source.startsWith("/dev/")) return mount.device;
  const name = basename(await realpath(mount.source).catch(() => mount.source)); // Gone: then no disk is found under it.
  return (await readTrimmed(join("/sys/class/block", name, "dev"))) ?? mount.device;
}
