// Bytes of a point object: header and one sealed JSON text. Layout: docs/design/vault-format.md, Point object.

import { z } from "zod";
import type { Random } from "../base/random.ts";
import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import { byteRangeShape } from "../contract/agent-control.ts";
import { parsePackId, type MachineId, type PackId, type PointId } from "../contract/ids.ts";
import { countShape, digestShape, diskIdShape, machineIdShape, pointIdShape } from "../contract/shapes.ts";
import { asBuffer } from "../disk/digest.ts";
import type { StoreKey } from "../store/store.ts";
import { createObjectSealer, saltBytes, tagBytes, type VaultSecret } from "./sealing.ts";
import type { RecoveryPoint } from "./vault.ts";

const headerBytes = 48;
const textBytesMax = 4 << 20;
const formatVersion = 1;
const magic = Buffer.from("WTRPOIN\0", "latin1");

const pointShape = z.strictObject({
  format: z.literal(1),
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
});

/** A point with the packs that were written for it. */
export interface StoredPoint {
  readonly point: RecoveryPoint;
  readonly packIds: readonly PackId[];
}

export function pointKeyOf(machineId: MachineId, pointId: PointId): StoreKey {
  return `points/${machineId}/${pointId}`;
}

export function encodePoint(secret: VaultSecret, random: Random, { point, packIds }: StoredPoint): Buffer {
  const plain = Buffer.from(JSON.stringify({ format: 1, ...point, packIds }), "utf8");
  assert(plain.length <= textBytesMax, "a recovery point's text fits its maximum");
  const bytes = Buffer.alloc(headerBytes + plain.length + tagBytes);
  const salt = random.bytes(saltBytes);
  bytes.set(magic);
  bytes.writeUInt16BE(formatVersion, 8);
  bytes.set(salt, 16);
  createObjectSealer(secret, pointKeyOf(point.machineId, point.pointId), salt).seal("point", plain, bytes, headerBytes);
  return bytes;
}

/** Opens and checks a point object that was found under `key`. */
export function parsePoint(secret: VaultSecret, key: StoreKey, object: Uint8Array): StoredPoint {
  const bytes = asBuffer(object);
  if (bytes.length < headerBytes + tagBytes || bytes.length > headerBytes + textBytesMax + tagBytes)
    throw damagedPoint(key, "it has a wrong size");
  if (!bytes.subarray(0, 8).equals(magic)) throw damagedPoint(key, "it does not begin as one");
  if (bytes.readUInt16BE(8) !== formatVersion) throw damagedPoint(key, "it has a version that this program does not know");
  if (!bytes.subarray(10, 16).equals(Buffer.alloc(6))) throw damagedPoint(key, "its header has unknown content");
  const salt = bytes.subarray(16, headerBytes);
  const plain = createObjectSealer(secret, key, salt).open("point", bytes.subarray(headerBytes), headerBytes);
  if (plain === undefined) throw damagedPoint(key, "its seal is broken");
  const parsed = pointShape.safeParse(JSON.parse(plain.toString("utf8")));
  if (!parsed.success) throw damagedPoint(key, "its content has an unknown form");
  const { format: _, packIds, ...point } = parsed.data;
  if (pointKeyOf(point.machineId, point.pointId) !== key) throw damagedPoint(key, "it names another point");
  return { point, packIds };
}

function damagedPoint(key: StoreKey, finding: string): Fault {
  return new Fault("DataDamaged", `could not read a recovery point: ${finding}`, {
    evidence: { key },
    causes: ["the object was changed or cut in the store", "the vault key is not the one that it was written with"],
  });
}
