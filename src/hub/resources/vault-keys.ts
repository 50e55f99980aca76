// The keys of a vault, read from the hub's secrets; and as they are sent to an appliance that has proved itself.

import type { Kysely } from "kysely";
import type { SentVaultKeys } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import type { VaultKeys } from "../../vault/sealing.ts";
import type { SecretStore } from "../db/secrets.ts";
import type { Tables } from "../db/tables.ts";
import { keyNameOf, readGenerations, type GenerationState } from "../db/vault-keys.ts";

const readable: ReadonlySet<GenerationState> = new Set(["prepared", "current", "former"]);

/** All that may be used; those that are being destroyed are not among them. */
export async function readVaultKeys(
  { db, secrets }: { readonly db: Kysely<Tables>; readonly secrets: SecretStore },
  vaultId: string,
): Promise<VaultKeys> {
  const generations = (await readGenerations(db, vaultId.toLowerCase())).filter(({ state }) => readable.has(state));
  const keys = new Map<number, Uint8Array>();
  for (const { generation } of generations) {
    const key = await secrets.find(vaultId, keyNameOf(generation));
    if (key === undefined)
      throw new Fault("DataDamaged", "could not find the vault's key", {
        evidence: { vault: vaultId, generation },
        action: "restore the hub's database",
      });
    keys.set(generation, key);
  }
  const current = generations.find(({ state }) => state === "current")?.generation;
  if (current !== undefined) return { current, keys };
  throw new Fault("DataDamaged", "could not find the vault's current key", { evidence: { vault: vaultId } });
}

/** Secret: for the answer to an appliance alone. */
export function toSentKeys({ current, keys }: VaultKeys): SentVaultKeys {
  return { current, keys: [...keys].map(([generation, key]) => ({ generation, key: Buffer.from(key).toString("base64") })) };
}
