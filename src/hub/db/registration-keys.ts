// Registration keys of vaults: kept sealed, used once, for a limited time. After use the secret is gone.

import type { Kysely } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ApplianceId } from "../../contract/ids.ts";
import type { Sealer } from "./secrets.ts";
import type { Tables } from "./tables.ts";

interface KeyProof {
  readonly keyId: string;
  /** Resource id of the vault whose name was called. */
  readonly vaultId: string;
  readonly isProved: (secret: Uint8Array) => boolean;
}

/** Faults of check and use: Unauthorized (unknown, another vault's, or a wrong proof), KeyUsed, KeyExpired. */
export interface RegistrationKeys {
  add(key: { readonly keyId: string; readonly vaultId: string; readonly secret: Uint8Array; readonly expiresAtMs: number }): Promise<void>;
  /** Whether the key would work now; changes nothing. */
  check(wanted: KeyProof): Promise<void>;
  /** Uses the key up and forgets its secret, within the transaction that stores the appliance. */
  use(wanted: KeyProof & { readonly applianceId: ApplianceId; readonly transaction: Kysely<Tables> }): Promise<void>;
}

const label = (keyId: string): string => `registration-key#${keyId}`;
const keyIdPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly clock: Clock;
  readonly sealer: Sealer;
}

export function openRegistrationKeys(dependencies: Dependencies): RegistrationKeys {
  const { db, clock, sealer } = dependencies;
  return {
    add: async (key) => {
      await db
        .insertInto("registration_keys")
        .values({
          key_id: key.keyId,
          vault_key: key.vaultId.toLowerCase(),
          sealed: sealer.seal(label(key.keyId), key.secret),
          expires_at: toTimestamp(key.expiresAtMs),
          used_at: null,
          appliance_id: null,
        })
        .execute();
    },
    check: (wanted) => prove(dependencies, db, wanted),
    use: async (wanted) => {
      await prove(dependencies, wanted.transaction, wanted);
      await wanted.transaction
        .updateTable("registration_keys")
        .set({ used_at: toTimestamp(clock.nowMs()), appliance_id: wanted.applianceId, sealed: null })
        .where("key_id", "=", wanted.keyId)
        .execute();
    },
  };
}

/** Locks the key's row until the transaction ends, so that of two callers only one uses it. */
async function prove({ clock, sealer }: Dependencies, db: Kysely<Tables>, wanted: KeyProof): Promise<void> {
  const refused = new Fault("Unauthorized", "could not register the appliance: the registration key is not of this vault", {
    evidence: { keyId: wanted.keyId },
    causes: ["the key file belongs to another vault", "the key file was changed"],
    action: "create a new registration key for the vault",
  });
  if (!keyIdPattern.test(wanted.keyId)) throw refused;
  const query = db.selectFrom("registration_keys").selectAll().where("key_id", "=", wanted.keyId);
  const row = await query.where("vault_key", "=", wanted.vaultId.toLowerCase()).forUpdate().executeTakeFirst();
  if (row === undefined) throw refused;
  const evidence = { keyId: wanted.keyId, expiresAt: row.expires_at, ...(row.used_at === null ? {} : { usedAt: row.used_at }) };
  if (row.used_at !== null || row.sealed === null)
    throw new Fault("KeyUsed", "could not register the appliance: the registration key was used before", { evidence });
  if (row.expires_at <= toTimestamp(clock.nowMs()))
    throw new Fault("KeyExpired", "could not register the appliance: the registration key has expired", { evidence });
  if (!wanted.isProved(sealer.open(label(wanted.keyId), row.sealed))) throw refused;
}
