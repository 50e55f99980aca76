// Secrets at rest: AES-256-GCM under the hub's master key file, bound to their owner and name; never in clear in the database.

import { createCipheriv, createDecipheriv } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Kysely } from "kysely";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import type { Tables } from "./tables.ts";

/** Seals and opens bytes; `label` is bound in, so that a sealed value cannot be moved to another place. */
export interface Sealer {
  seal(label: string, secret: Uint8Array): Uint8Array;
  open(label: string, sealed: Uint8Array): Uint8Array;
}

export interface SecretStore {
  readonly sealer: Sealer;
  /** Stores what `make` gives when there is none yet; answers the stored one. */
  getOrCreate(ownerId: string, name: string, make: () => Uint8Array): Promise<Uint8Array>;
  find(ownerId: string, name: string): Promise<Uint8Array | undefined>;
  replace(ownerId: string, name: string, secret: Uint8Array): Promise<void>;
  /** Removes every secret of the owner and of what lies below it. */
  removeAll(ownerId: string): Promise<void>;
}

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const version = 1;

/** Reads the master key file, or makes it on the first start. */
export async function openMasterKey(path: string, random: Random): Promise<Uint8Array> {
  const present = await readFile(path).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (present === undefined) {
    const fresh = random.bytes(keyBytes);
    await writeFileAtomic(path, fresh, { mode: 0o600 });
    return fresh;
  }
  if (present.length !== keyBytes)
    throw new Fault("DataDamaged", "could not read the hub's master key: the file has the wrong size", { evidence: { path } });
  return present;
}

export function createSealer(masterKey: Uint8Array, random: Random): Sealer {
  return {
    seal: (label, secret) => {
      const nonce = random.bytes(nonceBytes);
      const cipher = createCipheriv("aes-256-gcm", masterKey, nonce).setAAD(Buffer.from(label, "utf8"));
      const sealed = Buffer.concat([cipher.update(secret), cipher.final()]);
      return Buffer.concat([Uint8Array.of(version), nonce, cipher.getAuthTag(), sealed]);
    },
    open: (label, sealed) => {
      const body = 1 + nonceBytes + tagBytes;
      if (sealed[0] !== version || sealed.length < body) throw damaged(label);
      const decipher = createDecipheriv("aes-256-gcm", masterKey, sealed.subarray(1, 1 + nonceBytes));
      decipher.setAAD(Buffer.from(label, "utf8")).setAuthTag(sealed.subarray(1 + nonceBytes, body));
      try {
        return Buffer.concat([decipher.update(sealed.subarray(body)), decipher.final()]);
      } catch (error) {
        throw damaged(label, error);
      }
    },
  };
}

export function openSecretStore(dependencies: { readonly db: Kysely<Tables>; readonly sealer: Sealer }): SecretStore {
  const { db, sealer } = dependencies;
  const find = async (ownerId: string, name: string): Promise<Uint8Array | undefined> => {
    const key = ownerId.toLowerCase();
    const row = await db.selectFrom("secrets").select("sealed").where("owner_key", "=", key).where("name", "=", name).executeTakeFirst();
    return row === undefined ? undefined : sealer.open(toLabel(key, name), row.sealed);
  };
  const put = async (ownerId: string, name: string, secret: Uint8Array, isReplacing: "keep" | "replace"): Promise<void> => {
    const key = ownerId.toLowerCase();
    const sealed = sealer.seal(toLabel(key, name), secret);
    await db
      .insertInto("secrets")
      .values({ owner_key: key, name, sealed })
      .onConflict((conflict) =>
        isReplacing === "keep"
          ? conflict.columns(["owner_key", "name"]).doNothing()
          : conflict.columns(["owner_key", "name"]).doUpdateSet({ sealed }),
      )
      .execute();
  };
  return {
    sealer,
    find,
    getOrCreate: async (ownerId, name, make) => {
      const present = await find(ownerId, name);
      if (present !== undefined) return present;
      await put(ownerId, name, make(), "keep");
      const stored = await find(ownerId, name);
      if (stored === undefined) throw new Fault("StateConflict", `could not keep the secret ${name}: its owner is being removed`);
      return stored;
    },
    replace: (ownerId, name, secret) => put(ownerId, name, secret, "replace"),
    removeAll: async (ownerId) => {
      const key = ownerId.toLowerCase();
      await db
        .deleteFrom("secrets")
        .where((where) => where.or([where("owner_key", "=", key), where("owner_key", "like", `${key.replace(/[\\%_]/g, "\\$&")}/%`)]))
        .execute();
    },
  };
}

function toLabel(ownerKey: string, name: string): string {
  return `${ownerKey}#${name}`;
}

function damaged(label: string, cause?: unknown): Fault {
  return new Fault("DataDamaged", `could not open the secret ${label}: it was not sealed with this hub's master key`, {
    causes: ["the master key file was replaced", "the database belongs to another hub", "the row was changed"],
    action: "restore the master key file that belongs to this database",
    cause,
  });
}
