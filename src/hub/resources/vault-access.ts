// How the hub itself reaches a vault: its key and the container of the storage account that holds its packs.

import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import type { VaultId } from "../../contract/ids.ts";
import { blobDataContributorRoleId } from "../auth/builtin-roles.ts";
import { blobDataActions, hasDataRights } from "../auth/roles.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
import type { RoleAssignments } from "../db/role-assignments.ts";
import type { SecretStore } from "../db/secrets.ts";
import type { Database } from "../db/database.ts";
import type { VaultKeys } from "../../vault/sealing.ts";
import type { PrivateLink } from "../private-link/private-link.ts";
import { accountKey } from "./account-keys.ts";
import { readVaultKeys } from "./vault-keys.ts";
import { storedVaultShape } from "./vaults.ts";

export interface VaultPlace {
  readonly vaultId: VaultId;
  /** The vault's resource id. */
  readonly resourceId: string;
  /** By generation. Secret. */
  readonly key: { readonly keyId: string; readonly keys: VaultKeys };
  readonly storage: {
    readonly accountName: string;
    /** "https://<account>.blob.<domain>[:port]". */
    readonly accountUrl: string;
    /** Base64, for a shared key credential. Secret. */
    readonly accountKey: string;
    readonly container: string;
    /** Where the account's private endpoint listens; dial this instead of asking DNS. */
    readonly address: string;
    readonly port: number;
    readonly caPem: string;
  };
}

export interface VaultAccess {
  /**
   * The place of a vault, by resource id. Fault StorageRoleMissing when the vault's identity may not write to its
   * storage account, StateConflict when the vault has no storage account or the account has no private endpoint.
   */
  open(vaultResourceId: string): Promise<VaultPlace>;
}

export interface VaultAccessDependencies {
  readonly resources: ResourceStore;
  readonly database: Pick<Database, "db">;
  readonly secrets: SecretStore;
  readonly assignments: RoleAssignments;
  readonly random: Random;
  readonly domain: string;
  readonly caPem: string;
  readonly privateLink: () => PrivateLink;
}

export function createVaultAccess(dependencies: VaultAccessDependencies): VaultAccess {
  const { resources, domain, caPem } = dependencies;
  return {
    open: async (vaultResourceId) => {
      const vault = await resources.get(vaultResourceId);
      const stored = storedVaultShape.parse(vault.properties);
      const account = await requireAccount(resources, vault, stored.watariStorageAccountId);
      await requireRole(dependencies, { vault, principalId: stored.watariPrincipalId, account });
      const { address, port } = requireEndpoint(dependencies.privateLink(), account);
      const suffix = port === httpsPort ? "" : `:${port}`;
      return {
        vaultId: stored.watariVaultId,
        resourceId: vault.id.text,
        key: {
          keyId: stored.watariVaultKeyId,
          keys: await readVaultKeys({ db: dependencies.database.db, secrets: dependencies.secrets }, vault.id.text),
        },
        storage: {
          accountName: account.id.name,
          accountUrl: `https://${account.id.name}.blob.${domain}${suffix}`,
          accountKey: Buffer.from(await accountKey(dependencies, account.id.text, "key1")).toString("base64"),
          container: stored.watariContainer,
          address,
          port,
          caPem,
        },
      };
    },
  };
}

const httpsPort = 443;

async function requireAccount(resources: ResourceStore, vault: Resource, storageId: string | undefined): Promise<Resource> {
  const account = storageId === undefined ? undefined : await resources.find(storageId);
  if (account !== undefined) return account;
  throw new Fault("StateConflict", `could not open the vault ${vault.id.name}: it has no storage account`, {
    evidence: { vault: vault.id.text },
    causes: ["the vault was created without one"],
    action: "set the vault's property watariStorageAccountId to a storage account's id",
    retry: "never",
  });
}

async function requireRole(
  { assignments }: VaultAccessDependencies,
  wanted: { readonly vault: Resource; readonly principalId: string; readonly account: Resource },
): Promise<void> {
  const { vault, principalId, account } = wanted;
  if (await hasDataRights(assignments, principalId, account.id, blobDataActions)) return;
  const roleDefinitionId = `/providers/Microsoft.Authorization/roleDefinitions/${blobDataContributorRoleId}`;
  throw new Fault("StorageRoleMissing", `the vault ${vault.id.name} may not write to the storage account ${account.id.name}`, {
    evidence: { principalId, scope: account.id.text, role: "Storage Blob Data Contributor", roleDefinitionId },
    action:
      `PUT ${account.id.text}/providers/Microsoft.Authorization/roleAssignments/<new UUID> with properties ` +
      `{"principalId":"${principalId}","roleDefinitionId":"${roleDefinitionId}"}, or run: watari vault create again`,
  });
}

function requireEndpoint(privateLink: PrivateLink, account: Resource): { readonly address: string; readonly port: number } {
  const [served] = privateLink.servedOf(account.id.text);
  if (served !== undefined) return served;
  throw new Fault("StateConflict", `could not reach the storage account ${account.id.name}: it has no private endpoint`, {
    evidence: { storageAccount: account.id.text },
    causes: ["the private endpoint was not created yet", "its address cannot be served"],
    action: "create a private endpoint of the storage account with the group id blob",
    retry: "later",
  });
}
