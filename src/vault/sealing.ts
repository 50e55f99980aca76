// Sealing of vault objects: one AES-256-GCM key per object, one nonce per part. Bytes: docs/design/vault-format.md, Sealing.

import { hkdfSync } from "node:crypto";
import { assert } from "../base/assert.ts";
import type { VaultId } from "../contract/ids.ts";
import type { StoreKey } from "../store/store.ts";
import { gcm, keyBytes, nonceBytes, tagBytes, type GcmSeal } from "./gcm.ts";

/** Of every object; others are refused by name. */
export const formatVersion = 3;
export const saltBytes = 32;
const generationMax = 0xffff_ffff;

/** What a sealed part is; a part never opens as another kind. */
export type PartKind = "entry" | "index" | "point" | "digests";
const associatedData: Readonly<Record<PartKind, Buffer>> = {
  entry: Buffer.of(1),
  index: Buffer.of(2),
  point: Buffer.of(3),
  digests: Buffer.of(4),
};

/** Seals and opens the parts of one object. */
export interface ObjectSealer {
  /** Writes the sealed part into `into` at `offset`, which is also its offset in the object. Answers the sealed length. */
  seal(kind: PartKind, plain: Uint8Array, into: Uint8Array, offset: number): number;
  /** The plain bytes of the part that stands at `offset`; undefined when it does not open. */
  open(kind: PartKind, sealed: Uint8Array, offset: number): Buffer | undefined;
  /** As open, to the start of `into`; answers how many bytes. Undefined also when there is too little room. */
  openInto(kind: PartKind, sealed: Uint8Array, offset: number, into: Uint8Array): number | undefined;
}

/** The keys of a vault by generation; new objects are sealed with the current one. Secret. */
export interface VaultKeys {
  /** From 1 on. */
  readonly current: number;
  readonly keys: ReadonlyMap<number, Uint8Array>;
}

export interface VaultSecret extends VaultKeys {
  readonly vaultId: VaultId;
}

/** What an object says of its own sealing. */
export interface SealHead {
  readonly generation: number;
  readonly salt: Uint8Array;
}

/** A lone key is generation 1. */
export function toVaultSecret(vaultId: VaultId, given: Uint8Array | VaultKeys): VaultSecret {
  const { current, keys } = given instanceof Uint8Array ? { current: 1, keys: new Map([[1, given]]) } : given;
  for (const [generation, key] of keys) {
    assert(Number.isInteger(generation) && generation >= 1 && generation <= generationMax, "a key generation is a number from 1 on");
    assert(key.length === keyBytes, "a vault key has 32 bytes");
  }
  assert(keys.has(current), "the current generation has its key");
  return { vaultId, current, keys: new Map([...keys].map(([generation, key]) => [generation, Uint8Array.from(key)])) };
}

/** From now on these keys are the vault's: for whoever holds the secret. */
export function renewSecret(secret: VaultSecret, given: VaultKeys): void {
  Object.assign(secret, toVaultSecret(secret.vaultId, given));
}

/** The head of an object that is written now. */
export function newSealHead(secret: VaultSecret, salt: Uint8Array): SealHead {
  return { generation: secret.current, salt };
}

/** Undefined when the generation's key is not at hand. */
export function createObjectSealer(secret: VaultSecret, objectKey: StoreKey, head: SealHead): ObjectSealer | undefined {
  assert(head.salt.length === saltBytes, "a salt has 32 bytes");
  const vaultKey = secret.keys.get(head.generation);
  if (vaultKey === undefined) return undefined;
  const key = Buffer.from(hkdfSync("sha256", vaultKey, head.salt, `watari vault ${formatVersion} ${secret.vaultId} ${objectKey}`, 32));
  const nonce = Buffer.alloc(nonceBytes);
  const sealOf = (kind: PartKind, offset: number): GcmSeal => {
    nonce.writeBigUInt64BE(BigInt(offset), 4);
    return { key, nonce, associated: associatedData[kind] };
  };
  const openInto: ObjectSealer["openInto"] = (kind, sealed, offset, into) => {
    const plainBytes = sealed.length - tagBytes;
    if (plainBytes < 0 || plainBytes > into.length || !gcm().open(sealOf(kind, offset), sealed, into)) return undefined;
    return plainBytes;
  };
  return {
    seal: (kind, plain, into, offset) => {
      gcm().seal(sealOf(kind, offset), plain, into.subarray(offset));
      return plain.length + tagBytes;
    },
    open: (kind, sealed, offset) => {
      if (sealed.length < tagBytes) return undefined;
      const plain = Buffer.allocUnsafe(sealed.length - tagBytes);
      return openInto(kind, sealed, offset, plain) === undefined ? undefined : plain;
    },
    openInto,
  };
}

/** As createObjectSealer for a new object: the current key is always at hand. */
export function createNewSealer(secret: VaultSecret, objectKey: StoreKey, head: SealHead): ObjectSealer {
  const sealer = createObjectSealer(secret, objectKey, head);
  assert(sealer !== undefined, "the current generation has its key");
  return sealer;
}
