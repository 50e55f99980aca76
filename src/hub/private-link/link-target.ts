// Resources that private endpoints can lead to, and how each is named.

import { z } from "zod";
import type { Resource } from "../db/resources.ts";
import { groupIds, type LinkTarget } from "./names.ts";

export const vaultType = "Microsoft.RecoveryServices/vaults";
export const storageAccountType = "Microsoft.Storage/storageAccounts";
export const projectType = "Microsoft.Migrate/migrateProjects";

const vaultShape = z.looseObject({ watariVaultId: z.string() });
const accessShape = z.looseObject({ publicNetworkAccess: z.string().optional() });

/** undefined for types that have no private endpoints. */
export function linkTargetOf(resource: Resource): LinkTarget | undefined {
  const location = resource.location ?? "";
  switch (resource.id.type.toLowerCase()) {
    case vaultType.toLowerCase():
      return { kind: "vault", vaultId: vaultShape.parse(resource.properties).watariVaultId, location };
    case storageAccountType.toLowerCase():
      return { kind: "storage", account: resource.id.name.toLowerCase() };
    case projectType.toLowerCase():
      return { kind: "project", project: resource.id.name, location };
    default:
      return undefined;
  }
}

export function groupIdOf(target: LinkTarget): string {
  return groupIds[target.kind];
}

/** Off unless it was said to be on. */
export function isPublic(resource: Resource): boolean {
  return accessShape.parse(resource.properties).publicNetworkAccess === "Enabled";
}
