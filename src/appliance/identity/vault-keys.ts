// The vault's keys on the appliance: sealed beside the registration, taken anew from the hub when it says so.

import type { Log } from "../../base/log.ts";
import { vaultKeysShape, type SentVaultKeys } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import type { VaultKeys } from "../../vault/sealing.ts";
import type { Vault } from "../../vault/vault.ts";
import type { HubClient } from "../hub/hub-client.ts";
import type { SealedFacts } from "../state/facts.ts";
import type { HubRegistration } from "./hub-registration.ts";

export function keepVaultKeys(facts: SealedFacts, sent: SentVaultKeys): void {
  facts.write("vaultKeys", JSON.stringify(sent));
}

/** Registrations of before have one key, of generation 1. */
export function readVaultKeys(facts: SealedFacts, { vault }: Pick<HubRegistration, "vault">): VaultKeys {
  const text = facts.read("vaultKeys");
  return toVaultKeys(
    text === undefined ? { current: 1, keys: [{ generation: 1, key: vault.key }] } : vaultKeysShape.parse(JSON.parse(text)),
  );
}

/** Throws when a key has not its length; never shows one. */
export function toVaultKeys({ current, keys }: SentVaultKeys): VaultKeys {
  const bytes = new Map(keys.map(({ generation, key }) => [generation, Buffer.from(key, "base64")]));
  if (!bytes.has(current) || [...bytes.values()].some(({ length }) => length !== 32))
    throw new Fault(
      "InputInvalid",
      "could not take the vault's keys: the hub's answer has none for the current generation, or one of a wrong length",
      {
        evidence: { current, generations: [...bytes.keys()].join(", ") },
      },
    );
  return { current, keys: bytes };
}

/** May be called again after a kill at any line. Keys that come are kept before they are used; one that goes is used no more before it is forgotten. */
export async function takeVaultKeys(
  parts: { readonly hub: HubClient; readonly facts: SealedFacts; readonly vault: Vault | undefined; readonly log: Log },
  signal?: AbortSignal,
): Promise<{ readonly vaultKeys: { readonly current: number; readonly generations: number[] } }> {
  const { hub, facts, vault, log } = parts;
  const sent = await hub.call("vaultKeys", {}, vaultKeysShape, signal);
  const keys = toVaultKeys(sent);
  const generations = [...keys.keys.keys()].sort((one, other) => one - other);
  const text = facts.read("vaultKeys");
  const before = text === undefined ? [1] : vaultKeysShape.parse(JSON.parse(text)).keys.map(({ generation }) => generation);
  const goes = before.filter((generation) => !keys.keys.has(generation));
  if (goes.length > 0) {
    if (vault === undefined) throw new Fault("StoreUnavailable", "could not give up a vault key: the vault is not reached yet");
    await vault.useKeys(keys);
    keepVaultKeys(facts, sent);
  } else {
    keepVaultKeys(facts, sent);
    await vault?.useKeys(keys);
  }
  log.info("vault keys taken", { current: sent.current, generations: generations.join(" "), gone: goes.join(" ") });
  return { vaultKeys: { current: sent.current, generations } };
}
