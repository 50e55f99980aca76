// A pack as this process knows it: in the store, or still here and on its way there.

import type { AreaId, MachineId, PackId } from "../contract/ids.ts";
import type { Store, StoreKey } from "../store/store.ts";
import { damagedPack, packBytesMax, parseIndex, parseTrailer, trailerBytes, type PackIndex } from "./pack-format.ts";
import { createObjectSealer, type ObjectSealer, type VaultSecret } from "./sealing.ts";

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
  /** Key generation that it is sealed with. */
  readonly generation: number;
  readonly writtenAtMs: number;
  readonly sealer: ObjectSealer;
  /** The point under way that writes it; undefined when it was found in the store. */
  readonly writer: object | undefined;
  /** 0 until it is closed. */
  sizeBytes: number;
  /** Of its entries alone; 0 until it is closed. */
  entryBytes: number;
  state: PackState;
  /** Bytes of the pack; what is given is the caller's own or never changes. Undefined when the store has the pack no more. */
  read: (offset: number, length: number) => Promise<Uint8Array | undefined>;
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
  const { indexOffset, indexLength, sealHead } = parseTrailer(key, sizeBytes, tail);
  const sealer = createObjectSealer(source.secret, key, sealHead);
  if (sealer === undefined) throw damagedPack(key, `it is sealed with key generation ${sealHead.generation}, which is not at hand`);
  const sealedIndex =
    indexOffset >= tailOffset ? tail.subarray(indexOffset - tailOffset, tail.length - trailerBytes) : await read(indexOffset, indexLength);
  if (sealedIndex === undefined) return undefined;
  const plain = sealer.open("index", sealedIndex, indexOffset);
  if (plain === undefined) throw damagedPack(key, "the seal of its index is broken");
  const index = parseIndex({ key, areaId, version: sealHead.version }, plain, indexOffset);
  const { ownerId, writtenAtMs } = index;
  const { generation } = sealHead;
  const facts = { packId, key, areaId, ownerId, generation, writtenAtMs, sizeBytes, entryBytes: indexOffset };
  const pack: Pack = { ...facts, sealer, writer: undefined, state: "stored", read };
  return { pack, index };
}
