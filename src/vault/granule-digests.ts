// Digests of granules as a pack keeps them, one record an entry. Bytes: docs/design/vault-format.md, Digests.

import { assert } from "../base/assert.ts";
import { asBuffer, isAllZero } from "../disk/digest.ts";
import { digestRowBytes } from "../disk/block-id.ts";
import { digestBytes, granulesPerBlock } from "../disk/geometry.ts";

/** What an entry says of granules: for a full block those that are not zero, for a patch those that it changes. */
export interface EntryDigests {
  /** One bit a granule; granule 0 is the lowest. */
  readonly mask: number;
  /** 32 bytes for each set bit, in order of granule. */
  readonly digests: Uint8Array;
}

/** Of a page, which has none. */
export const noDigests: EntryDigests = { mask: 0, digests: new Uint8Array(0) };
const maskBytes = 2;
const allGranules = 2 ** granulesPerBlock - 1;
export const recordBytesMax = maskBytes + digestRowBytes;

export function recordBytesOf({ digests }: EntryDigests): number {
  return maskBytes + digests.length;
}

/** Of a full block with this row, which is kept and stays as it is. */
export function digestsOfFull(row: Uint8Array): EntryDigests {
  let mask = 0;
  for (let granule = 0; granule < granulesPerBlock; granule++) if (!isZeroAt(row, granule)) mask |= 1 << granule;
  return mask === allGranules ? { mask, digests: row } : digestsOfPatch(row, mask);
}

/** Of a patch that changes the granules of `mask`, whose content then has this row. */
export function digestsOfPatch(row: Uint8Array, mask: number): EntryDigests {
  assert(row.length === digestRowBytes, "a row has a digest for each granule");
  const digests = new Uint8Array(bitCount(mask) * digestBytes);
  let at = 0;
  for (let granule = 0; granule < granulesPerBlock; granule++) {
    if ((mask & (1 << granule)) === 0) continue;
    digests.set(digestAt(row, granule), at);
    at += digestBytes;
  }
  return { mask, digests };
}

/** Writes what the entry says over a row: of zeros for a full block, of its base for a patch. */
export function applyDigests(row: Uint8Array, { mask, digests }: EntryDigests): void {
  let at = 0;
  for (let granule = 0; granule < granulesPerBlock; granule++) {
    if ((mask & (1 << granule)) === 0) continue;
    row.set(digests.subarray(at, at + digestBytes), granule * digestBytes);
    at += digestBytes;
  }
}

export function encodeDigests(records: readonly EntryDigests[]): Buffer {
  const bytes = Buffer.allocUnsafe(records.reduce((sum, record) => sum + recordBytesOf(record), 0));
  let at = 0;
  for (const { mask, digests } of records) {
    at = bytes.writeUInt16BE(mask, at);
    bytes.set(digests, at);
    at += digests.length;
  }
  return bytes;
}

/** The records of one pack by their entries' ordinals. */
export class PackDigests {
  readonly #bytes: Buffer;
  readonly #starts: Uint32Array;

  private constructor(bytes: Buffer, starts: Uint32Array) {
    this.#bytes = bytes;
    this.#starts = starts;
  }

  /** Undefined when the bytes are not as many records. */
  static parse(plain: Uint8Array, entryCount: number): PackDigests | undefined {
    const bytes = asBuffer(plain);
    const starts = new Uint32Array(entryCount);
    let at = 0;
    for (let ordinal = 0; ordinal < entryCount; ordinal++) {
      if (at + maskBytes > bytes.length) return undefined;
      starts[ordinal] = at;
      at += maskBytes + bitCount(bytes.readUInt16BE(at)) * digestBytes;
    }
    return at === bytes.length ? new PackDigests(bytes, starts) : undefined;
  }

  /** In memory. */
  get byteCount(): number {
    return this.#bytes.length + this.#starts.byteLength;
  }

  /** A view. */
  of(ordinal: number): EntryDigests {
    const at = this.#starts[ordinal];
    assert(at !== undefined, "a pack has a record for each of its entries");
    const mask = this.#bytes.readUInt16BE(at);
    return { mask, digests: this.#bytes.subarray(at + maskBytes, at + maskBytes + bitCount(mask) * digestBytes) };
  }
}

/** Nearly each digest of content shows at its first byte that it is not zero. */
function isZeroAt(row: Uint8Array, granule: number): boolean {
  return row[granule * digestBytes] === 0 && isAllZero(digestAt(row, granule));
}

function digestAt(row: Uint8Array, granule: number): Uint8Array {
  return row.subarray(granule * digestBytes, (granule + 1) * digestBytes);
}

function bitCount(mask: number): number {
  let count = 0;
  for (let bits = mask; bits !== 0; bits &= bits - 1) count += 1;
  return count;
}
