// What identifies a disk for good: serial number, WWN, GPT disk GUID or DOS signature, in this order.

import { join } from "node:path";
import { readFile } from "node:fs/promises";
import type { SourceDisk } from "../../contract/agent-control.ts";
import { parseDiskId, type DiskId } from "../../contract/ids.ts";
import { readTrimmed } from "./sysfs.ts";

export interface DiskIdentity {
  readonly diskId: DiskId;
  readonly identifiedBy: SourceDisk["identifiedBy"];
}

/** "serial-abc-1": lower case, anything else than letters and digits becomes one hyphen. undefined when nothing is left. */
export function toDiskId(kind: SourceDisk["identifiedBy"], value: string): DiskIdentity | undefined {
  const clean = value
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-+|-+$/g, "");
  if (clean === "" || /^0+$/.test(clean)) return undefined;
  return { diskId: parseDiskId(`${kind}-${clean}`.slice(0, 64).replace(/-+$/, "")), identifiedBy: kind };
}

/** Identities of one disk, best first: those that all ways to it agree upon. `head` is its first 8 KiB. */
export async function identitiesOf(ways: readonly string[], head: Uint8Array, sysFolder = "/sys"): Promise<DiskIdentity[]> {
  const [first = [], ...others] = await Promise.all(ways.map(async (way) => await identitiesBy(way, head, sysFolder)));
  return first.filter(({ diskId }) => others.every((list) => list.some((one) => one.diskId === diskId)));
}

async function identitiesBy(name: string, head: Uint8Array, sysFolder: string): Promise<DiskIdentity[]> {
  const folder = join(sysFolder, "block", name);
  const candidates: [SourceDisk["identifiedBy"], string | undefined][] = [
    ["serial", (await readTrimmed(join(folder, "serial"))) ?? (await readTrimmed(join(folder, "device/serial")))],
    ["serial", parseUnitSerial(await readFile(join(folder, "device/vpd_pg80")).catch(() => undefined))], // Only SCSI disks have it.
    ["wwn", (await readTrimmed(join(folder, "device/wwid"))) ?? (await readTrimmed(join(folder, "wwid")))],
    ["gpt", readGptGuid(head)],
    ["dos", readDosSignature(head)],
  ];
  return candidates.flatMap(([kind, value]) => (value === undefined ? [] : (toDiskId(kind, value) ?? [])));
}

/** SCSI vital product data page 80h: 4 bytes of header, then the serial number in ASCII. */
export function parseUnitSerial(page: Uint8Array | undefined): string | undefined {
  if (page === undefined || page.length < 5 || page[1] !== 0x80) return undefined;
  return Buffer.from(page.subarray(4)).toString("latin1").replaceAll("\0", "").trim();
}

/** UEFI specification, GPT header: signature at 0 and disk GUID at 56 of logical block 1, which is 512 or 4096 bytes in. */
export function readGptGuid(head: Uint8Array): string | undefined {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  for (const at of [512, 4096]) {
    if (bytes.length < at + 72 || bytes.toString("latin1", at, at + 8) !== "EFI PART") continue;
    const guid = bytes.subarray(at + 56, at + 72);
    const parts = [guid.readUInt32LE(0).toString(16).padStart(8, "0"), guid.readUInt16LE(4), guid.readUInt16LE(6)].map((part) =>
      typeof part === "number" ? part.toString(16).padStart(4, "0") : part,
    );
    return [...parts, guid.toString("hex", 8, 10), guid.toString("hex", 10)].join("-");
  }
  return undefined;
}

export function readDosSignature(head: Uint8Array): string | undefined {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  if (bytes.length < 512 || bytes.readUInt16LE(510) !== 0xaa55 || bytes.readUInt32LE(440) === 0) return undefined;
  return bytes.readUInt32LE(440).toString(16).padStart(8, "0");
}

/** Gives each disk the best identity that no other disk has; undefined where there is none. */
export function chooseIdentities(candidates: readonly (readonly DiskIdentity[])[]): (DiskIdentity | undefined)[] {
  const uses = new Map<string, number>();
  for (const list of candidates) for (const id of new Set(list.map((one) => one.diskId))) uses.set(id, (uses.get(id) ?? 0) + 1);
  return candidates.map((list) => list.find((one) => uses.get(one.diskId) === 1));
}
