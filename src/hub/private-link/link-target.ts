// Resources that private endpoints can lead to, and how each is named.

import { z } from "zod";
import type { HavingResources, Resource } from "../db/resources.ts";
import { groupIds, type LinkTarget } from "./names.ts";

export const vaultType = "Microsoft.RecoveryServices/vaults";
export const storageAccountType = "Microsoft.Storage/storageAccounts";
export const projectType = "Microsoft.Migrate/migrateProjects";

/** "<vault UUID>-asr-pod01-<member>". */
const vaultNamePattern = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-asr-pod01-[a-z0-9]+$/;
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

/** What to look for to find the resource of a name: the inverse of membersOf, up to the check that its answer contains the name. */
export function parseName(name: string, domain: string): HavingResources | undefined {
  if (!name.endsWith(`.${domain}`)) return undefined;
  const labels = name.slice(0, -domain.length - 1).split(".");
  const [first = ""] = labels;
  const rest = labels.slice(1).filter((label) => label !== "privatelink");
  if (rest.join(".") === "blob") return { type: storageAccountType, property: "name", value: first };
  const vaultId = vaultNamePattern.exec(first)?.[1];
  if (vaultId !== undefined) return { type: vaultType, property: "vaultId", value: vaultId };
  const hub = labels.lastIndexOf("hub");
  return hub < 2 ? undefined : { type: projectType, property: "name", value: labels.slice(0, hub - 1).join(".") };
}

export function groupIdOf(target: LinkTarget): string {
  return groupIds[target.kind];
}

/** Off unless it was said to be on. */
export function isPublic(resource: Resource): boolean {
  return accessShape.parse(resource.properties).publicNetworkAccess === "Enabled";
}
