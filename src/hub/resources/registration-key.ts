// Registration keys: the file that an operator carries to an appliance. Works once, for five days at most.

import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { privateServices, registrationKeyShape, type RegistrationKey } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import type { RegistrationKeys } from "../db/registration-keys.ts";
import type { Resource } from "../db/resources.ts";
import type { DnsSettings } from "./dns-settings.ts";
import type { VaultAccess } from "./vault-access.ts";
import { keySecondsMax, storedVaultShape, type KeyWish } from "./vaults.ts";

export interface RegistrationKeyMaker {
  /** Fault StateConflict while the vault has no private endpoint; the faults of VaultAccess.open when its storage is not ready. */
  make(vault: Resource, wish?: KeyWish): Promise<RegistrationKey>;
}

const secretBytes = 32;

export function createRegistrationKeyMaker(dependencies: {
  readonly keys: RegistrationKeys;
  readonly dnsSettings: DnsSettings;
  readonly vaults: VaultAccess;
  /** The vault with its storage account, once it can be known. */
  readonly settleStorage: (vault: Resource) => Promise<Resource>;
  readonly publicNames: readonly string[];
  readonly caPem: string;
  readonly clock: Clock;
  readonly random: Random;
}): RegistrationKeyMaker {
  const { keys, dnsSettings, vaults, settleStorage, publicNames, caPem, clock, random } = dependencies;
  return {
    make: async (named, { validSeconds = keySecondsMax } = {}) => {
      const vault = await settleStorage(named);
      const names = await dnsSettings.ofVault(vault);
      const serviceName = (service: string): string | undefined =>
        names.find((name) => name.member === service && name.resourceId.toLowerCase() === vault.id.key)?.name;
      const missing = privateServices.filter((service) => serviceName(service) === undefined);
      if (missing.length > 0)
        throw new Fault("StateConflict", `could not make a registration key for the vault ${vault.id.name}: it has no private endpoint`, {
          evidence: { missing },
          causes: ["the private endpoint was not created yet"],
          action: `create a private endpoint of the vault with the group id AzureSiteRecovery`,
          retry: "never",
        });
      await vaults.open(vault.id.text); // An appliance that could not store anything must not be registered.
      const keyId = random.uuid();
      const secret = random.bytes(secretBytes);
      const expiresAtMs = clock.nowMs() + validSeconds * 1000;
      await keys.add({ keyId, vaultId: vault.id.text, secret, expiresAtMs });
      return registrationKeyShape.parse({
        format: "watari-registration-key-1",
        vaultId: storedVaultShape.parse(vault.properties).watariVaultId,
        vaultResourceId: vault.id.text,
        services: Object.fromEntries(privateServices.map((service) => [service, serviceName(service)])),
        privateNames: [...new Set(names.map((name) => name.name))],
        privateRanges: [...new Set(names.map((name) => name.range))],
        publicNames,
        hubCaPem: caPem,
        keyId,
        secret: Buffer.from(secret).toString("base64url"),
        expiresAt: toTimestamp(expiresAtMs),
      } satisfies Record<keyof RegistrationKey, unknown>);
    },
  };
}
