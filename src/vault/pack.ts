// A pack as this process knows it: in the store, or still here and on its way there.

import type { PackId } from "../contract/ids.ts";
import type { MachineId } from "../contract/ids.ts";
import type { Store, StoreKey } from "../store/store.ts";
import { damagedPack, packBytesMax, parseIndex, parseTrailer, trailerBytes, type PackRow } from "./pack-format.ts";
import { createObjectSealer, type ObjectSealer, type VaultSecret } from "./sealing.ts";

/** pending: being written, only its writer may rely on it. stored: durable. dropped: its point was given up. */
export type PackState = "pending" | "stored" | "dropped";

export interface Pack {
  readonly packId: PackId;
  readonly key: StoreKey;
  readonly sealer: ObjectSealer;
  state: PackState;
  /** Bytes of the pack; what is given is the caller's own or never changes. */
  read: (offset: number, length: number) => Promise<Uint8Array>;
}

/** Read at once from a pack's end: holds the index of nearly every pack. */
const tailReadBytes = 256 << 10;

export function packPrefixOf(machineId: MachineId): string {
  return `packs/${machineId}/`;
}

export function packKeyOf(machineId: MachineId, packId: PackId): StoreKey {
  return packPrefixOf(machineId) + packId;
}

/** Reads bytes of a pack in the store. */
export function readFromStore(store: Store, key: StoreKey): Pack["read"] {
  return async (offset, length) => {
    const bytes = await store.get(key, { offset, length });
    if (bytes === undefined) throw damagedPack(key, "it is missing");
    return bytes;
  };
}

/** Opens a pack in the store and gives its rows. */
export async function openStoredPack(
  source: { readonly store: Store; readonly secret: VaultSecret },
  found: { readonly packId: PackId; readonly key: StoreKey; readonly sizeBytes: number },
): Promise<{ readonly pack: Pack; readonly rows: readonly PackRow[] }> {
  const { packId, key, sizeBytes } = found;
  if (sizeBytes > packBytesMax) throw damagedPack(key, "it is larger than a pack may be");
  const read = readFromStore(source.store, key);
  const tailOffset = Math.max(0, sizeBytes - tailReadBytes);
  const tail = await read(tailOffset, sizeBytes - tailOffset);
  const trailer = parseTrailer(key, sizeBytes, tail);
  const sealer = createObjectSealer(source.secret, key, trailer.salt);
  const sealedIndex =
    trailer.indexOffset >= tailOffset
      ? tail.subarray(trailer.indexOffset - tailOffset, tail.length - trailerBytes)
      : await read(trailer.indexOffset, trailer.indexLength);
  const plain = sealer.open("index", sealedIndex, trailer.indexOffset);
  if (plain === undefined) throw damagedPack(key, "the seal of its index is broken");
  return { pack: { packId, key, sealer, state: "stored", read }, rows: [...parseIndex(key, plain, trailer.indexOffset)] };
}
