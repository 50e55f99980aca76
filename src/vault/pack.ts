// A pack as this process knows it: in the store, or still here and on its way there.

import type { AreaId, MachineId, PackId } from "../contract/ids.ts";
import type { Store, StoreKey } from "../store/store.ts";
import { PackDigests, type EntryDigests } from "./granule-digests.ts";
import type { KeptPack } from "./index-manifest.ts";
import { damagedPack, packBytesMax, parseIndex, parseTrailer, trailerBytes, type PackIndex } from "./pack-format.ts";
import { createObjectSealer, type ObjectSealer, type SealHead, type VaultSecret } from "./sealing.ts";

/**
 * pending: being written, only its point may rely on it. stored: durable. draining: durable, but about to be removed, so that nothing
 * new may rely on it. dropped: given up, or removed.
 */
export type PackState = "pending" | "stored" | "draining" | "dropped";

export interface Pack {
  readonly packId: PackId;
  readonly key: StoreKey;
  readonly areaId: AreaId;
  readonly ownerId: MachineId;
  readonly sealHead: SealHead;
  readonly writtenAtMs: number;
  readonly sealer: ObjectSealer;
  /** The point under way that writes it; undefined when it was found in the store. */
  readonly writer: object | undefined;
  /** What names it in the index; given by Entries.addPack. */
  number: number;
  /** Entries that the index was given. */
  entryCount: number;
  /** Table of the index that took the last of them. */
  lastTable: number;
  /** 0 until it is closed. */
  sizeBytes: number;
  /** Of its entries alone; 0 until it is closed. The digests stand behind them. */
  entryBytes: number;
  /** Of the sealed digests; 0 until it is closed. */
  digestBytes: number;
  /** While it is being written and travels: the digests are not to be read from its bytes yet. */
  pendingDigests: (() => Promise<DigestSource>) | undefined;
  state: PackState;
  /** Bytes of the pack; what is given is the caller's own or never changes. Undefined when the store has the pack no more. */
  read: (offset: number, length: number) => Promise<Uint8Array | undefined>;
}

/** Digests of a pack's entries by their ordinals. */
export interface DigestSource {
  of(ordinal: number): EntryDigests;
}

/** Read at once from a pack's end: holds the index of nearly every pack. */
const tailReadBytes = 256 << 10;

export function packPrefixOf(areaId: AreaId): string {
  return `packs/${areaId}/`;
}

export function packKeyOf(areaId: AreaId, packId: PackId): StoreKey {
  return packPrefixOf(areaId) + packId;
}

/** Reads bytes of a pack in the store. */
export function readFromStore(store: Store, key: StoreKey): Pack["read"] {
  return async (offset, length) => await store.get(key, { offset, length });
}

export interface FoundPack {
  readonly packId: PackId;
  readonly areaId: AreaId;
  readonly key: StoreKey;
  readonly sizeBytes: number;
}

/** Opens a pack in the store and gives its index; undefined when it was removed since it was found. */
export async function openStoredPack(
  source: { readonly store: Store; readonly secret: VaultSecret },
  found: FoundPack,
): Promise<{ readonly pack: Pack; readonly index: PackIndex } | undefined> {
  const { packId, areaId, key, sizeBytes } = found;
  if (sizeBytes > packBytesMax) throw damagedPack(key, "it is larger than a pack may be");
  const read = readFromStore(source.store, key);
  const tailOffset = Math.max(0, sizeBytes - tailReadBytes);
  const tail = await read(tailOffset, sizeBytes - tailOffset);
  if (tail === undefined) return undefined;
  const { indexOffset, indexLength, digestBytes, sealHead } = parseTrailer(key, sizeBytes, tail);
  const sealer = sealerOf(source.secret, key, sealHead);
  const sealedIndex =
    indexOffset >= tailOffset ? tail.subarray(indexOffset - tailOffset, tail.length - trailerBytes) : await read(indexOffset, indexLength);
  if (sealedIndex === undefined) return undefined;
  const plain = sealer.open("index", sealedIndex, indexOffset);
  if (plain === undefined) throw damagedPack(key, "the seal of its index is broken");
  const index = parseIndex(key, plain, indexOffset - digestBytes);
  const { ownerId, writtenAtMs } = index;
  const facts = { packId, key, areaId, ownerId, sealHead, writtenAtMs, sizeBytes, entryBytes: indexOffset - digestBytes, digestBytes };
  const pack: Pack = { ...facts, ...unnumbered, sealer, writer: undefined, pendingDigests: undefined, state: "stored", read };
  return { pack, index };
}

/** The digests of a pack in the store; undefined when it was removed since. */
export async function readDigests(pack: Pack): Promise<PackDigests | undefined> {
  const sealed = await pack.read(pack.entryBytes, pack.digestBytes);
  if (sealed === undefined) return undefined;
  const plain = pack.sealer.open("digests", sealed, pack.entryBytes);
  if (plain === undefined) throw damagedPack(pack.key, "the seal of its digests is broken");
  const digests = PackDigests.parse(plain, pack.entryCount);
  if (digests === undefined) throw damagedPack(pack.key, "its digests are not one record for each of its entries");
  return digests;
}

/** What Entries.addPack gives a pack. */
export const unnumbered = { number: -1, entryCount: 0, lastTable: 0 } as const;

/** A pack that the store has and whose entries are known from before. */
export class RememberedPack implements Pack {
  readonly packId: PackId;
  readonly key: StoreKey;
  readonly areaId: AreaId;
  readonly ownerId: MachineId;
  readonly sealHead: SealHead;
  readonly writtenAtMs: number;
  readonly writer = undefined;
  readonly read: Pack["read"];
  number: number;
  entryCount: number;
  lastTable = 0;
  sizeBytes: number;
  entryBytes: number;
  digestBytes: number;
  pendingDigests: undefined;
  state: PackState = "stored";
  readonly #source: { readonly store: Store; readonly secret: VaultSecret };
  #sealer: ObjectSealer | undefined;

  constructor(source: { readonly store: Store; readonly secret: VaultSecret }, kept: KeptPack) {
    this.#source = source;
    this.packId = kept.packId;
    this.areaId = kept.areaId;
    this.key = packKeyOf(kept.areaId, kept.packId);
    this.ownerId = kept.ownerId;
    this.sealHead = kept.sealHead;
    this.writtenAtMs = kept.writtenAtMs;
    this.number = kept.number;
    this.entryCount = kept.entryCount;
    this.sizeBytes = kept.sizeBytes;
    this.entryBytes = kept.entryBytes;
    this.digestBytes = kept.digestBytes;
    this.read = readFromStore(source.store, this.key);
  }

  /** Its key is derived when it is first wanted. */
  get sealer(): ObjectSealer {
    return (this.#sealer ??= sealerOf(this.#source.secret, this.key, this.sealHead));
  }
}

function sealerOf(secret: VaultSecret, key: StoreKey, sealHead: SealHead): ObjectSealer {
  const sealer = createObjectSealer(secret, key, sealHead);
  if (sealer === undefined) throw damagedPack(key, `it is sealed with key generation ${sealHead.generation}, which is not at hand`);
  return sealer;
}
