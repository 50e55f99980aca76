// Stamps on several filesystems, each durable before the next is written, so that a set of disks either shows one moment or is found out.

import { createHash } from "node:crypto";

/** How stamps lie: stamp n is in file n mod files, in slot n / files mod slots. */
export interface StampLayout {
  readonly files: number;
  readonly slots: number;
}

export const stampBytes = 4096;
const magic = "WSTAMP01";

export interface StampPlace {
  readonly file: number;
  readonly slot: number;
}

export function placeOf({ files, slots }: StampLayout, sequence: number): StampPlace {
  return { file: sequence % files, slot: Math.floor(sequence / files) % slots };
}

/** {checksum, magic, sequence, file, offset, time} and filling, one page. */
export function encodeStamp(
  into: Uint8Array,
  stamp: { readonly sequence: number; readonly place: StampPlace; readonly timeMs: number },
): void {
  const bytes = Buffer.from(into.buffer, into.byteOffset, stampBytes);
  bytes.fill(stamp.sequence % 251);
  bytes.write(magic, 32, "latin1");
  bytes.writeBigUInt64BE(BigInt(stamp.sequence), 40);
  bytes.writeUInt32BE(stamp.place.file, 48);
  bytes.writeBigUInt64BE(BigInt(stamp.place.slot * stampBytes), 52);
  bytes.writeBigUInt64BE(BigInt(Math.round(stamp.timeMs)), 60);
  createHash("sha256").update(bytes.subarray(32)).digest().copy(bytes, 0);
}

/** The sequence of the stamp that lies there; undefined for what is no whole stamp of this place. */
function decodeStamp(page: Uint8Array, place: StampPlace): number | undefined {
  const bytes = Buffer.from(page.buffer, page.byteOffset, page.byteLength);
  const isWhole = createHash("sha256").update(bytes.subarray(32)).digest().equals(bytes.subarray(0, 32));
  if (!isWhole || bytes.toString("latin1", 32, 40) !== magic) return undefined;
  if (bytes.readUInt32BE(48) !== place.file || bytes.readBigUInt64BE(52) !== BigInt(place.slot * stampBytes)) return undefined;
  return Number(bytes.readBigUInt64BE(40));
}

export interface StampVerdict {
  readonly stampCount: number;
  /** The last stamp of the moment that the disks show. */
  readonly newest: number;
  /** Slots that hold another stamp than they did at that moment. */
  readonly wrong: readonly string[];
}

/** Judges whole files: with stamp n there, every earlier one must be, up to those that later ones have replaced. */
export function judgeStamps(layout: StampLayout, files: readonly Uint8Array[]): StampVerdict {
  const found = new Map<string, number | undefined>();
  let newest = 0;
  for (const [file, bytes] of files.entries())
    for (let slot = 0; slot < layout.slots; slot++) {
      const sequence = decodeStamp(bytes.subarray(slot * stampBytes, (slot + 1) * stampBytes), { file, slot });
      found.set(`${file}/${slot}`, sequence);
      newest = Math.max(newest, sequence ?? 0);
    }
  const expected = new Map<string, number>();
  const round = layout.files * layout.slots;
  for (let sequence = Math.max(1, newest - round + 1); sequence <= newest; sequence++) {
    const { file, slot } = placeOf(layout, sequence);
    expected.set(`${file}/${slot}`, sequence);
  }
  const next = placeOf(layout, newest + 1);
  const wrong: string[] = [];
  for (const [key, sequence] of found) {
    const wanted = expected.get(key) ?? 0;
    // The one that was being written at the moment may be torn.
    const isUnderWay = key === `${next.file}/${next.slot}` && sequence === undefined;
    if (sequence !== wanted && !isUnderWay) wrong.push(`file ${key}: ${sequence ?? "no stamp"} instead of ${wanted}`);
  }
  return { stampCount: found.size, newest, wrong };
}
