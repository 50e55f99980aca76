// Single facts by name: plain ones, and secrets that are sealed before they reach the disk.

import { readBytes, type StateDatabase } from "./database.ts";
import type { SecretBox } from "./secret-box.ts";

/** Every fact there is. */
export type FactName =
  | "siteAuthorityCertificate"
  | "siteAuthorityKey"
  | "sitePassphrase"
  | "hubRegistration"
  | "hubRegistrationDraft"
  | "hubIdentityDraft"
  | "storageGrant"
  | "vaultKeys"
  | "announcedAddresses"
  | "setupPassword"
  | "setupIdentity"
  | "setupProgress"
  | "setupKey";

export interface SealedFacts {
  read(name: FactName): string | undefined;
  write(name: FactName, value: string): void;
  remove(name: FactName): void;
}

/** All facts are sealed: none of them is of use to a person who reads the file. */
export function createSealedFacts(database: StateDatabase, box: SecretBox): SealedFacts {
  return {
    read: (name) => {
      const row = database.one("SELECT value FROM fact WHERE name = ?", name);
      return row === undefined ? undefined : box.open(`fact ${name}`, readBytes(row, "value"));
    },
    write: (name, value) => {
      const sealed = box.seal(`fact ${name}`, value);
      database.run("INSERT INTO fact (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, sealed);
    },
    remove: (name) => database.run("DELETE FROM fact WHERE name = ?", name),
  };
}
