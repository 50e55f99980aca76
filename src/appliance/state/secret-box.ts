// Secrets at rest: AES-256-GCM under a key file that never leaves the appliance; each secret is bound to its purpose.

import { createCipheriv, createDecipheriv } from "node:crypto";
import { readFile } from "node:fs/promises";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const algorithm = "aes-256-gcm";

export interface SecretBox {
  /** Sealed text, bound to `purpose`: opened under another purpose it is refused. */
  seal(purpose: string, plain: string): Uint8Array;
  /** Throws DataDamaged when the bytes were changed or sealed by another key or for another purpose. */
  open(purpose: string, sealed: Uint8Array): string;
}

/** Opens the key file, made at the first call with mode 0600. */
export async function openSecretBox(keyFile: string, random: Random): Promise<SecretBox> {
  const key = (await readKey(keyFile)) ?? (await createKey(keyFile, random));
  return {
    seal: (purpose, plain) => {
      const nonce = random.bytes(nonceBytes);
      const cipher = createCipheriv(algorithm, key, nonce);
      cipher.setAAD(Buffer.from(purpose, "utf8"));
      const body = Buffer.concat([cipher.update(plain, "utf8"), cipher.final()]);
      return Buffer.concat([nonce, cipher.getAuthTag(), body]);
    },
    open: (purpose, sealed) => {
      try {
        const decipher = createDecipheriv(algorithm, key, sealed.subarray(0, nonceBytes), { authTagLength: tagBytes });
        decipher.setAAD(Buffer.from(purpose, "utf8"));
        decipher.setAuthTag(sealed.subarray(nonceBytes, nonceBytes + tagBytes));
        return Buffer.concat([decipher.update(sealed.subarray(nonceBytes + tagBytes)), decipher.final()]).toString("utf8");
      } catch (error) {
        throw new Fault("DataDamaged", `could not open the appliance's secret for ${purpose}`, {
          causes: ["the key file was replaced", "the state database was changed"],
          action: "restore the key file and the database of the same appliance, or enter the secret again",
          evidence: { keyFile },
          cause: error,
        });
      }
    },
  };
}

async function readKey(keyFile: string): Promise<Uint8Array | undefined> {
  const key = await readFile(keyFile).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (key === undefined || key.length === keyBytes) return key;
  throw new Fault("DataDamaged", "could not read the appliance's key file: its size is wrong", { evidence: { keyFile } });
}

async function createKey(keyFile: string, random: Random): Promise<Uint8Array> {
  const key = random.bytes(keyBytes);
  await writeFileAtomic(keyFile, key, { mode: 0o600 });
  return key;
}
