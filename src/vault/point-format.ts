// Bytes of a point object: header and one sealed JSON text. Layout: docs/design/vault-format.md, Point object.

import { z } from "zod";
import type { Random } from "../base/random.ts";
import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import { byteRangeShape } from "../contract/agent-control.ts";
import { parseAreaId, parsePackId, type AreaId, type MachineId, type PackId, type PointId } from "../contract/ids.ts";
import { countShape, digestShape, diskIdShape, machineIdShape, pointIdShape } from "../contract/shapes.ts";
import { asBuffer } from "../disk/digest.ts";
import type { StoreKey } from "../store/store.ts";
import { tagBytes } from "./gcm.ts";
import { createNewSealer, createObjectSealer, formatVersion, newSealHead, saltBytes, type SealHead, type VaultSecret } from "./sealing.ts";
import type { RecoveryPoint } from "./vault.ts";

/** All that is not sealed. */
export const pointHeadBytes = 48;
const headerBytes = pointHeadBytes;
const textBytesMax = 4 << 20;
const magic = Buffer.from("WTRPOIN\0", "latin1");

const pointShape = z.strictObject({
  format: z.literal(formatVersion),
  pointId: pointIdShape,
  machineId: machineIdShape,
  timeMs: countShape,
  consistency: z.enum(["crash", "application", "final"]),
  parentPointId: pointIdShape.exactOptional(),
  disks: z.array(
    z.strictObject({
      diskId: diskIdShape,
      sizeBytes: countShape,
      isBoot: z.boolean(),
      root: digestShape,
      excluded: z.array(byteRangeShape),
    }),
  ),
  packIds: z.array(z.string().transform((text) => parsePackId(text))),
  areaIds: z.array(z.string().transform((text) => parseAreaId(text))).max(256),
  sealedAtMs: countShape,
});

/** A point with what the vault itself needs to know of it. */
export interface StoredPoint {
  readonly point: RecoveryPoint;
  /** Packs that were written for it. */
  readonly packIds: readonly PackId[];
  /** Where its content stands, that of its writer first. */
  readonly areaIds: readonly AreaId[];
  /** By its writer's clock. */
  readonly sealedAtMs: number;
  /** Key generation that the object is sealed with. */
  readonly generation: number;
}

export function pointKeyOf(machineId: MachineId, pointId: PointId): StoreKey {
  return `points/${machineId}/${pointId}`;
}

/** The point as JSON on one line. */
export function toPointText({ point, packIds, areaIds, sealedAtMs }: Omit<StoredPoint, "generation">): string {
  return JSON.stringify({ format: formatVersion, ...point, packIds, areaIds, sealedAtMs });
}

/** Undefined when the text is no point. */
export function parsePointText(text: string): Omit<StoredPoint, "generation"> | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = pointShape.safeParse(json);
  if (!parsed.success) return undefined;
  const { format: _, packIds, areaIds, sealedAtMs, ...point } = parsed.data;
  return { point, packIds, areaIds, sealedAtMs };
}

export function encodePoint(secret: VaultSecret, random: Random, stored: Omit<StoredPoint, "generation">): Buffer {
  const { machineId, pointId } = stored.point;
  const plain = Buffer.from(toPointText(stored), "utf8");
  assert(plain.length <= textBytesMax, "a recovery point's text fits its maximum");
  const bytes = Buffer.alloc(headerBytes + plain.length + tagBytes);
  const head = newSealHead(secret, random.bytes(saltBytes));
  bytes.set(magic);
  bytes.writeUInt16BE(formatVersion, 8);
  bytes.writeUInt32BE(head.generation, 10);
  bytes.set(head.salt, 16);
  createNewSealer(secret, pointKeyOf(machineId, pointId), head).seal("point", plain, bytes, headerBytes);
  return bytes;
}

/** What a point object says of its sealing in its first bytes. */
export function parsePointHead(key: StoreKey, object: Uint8Array): SealHead {
  const bytes = asBuffer(object);
  if (bytes.length < headerBytes) throw damagedPoint(key, "it has a wrong size");
  if (!bytes.subarray(0, 8).equals(magic)) throw damagedPoint(key, "it does not begin as one");
  const version = bytes.readUInt16BE(8);
  if (version !== formatVersion) throw damagedPoint(key, "it has a version that this program does not know");
  const generation = bytes.readUInt32BE(10);
  if (bytes.readUInt16BE(14) !== 0 || generation === 0) throw damagedPoint(key, "its header has unknown content");
  return { generation, salt: bytes.subarray(16, headerBytes) };
}

/** Opens and checks a point object that was found under `key`. */
export function parsePoint(secret: VaultSecret, key: StoreKey, object: Uint8Array): StoredPoint {
  const bytes = asBuffer(object);
  if (bytes.length < headerBytes + tagBytes || bytes.length > headerBytes + textBytesMax + tagBytes)
    throw damagedPoint(key, "it has a wrong size");
  const head = parsePointHead(key, bytes);
  const { generation } = head;
  const sealer = createObjectSealer(secret, key, head);
  if (sealer === undefined) throw damagedPoint(key, `it is sealed with key generation ${generation}, which is not at hand`);
  const plain = sealer.open("point", bytes.subarray(headerBytes), headerBytes);
  if (plain === undefined) throw damagedPoint(key, "its seal is broken");
  const stored = parsePointText(plain.toString("utf8"));
  if (stored === undefined) throw damagedPoint(key, "its content has an unknown form");
  if (pointKeyOf(stored.point.machineId, stored.point.pointId) !== key) throw damagedPoint(key, "it names another point");
  return { ...stored, generation };
}

function damagedPoint(key: StoreKey, finding: string): Fault {
  return new Fault("DataDamaged", `could not read a recovery point: ${finding}`, {
    evidence: { key },
    causes: ["the object was changed or cut in the store", "the vault key is not the one that it was written with"],
  });
}
