// Roles: which actions each built-in role allows. Deny by default; one place decides.

import { Fault } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Caller } from "../api/resource-type.ts";
import type { RoleAssignments } from "../db/role-assignments.ts";

export interface Role {
  /** Azure's own id of the built-in role. */
  readonly roleId: string;
  readonly name: string;
  /** Patterns over "<type>/<verb>"; * stands for anything. */
  readonly actions: readonly string[];
  readonly notActions: readonly string[];
  /** Rights on data, for example blobs, which are no ARM actions. */
  readonly dataActions: readonly string[];
}

export const ownerRoleId = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
export const blobDataContributorRoleId = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";
const blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs";
export const blobDataActions = [`${blobs}/read`, `${blobs}/write`, `${blobs}/delete`] as const;

/** Azure's built-in roles by their own ids, names and, for the resource types that this hub has, rights. */
export const roles: readonly Role[] = [
  { roleId: ownerRoleId, name: "Owner", actions: ["*"], notActions: [], dataActions: [] },
  {
    roleId: "b24988ac-6180-42a0-ab88-20f7382dd24c",
    name: "Contributor",
    actions: ["*"],
    notActions: ["Microsoft.Authorization/*/write", "Microsoft.Authorization/*/delete"],
    dataActions: [],
  },
  { roleId: "acdd72a7-3385-48ef-bd42-f606fba81ae7", name: "Reader", actions: ["*/read"], notActions: [], dataActions: [] },
  { roleId: blobDataContributorRoleId, name: "Storage Blob Data Contributor", actions: [], notActions: [], dataActions: blobDataActions },
  {
    roleId: "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    name: "Storage Blob Data Owner",
    actions: [],
    notActions: [],
    dataActions: [`${blobs}/*`],
  },
];

export function findRole(roleDefinitionId: string): Role | undefined {
  const roleId = roleDefinitionId.split("/").at(-1)?.toLowerCase();
  return roles.find((role) => role.roleId === roleId);
}

export type Authorize = (caller: Caller, action: string, scope: ResourceId) => Promise<void>;

export function createAuthorize(assignments: RoleAssignments): Authorize {
  return async (caller, action, scope) => {
    const held = await assignments.of(caller.principalId, scope);
    if (held.some((roleId) => allows(findRole(roleId), action))) return;
    throw new Fault("Forbidden", `could not call ${action}: the caller has no role that allows it`, {
      evidence: { principalId: caller.principalId, action, scope: scope.text, sufficientRoles: rolesFor(action) },
      causes: ["the role was never assigned", "it was assigned at another scope"],
    });
  };
}

/** Whether the principal may use all of `dataActions` on the resource. */
export async function hasDataRights(
  assignments: RoleAssignments,
  principalId: string,
  scope: ResourceId,
  dataActions: readonly string[],
): Promise<boolean> {
  const held = (await assignments.of(principalId, scope)).flatMap((roleId) => findRole(roleId)?.dataActions ?? []);
  return dataActions.every((action) => held.some((pattern) => matches(pattern, action)));
}

export function allows(role: Role | undefined, action: string): boolean {
  if (role === undefined) return false;
  return role.actions.some((pattern) => matches(pattern, action)) && !role.notActions.some((pattern) => matches(pattern, action));
}

function rolesFor(action: string): readonly string[] {
  return roles.filter((role) => allows(role, action)).map((role) => role.name);
}

function matches(pattern: string, action: string): boolean {
  const parts = pattern.toLowerCase().split("*");
  const text = action.toLowerCase();
  const [first = "", ...rest] = parts;
  if (!text.startsWith(first)) return false;
  let position = first.length;
  for (const [index, part] of rest.entries()) {
    const isLast = index === rest.length - 1;
    const found = isLast && part !== "" ? text.lastIndexOf(part) : text.indexOf(part, position);
    if (found < position) return false;
    position = isLast && part === "" ? text.length : found + part.length;
  }
  return position === text.length;
}
