// A reverse delta file: what makes a source's disks, as they were at its final point, those of the landed machine. Layout: docs/design/reverse-delta.md.

import { createHash, type Hash } from "node:crypto";
import { z } from "zod";
import { countShape, digestShape, diskIdShape, machineIdShape, pointIdShape, timestampShape } from "../../contract/shapes.ts";
import { blockBytes, digestBytes } from "../../disk/geometry.ts";

/** `typ` of the signed manifest. */
export const deltaType = "watari-reverse-delta";
export const deltaMagic = Buffer.from("WTRDELT\0", "latin1");
export const deltaVersion = 1;
export const manifestBytesMax = 1 << 20;
/** Of one file: their ids are in memory while it is applied, about 200 bytes each. */
export const entriesMax = 16 << 20;
/** Magic, version, length of the manifest. */
export const deltaHeadBytes = 16;
/** Disk, packing, length of the body, block, digest before, digest after. */
export const entryHeadBytes = 16 + 2 * digestBytes;
export const packings = ["zero", "raw", "zstd"] as const;

const rangeShape = z.strictObject({ offset: countShape, length: countShape });

export const deltaManifestShape = z.strictObject({
  version: z.literal(deltaVersion),
  vaultId: z.string().max(2048),
  itemId: z.string().max(2048),
  machineName: z.string().max(255),
  machineId: machineIdShape,
  /** The final point of the source: what its disks have to be before. */
  basisPointId: pointIdShape,
  /** The final point of the landed machine: what they are after. */
  pointId: pointIdShape,
  pointTime: timestampShape,
  blockBytes: z.literal(blockBytes),
  disks: z
    .array(
      z.strictObject({
        diskId: diskIdShape,
        sizeBytes: countShape,
        isBoot: z.boolean(),
        /** Never written, and zeros in both roots. */
        excluded: z.array(rangeShape).max(256),
        rootBefore: digestShape,
        rootAfter: digestShape,
        entryCount: countShape,
      }),
    )
    .min(1)
    .max(64),
  entryCount: countShape.max(entriesMax),
  /** SHA-256 over disk, block and both digests of each entry, in order. */
  entriesDigest: digestShape,
});
export type DeltaManifest = z.infer<typeof deltaManifestShape>;

export interface DeltaEntry {
  readonly disk: number;
  readonly block: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

export interface EntryHead extends DeltaEntry {
  readonly packing: (typeof packings)[number];
  readonly bodyBytes: number;
}

export function encodeDeltaHead(manifest: Uint8Array): Buffer {
  const head = Buffer.alloc(deltaHeadBytes);
  head.set(deltaMagic);
  head.writeUInt32BE(deltaVersion, 8);
  head.writeUInt32BE(manifest.length, 12);
  return head;
}

export function encodeEntryHead({ disk, packing, bodyBytes, block, before, after }: EntryHead): Buffer {
  const head = Buffer.alloc(entryHeadBytes);
  head.writeUInt16BE(disk, 0);
  head.writeUInt16BE(packings.indexOf(packing), 2);
  head.writeUInt32BE(bodyBytes, 4);
  head.writeBigUInt64BE(BigInt(block), 8);
  head.set(before, 16);
  head.set(after, 16 + digestBytes);
  return head;
}

/** Undefined for what no writer writes. */
export function decodeEntryHead(head: Uint8Array): EntryHead | undefined {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const packing = packings[bytes.readUInt16BE(2)];
  const bodyBytes = bytes.readUInt32BE(4);
  const block = bytes.readBigUInt64BE(8);
  const isFitting =
    packing === "zero" ? bodyBytes === 0 : packing === "raw" ? bodyBytes === blockBytes : bodyBytes > 0 && bodyBytes < blockBytes;
  if (packing === undefined || !isFitting || block > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  const [before, after] = [
    Buffer.from(bytes.subarray(16, 16 + digestBytes)),
    Buffer.from(bytes.subarray(16 + digestBytes, entryHeadBytes)),
  ];
  return { disk: bytes.readUInt16BE(0), packing, bodyBytes, block: Number(block), before, after };
}

/** Takes the entries in order; `digest` ends it. */
export class EntriesDigest {
  readonly #hash: Hash = createHash("sha256");

  add({ disk, block, before, after }: DeltaEntry): void {
    const row = Buffer.alloc(10);
    row.writeUInt16BE(disk, 0);
    row.writeBigUInt64BE(BigInt(block), 2);
    this.#hash.update(row).update(before).update(after);
  }

  digest(): string {
    return this.#hash.digest("hex");
  }
}
