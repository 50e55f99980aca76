// AES-256-GCM of one part: by the OpenSSL inside the node program, straight from memory to memory, or by the public calls.

import { createCipheriv, createDecipheriv } from "node:crypto";
import { assert } from "../base/assert.ts";

export const keyBytes = 32;
export const nonceBytes = 12;
export const tagBytes = 16;

/** What a part is sealed with. */
export interface GcmSeal {
  /** 32 bytes. Secret. */
  readonly key: Uint8Array;
  /** 12 bytes. */
  readonly nonce: Uint8Array;
  /** One byte. */
  readonly associated: Uint8Array;
}

export interface Gcm {
  /** Writes the sealed bytes and the tag to the start of `into`, which has room for both and shares nothing with `plain`. */
  seal(seal: GcmSeal, plain: Uint8Array, into: Uint8Array): void;
  /** Writes the plain bytes, tagBytes fewer, to the start of `into`; false when the tag does not fit, and then `into` holds anything. */
  open(seal: GcmSeal, sealed: Uint8Array, into: Uint8Array): boolean;
}

let chosen: Gcm | undefined;

export function gcm(): Gcm {
  return (chosen ??= tryNative() ?? publicGcm);
}

const publicGcm: Gcm = {
  seal: ({ key, nonce, associated }, plain, into) => {
    const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(associated);
    into.set(cipher.update(plain));
    cipher.final();
    into.set(cipher.getAuthTag(), plain.length);
  },
  open: ({ key, nonce, associated }, sealed, into) => {
    const end = sealed.length - tagBytes;
    const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: tagBytes })
      .setAAD(associated)
      .setAuthTag(sealed.subarray(end));
    into.set(decipher.update(sealed.subarray(0, end)));
    try {
      decipher.final();
      return true;
    } catch {
      return false; // The only failure of final() is a tag that does not fit.
    }
  },
};

const setTag = 0x11;
const getTag = 0x10;

const pointer = "pointer";
const signatures = {
  EVP_CIPHER_CTX_new: { arguments: [], return: pointer },
  EVP_aes_256_gcm: { arguments: [], return: pointer },
  EVP_CIPHER_CTX_ctrl: { arguments: [pointer, "i32", "i32", pointer], return: "i32" },
  EVP_EncryptInit_ex: { arguments: [pointer, pointer, pointer, pointer, pointer], return: "i32" },
  EVP_EncryptUpdate: { arguments: [pointer, pointer, pointer, pointer, "i32"], return: "i32" },
  EVP_EncryptFinal_ex: { arguments: [pointer, pointer, pointer], return: "i32" },
  EVP_DecryptInit_ex: { arguments: [pointer, pointer, pointer, pointer, pointer], return: "i32" },
  EVP_DecryptUpdate: { arguments: [pointer, pointer, pointer, pointer, "i32"], return: "i32" },
  EVP_DecryptFinal_ex: { arguments: [pointer, pointer, pointer], return: "i32" },
} as const;

/** Two thirds of the time of the public calls for half a block, and no copy. Undefined where a build has it not, or answers otherwise. */
function tryNative(): Gcm | undefined {
  try {
    const native = nativeGcm();
    return native !== undefined && passesSelfTest(native) ? native : undefined;
  } catch {
    return undefined;
  }
}

