// Sealing of vault objects: one AES-256-GCM key per object, one nonce per part. Bytes: docs/design/vault-format.md, Sealing.

import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";
import { assert } from "../base/assert.ts";
import type { VaultId } from "../contract/ids.ts";
import type { StoreKey } from "../store/store.ts";

export const tagBytes = 16;
export const saltBytes = 32;
export const vaultKeyBytes = 32;

/** What a sealed part is; a part never opens as another kind. */
export type PartKind = "entry" | "index" | "point";
const associatedData: Readonly<Record<PartKind, Buffer>> = {
  entry: Buffer.of(1),
  index: Buffer.of(2),
  point: Buffer.of(3),
};

/** Seals and opens the parts of one object. */
export interface ObjectSealer {
  /** Writes the sealed part into `into` at `offset`, which is also its offset in the object. Answers the sealed length. */
  seal(kind: PartKind, plain: Uint8Array, into: Uint8Array, offset: number): number;
  /** The plain bytes of the part that stands at `offset`; undefined when it does not open. */
  open(kind: PartKind, sealed: Uint8Array, offset: number): Buffer | undefined;
}

export interface VaultSecret {
  readonly vaultId: VaultId;
  readonly key: Uint8Array;
}

export function createObjectSealer(secret: VaultSecret, objectKey: StoreKey, salt: Uint8Array): ObjectSealer {
  assert(secret.key.length === vaultKeyBytes, "a vault key has 32 bytes");
  assert(salt.length === saltBytes, "a salt has 32 bytes");
  const key = Buffer.from(hkdfSync("sha256", secret.key, salt, `watari vault 1 ${secret.vaultId} ${objectKey}`, 32));
  const nonce = Buffer.alloc(12);
  const setNonce = (offset: number): Buffer => {
    nonce.writeBigUInt64BE(BigInt(offset), 4);
    return nonce;
  };
  return {
    seal: (kind, plain, into, offset) => {
      const cipher = createCipheriv("aes-256-gcm", key, setNonce(offset)).setAAD(associatedData[kind]);
      into.set(cipher.update(plain), offset);
      cipher.final();
      into.set(cipher.getAuthTag(), offset + plain.length);
      return plain.length + tagBytes;
    },
    open: (kind, sealed, offset) => {
      if (sealed.length < tagBytes) return undefined;
      const end = sealed.length - tagBytes;
      const decipher = createDecipheriv("aes-256-gcm", key, setNonce(offset), { authTagLength: tagBytes })
        .setAAD(associatedData[kind])
        .setAuthTag(sealed.subarray(end));
      const plain = decipher.update(sealed.subarray(0, end));
      try {
        decipher.final();
        return plain;
      } catch {
        return undefined; // The only failure of final() is a tag that does not fit.
      }
    },
  };
}
