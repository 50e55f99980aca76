// Storage grants: a short-lived shared access signature on the vault's container, given only while the vault's identity has its role.

import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { StorageGrant } from "../../contract/appliance-protocol.ts";
import { makeContainerSas } from "../blob/sas.ts";
import { ensureContainer } from "../resources/blob-client.ts";
import type { VaultAccess, VaultPlace } from "../resources/vault-access.ts";

const grantLifeMs = 12 * 3600_000;

export async function grantStorage(
  dependencies: { readonly vaults: VaultAccess; readonly clock: Clock },
  vaultResourceId: string,
  signal: AbortSignal,
): Promise<{ readonly grant: StorageGrant; readonly place: VaultPlace }> {
  const { vaults, clock } = dependencies;
  const place = await vaults.open(vaultResourceId);
  const { accountName, accountUrl, accountKey, container } = place.storage;
  await ensureContainer(place.storage, signal);
  const expiresAtMs = clock.nowMs() + grantLifeMs;
  const sas = makeContainerSas({
    account: accountName,
    key: Buffer.from(accountKey, "base64"),
    container,
    permissions: ["read", "create", "write", "delete", "list"],
    expiresAtMs,
  });
  return { grant: { accountUrl, container, sas, expiresAt: toTimestamp(expiresAtMs) }, place };
}