function nativeGcm(): Gcm | undefined {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined) return undefined;
  const calls = ffi.dlopen(null, signatures).functions;
  // One context each way for the life of the thread: a new key costs less than a new context. Nothing here is called while another call runs.
  const [sealing, opening] = [calls.EVP_CIPHER_CTX_new(), calls.EVP_CIPHER_CTX_new()];
  const cipher = calls.EVP_aes_256_gcm();
  const isReady =
    sealing !== 0n &&
    opening !== 0n &&
    calls.EVP_EncryptInit_ex(sealing, cipher, 0n, 0n, 0n) === 1 &&
    calls.EVP_DecryptInit_ex(opening, cipher, 0n, 0n, 0n) === 1;
  if (!isReady) return undefined;
  // All that is told by address lies in one memory, which the calls below keep.
  const memory = new Uint8Array(keyBytes + nonceBytes + 4 + 4 + tagBytes);
  const nonceFrom = keyBytes;
  const associatedFrom = nonceFrom + nonceBytes;
  const lengthFrom = associatedFrom + 4;
  const tagFrom = lengthFrom + 4;
  const at = ffi.getRawPointer(memory);
  const [nonceAt, associatedAt] = [at + BigInt(nonceFrom), at + BigInt(associatedFrom)];
  const [lengthAt, tagAt] = [at + BigInt(lengthFrom), at + BigInt(tagFrom)];
  const put = ({ key, nonce, associated }: GcmSeal): void => {
    assert(key.length === keyBytes && nonce.length === nonceBytes && associated.length === 1, "a seal has a key, a nonce and one byte");
    memory.set(key);
    memory.set(nonce, nonceFrom);
    memory.set(associated, associatedFrom);
  };
  return {
    seal: (seal, plain, into) => {
      assert(into.length >= plain.length + tagBytes, "there is room for what is sealed");
      put(seal);
      const target = ffi.getRawPointer(into);
      const isSealed =
        calls.EVP_EncryptInit_ex(sealing, 0n, 0n, at, nonceAt) === 1 &&
        calls.EVP_EncryptUpdate(sealing, 0n, lengthAt, associatedAt, 1) === 1 &&
        calls.EVP_EncryptUpdate(sealing, target, lengthAt, ffi.getRawPointer(plain), plain.length) === 1 &&
        calls.EVP_EncryptFinal_ex(sealing, tagAt, lengthAt) === 1 &&
        calls.EVP_CIPHER_CTX_ctrl(sealing, getTag, tagBytes, tagAt) === 1;
      assert(isSealed, "what is in memory can be sealed");
      into.set(memory.subarray(tagFrom, tagFrom + tagBytes), plain.length);
    },
    open: (seal, sealed, into) => {
      const end = sealed.length - tagBytes;
      assert(end >= 0 && into.length >= end, "there is room for what is opened");
      put(seal);
      memory.set(sealed.subarray(end), tagFrom);
      const target = ffi.getRawPointer(into);
      return (
        calls.EVP_DecryptInit_ex(opening, 0n, 0n, at, nonceAt) === 1 &&
        calls.EVP_CIPHER_CTX_ctrl(opening, setTag, tagBytes, tagAt) === 1 &&
        calls.EVP_DecryptUpdate(opening, 0n, lengthAt, associatedAt, 1) === 1 &&
        calls.EVP_DecryptUpdate(opening, target, lengthAt, ffi.getRawPointer(sealed), end) === 1 &&
        calls.EVP_DecryptFinal_ex(opening, target, lengthAt) === 1
      );
    },
  };
}

/** Lengths around the sizes of chunks and of nothing; every part of a seal must matter; a failure must not spoil what follows. */
function passesSelfTest(native: Gcm): boolean {
  for (const length of [0, 1, 15, 16, 17, 4096, 65_537]) {
    const plain = Buffer.alloc(length, `part of ${length}`);
    const seal = {
      key: Buffer.alloc(keyBytes, length + 1),
      nonce: Buffer.alloc(nonceBytes, length + 2),
      associated: Buffer.of(length & 3),
    };
    const [own, expected] = [Buffer.alloc(length + tagBytes + 1), Buffer.alloc(length + tagBytes + 1)];
    native.seal(seal, plain, own);
    publicGcm.seal(seal, plain, expected);
    if (!own.equals(expected)) return false;
    const sealed = expected.subarray(0, length + tagBytes);
    const opened = Buffer.alloc(length + 1);
    const isOpened = (by: GcmSeal, bytes: Uint8Array): boolean => native.open(by, bytes, opened);
    if (!isOpened(seal, sealed) || !opened.subarray(0, length).equals(plain) || opened[length] !== 0) return false;
    const changed = Buffer.from(sealed);
    changed.writeUInt8(changed.readUInt8(length >> 1) ^ 1, length >> 1);
    const others: readonly GcmSeal[] = [
      { ...seal, key: Buffer.alloc(keyBytes) },
      { ...seal, nonce: Buffer.alloc(nonceBytes, 255) },
      { ...seal, associated: Buffer.of(9) },
    ];
    if (isOpened(seal, changed) || others.some((other) => isOpened(other, sealed))) return false;
    if (!isOpened(seal, sealed)) return false;
  }
  return true;
}
