// The list of a kept index: its runs, and the packs all of whose entries are in them. Bytes: docs/design/vault-format.md, Index of entries.

import { crc32 } from "node:zlib";
import { parseAreaId, parseMachineId, parsePackId, type AreaId, type MachineId, type PackId } from "../contract/ids.ts";
import { formatVersion, saltBytes, type SealHead } from "./sealing.ts";

/** A pack whose entries need not be read from its end again. */
export interface KeptPack {
  readonly number: number;
  readonly packId: PackId;
  readonly areaId: AreaId;
  readonly ownerId: MachineId;
  readonly writtenAtMs: number;
  readonly sizeBytes: number;
  readonly entryBytes: number;
  readonly digestBytes: number;
  readonly entryCount: number;
  readonly sealHead: SealHead;
}

export interface IndexManifest {
  readonly runSerials: readonly number[];
  /** No row of a run names this pack number or a later one. */
  readonly nextPackNumber: number;
  readonly packs: readonly KeptPack[];
}

const magic = Buffer.from("WTRLIST2", "latin1");
const headBytes = 24;
const packRecordBytes = 116;
/** Records that are worked on before others may run. */
const sliceRecords = 4096;

export async function encodeManifest({ runSerials, nextPackNumber, packs }: IndexManifest): Promise<Buffer> {
  const bytes = Buffer.alloc(headBytes + runSerials.length * 4 + packs.length * packRecordBytes + 4);
  magic.copy(bytes);
  bytes.writeUInt32BE(runSerials.length, 8);
  bytes.writeUInt32BE(packs.length, 12);
  bytes.writeUInt32BE(nextPackNumber, 16);
  let at = headBytes;
  for (const serial of runSerials) at = bytes.writeUInt32BE(serial, at);
  for (const [index, pack] of packs.entries()) {
    writePack(bytes, at, pack);
    at += packRecordBytes;
    if (index % sliceRecords === sliceRecords - 1) await letOthersRun();
  }
  bytes.writeUInt32BE(crc32(bytes.subarray(0, at)), at);
  return bytes;
}

/** Undefined when it is not what was written, by this version of the program. */
export async function parseManifest(bytes: Buffer): Promise<IndexManifest | undefined> {
  if (bytes.length < headBytes + 4 || !bytes.subarray(0, magic.length).equals(magic)) return undefined;
  const [runCount, packCount] = [bytes.readUInt32BE(8), bytes.readUInt32BE(12)];
  const sumAt = headBytes + runCount * 4 + packCount * packRecordBytes;
  if (bytes.length !== sumAt + 4 || bytes.readUInt32BE(sumAt) !== crc32(bytes.subarray(0, sumAt))) return undefined;
  const runSerials = Array.from({ length: runCount }, (_, index) => bytes.readUInt32BE(headBytes + index * 4));
  const packs: KeptPack[] = [];
  for (let at = headBytes + runCount * 4; at < sumAt; at += packRecordBytes) {
    if (bytes.readUInt32BE(at + 72) !== formatVersion) return undefined;
    packs.push(readPack(bytes, at));
    if (packs.length % sliceRecords === 0) await letOthersRun();
  }
  return { runSerials, nextPackNumber: bytes.readUInt32BE(16), packs };
}

function writePack(bytes: Buffer, at: number, pack: KeptPack): void {
  bytes.writeUInt32BE(pack.number, at);
  bytes.write(pack.packId.replaceAll("-", ""), at + 4, "hex");
  bytes.write(pack.areaId.replaceAll("-", ""), at + 20, "hex");
  bytes.write(pack.ownerId.replaceAll("-", ""), at + 36, "hex");
  bytes.writeDoubleBE(pack.writtenAtMs, at + 52);
  bytes.writeUInt32BE(pack.sizeBytes, at + 60);
  bytes.writeUInt32BE(pack.entryBytes, at + 64);
  bytes.writeUInt32BE(pack.entryCount, at + 68);
  bytes.writeUInt32BE(formatVersion, at + 72);
  bytes.writeUInt32BE(pack.sealHead.generation, at + 76);
  bytes.set(pack.sealHead.salt, at + 80);
  bytes.writeUInt32BE(pack.digestBytes, at + 112);
}

function readPack(bytes: Buffer, at: number): KeptPack {
  return {
    number: bytes.readUInt32BE(at),
    packId: parsePackId(uuidAt(bytes, at + 4)),
    areaId: parseAreaId(uuidAt(bytes, at + 20)),
    ownerId: parseMachineId(uuidAt(bytes, at + 36)),
    writtenAtMs: bytes.readDoubleBE(at + 52),
    sizeBytes: bytes.readUInt32BE(at + 60),
    entryBytes: bytes.readUInt32BE(at + 64),
    entryCount: bytes.readUInt32BE(at + 68),
    digestBytes: bytes.readUInt32BE(at + 112),
    sealHead: { generation: bytes.readUInt32BE(at + 76), salt: Uint8Array.from(bytes.subarray(at + 80, at + 80 + saltBytes)) },
  };
}

function uuidAt(bytes: Buffer, at: number): string {
  return bytes.toString("hex", at, at + 16).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

async function letOthersRun(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}
