// Rights: which actions a caller's roles allow at a scope. Deny by default; one place decides.

import { Fault } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Caller } from "../api/resource-type.ts";
import type { CallView } from "../db/call-view.ts";
import { rolesAt, type RoleAssignments, type RoleHolder } from "../db/role-assignments.ts";
import { builtinRoles, type Permission, type Role } from "./builtin-roles.ts";

const blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs";
export const blobDataActions = [`${blobs}/read`, `${blobs}/write`, `${blobs}/delete`] as const;

/** The last segment of a role definition's id, in lower case. */
export function roleIdOf(roleDefinitionId: string): string {
  return roleDefinitionId.split("/").at(-1)?.toLowerCase() ?? "";
}

export function findBuiltinRole(roleDefinitionId: string): Role | undefined {
  const roleId = roleIdOf(roleDefinitionId);
  return builtinRoles.find((role) => role.roleId === roleId);
}

/** Who asks, with what was read for the call when it began; without it the roles are read now. */
export interface Asking {
  readonly caller: Caller;
  readonly view?: CallView | undefined;
}

export type Authorize = (asking: Asking, action: string, scope: ResourceId) => Promise<void>;

export function createAuthorize(assignments: RoleAssignments): Authorize {
  return async ({ caller, view }, action, scope) => {
    const ids = view === undefined ? await assignments.of(caller, scope) : rolesAt(view.roles, scope);
    const held = await permissionsOf(assignments, ids);
    if (held.some((permission) => allows(permission, action))) return;
    throw new Fault("Forbidden", `could not call ${action}: the caller has no role that allows it`, {
      evidence: { principalId: caller.principalId, action, scope: scope.text, sufficientRoles: rolesFor(action) },
      causes: ["the role was never assigned", "it was assigned at another scope"],
    });
  };
}

/** What the holder's roles at the scope and above it permit, its own and those of its groups. */
export async function permissionsAt(assignments: RoleAssignments, holder: RoleHolder, scope: ResourceId): Promise<readonly Permission[]> {
  return await permissionsOf(assignments, await assignments.of(holder, scope));
}

async function permissionsOf(assignments: RoleAssignments, ids: readonly string[]): Promise<readonly Permission[]> {
  const custom = ids.filter((id) => findBuiltinRole(id) === undefined);
  const defined = custom.length === 0 ? [] : await assignments.customPermissions(custom.map(roleIdOf));
  return [...ids.flatMap((id) => findBuiltinRole(id)?.permissions ?? []), ...defined];
}

/** Whether the principal may use all of `dataActions` on the resource. */
export async function hasDataRights(
  assignments: RoleAssignments,
  principalId: string,
  scope: ResourceId,
  dataActions: readonly string[],
): Promise<boolean> {
  const held = await permissionsAt(assignments, { principalId, groupIds: [] }, scope);
  return dataActions.every((action) => held.some((permission) => isListed(permission.dataActions, permission.notDataActions, action)));
}

/** Each permission stands for itself: what one takes away another may give, as in Azure. */
export function allows(permission: Permission, action: string): boolean {
  return isListed(permission.actions, permission.notActions, action);
}

/** The names of the built-in roles that allow the action. */
export function rolesFor(action: string): readonly string[] {
  return builtinRoles.filter((role) => role.permissions.some((permission) => allows(permission, action))).map((role) => role.name);
}

function isListed(patterns: readonly string[], exceptions: readonly string[], action: string): boolean {
  const asked = toAzureAction(action);
  return patterns.some((pattern) => matches(pattern, asked)) && !exceptions.some((pattern) => matches(pattern, asked));
}

/** Azure's actions on resource groups name the subscription too; roles written for Azure must mean the same here. */
function toAzureAction(action: string): string {
  return action.replace(/^Microsoft\.Resources\/resourceGroups\//i, "Microsoft.Resources/subscriptions/resourceGroups/");
}

function matches(pattern: string, action: string): boolean {
  const parts = pattern.toLowerCase().split("*");
  const text = action.toLowerCase();
  const [first = "", ...rest] = parts;
  if (rest.length === 0) return text === first;
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
