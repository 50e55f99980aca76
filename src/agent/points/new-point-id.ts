// Names of points: later ones sort after earlier ones.

import type { Random } from "../../base/random.ts";
import { parsePointId, type PointId } from "../../contract/ids.ts";

/** A UUID of version 7 (RFC 9562): 48 bits of time, then randomness. */
export function newPointId(nowMs: number, random: Random): PointId {
  const bytes = Buffer.from(random.bytes(16));
  bytes.writeUIntBE(nowMs, 0, 6);
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  const hex = bytes.toString("hex");
  return parsePointId([hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-"));
}
