// Which storage account holds a vault's packs: the one that the vault was told, or the only one to which its identity was given the role.

import { Fault } from "../../contract/errors.ts";
import { blobDataActions, hasDataRights } from "../auth/roles.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
import type { RoleAssignments } from "../db/role-assignments.ts";
import { storageAccountType } from "../private-link/link-target.ts";
import { storedVaultShape } from "./vaults.ts";

/**
 * Azure's clients have no word for a vault's storage account, but they do grant its identity the blob role on one. That account is
 * fixed as the vault's from then on. Answers the vault as it is when there is none yet; StateConflict when there are several.
 */
export async function settleVaultStorage(
  { resources, assignments }: { readonly resources: ResourceStore; readonly assignments: RoleAssignments },
  vault: Resource,
): Promise<Resource> {
  const { watariStorageAccountId, watariPrincipalId } = storedVaultShape.parse(vault.properties);
  if (watariStorageAccountId !== undefined) return vault;
  const granted: string[] = [];
  for await (const account of resources.all(storageAccountType))
    if (await hasDataRights(assignments, watariPrincipalId, account.id, blobDataActions)) granted.push(account.id.text);
  const [only, ...others] = granted;
  if (only === undefined) return vault;
  if (others.length > 0)
    throw new Fault(
      "StateConflict",
      `could not choose the storage account of the vault ${vault.id.name}: its identity may write to several`,
      {
        evidence: { granted },
        action: "set the vault's property watariStorageAccountId, or take back the roles that are not meant",
        retry: "never",
      },
    );
  const settled = await resources.update(vault.id, (before) => ({
    properties: { ...before.properties, watariStorageAccountId: before.properties["watariStorageAccountId"] ?? only },
  }));
  return settled ?? vault;
}
