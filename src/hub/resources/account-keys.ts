// Names and keys of storage accounts.

import type { Random } from "../../base/random.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
import type { SecretStore } from "../db/secrets.ts";
import { storageAccountType } from "../private-link/link-target.ts";

export const accountNamePattern = /^[a-z0-9]{3,24}$/;
export const accountKeyBytes = 64;
export const keyNames = ["key1", "key2"] as const;
export type KeyName = (typeof keyNames)[number];

/** A key of the account, made at its first use. */
export async function accountKey(
  dependencies: { readonly secrets: SecretStore; readonly random: Random },
  accountId: string,
  name: KeyName,
): Promise<Uint8Array> {
  return await dependencies.secrets.getOrCreate(accountId, name, () => dependencies.random.bytes(accountKeyBytes));
}

/** Account names are DNS names, so one hub has each once. */
export async function findNamed(resources: ResourceStore, name: string): Promise<Resource | undefined> {
  const [first] = await resources.having({ type: storageAccountType, property: "name", value: name });
  return first;
}
