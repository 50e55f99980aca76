// Role assignments, permissions and deny assignments: who may do what, at which scope.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { ArmFault } from "../api/arm-errors.ts";
import { defineResource, type ArmCall, type Desired, type ResourceType, type WriteOutcome } from "../api/resource-type.ts";
import { builtinRoles } from "../auth/builtin-roles.ts";
import { findBuiltinRole, permissionsAt, roleIdOf } from "../auth/roles.ts";
import type { Groups } from "../db/groups.ts";
import type { Principal, Principals } from "../db/principals.ts";
import { presentResource, type JsonObject, type ResourceStore } from "../db/resources.ts";
import { roleAssignmentType, type RoleAssignments } from "../db/role-assignments.ts";
import { storedRoleShape } from "../db/custom-role.ts";
import { roleDefinitionTypeOf } from "./role-definitions.ts";

interface Dependencies {
  readonly principals: Principals;
  readonly groups: Groups;
  readonly resources: ResourceStore;
  readonly assignments: RoleAssignments;
}

/** The hub's own: clients send back what they read of them, and it is not looked at. */
const stamps = {
  scope: z.string().max(2048).optional(),
  createdOn: z.string().max(64).optional(),
  updatedOn: z.string().max(64).optional(),
  createdBy: z.string().max(64).nullish(),
  updatedBy: z.string().max(64).nullish(),
  provisioningState: z.string().max(64).optional(),
};

const assignmentShape = z.strictObject({
  principalId: z.uuid().transform((id) => id.toLowerCase()),
  roleDefinitionId: z.string().max(2048),
  principalType: z.enum(["User", "Group", "ServicePrincipal", "ForeignGroup", "Device"]).optional(),
  description: z.string().max(1024).nullish(),
  condition: z.string().max(10_000).nullish(),
  conditionVersion: z.string().max(10).nullish(),
  delegatedManagedIdentityResourceId: z.string().max(2048).nullish(),
  ...stamps,
});
type Assignment = z.infer<typeof assignmentShape>;

export function authorizationTypes(dependencies: Dependencies): readonly ResourceType[] {
  const { resources, assignments } = dependencies;
  return [
    defineResource({
      type: roleAssignmentType,
      within: "anything",
      properties: assignmentShape,
      onPut: async (call, desired) => await putAssignment(dependencies, call, desired),
      onDelete: async () => ({ kind: "done" }),
      source: {
        get: async (call) => {
          const found = await resources.find(call.id);
          return found === undefined ? undefined : presentResource(found, roleAssignmentType);
        },
        list: async (call, page) => await listAssignments(dependencies, call, page),
      },
    }),
    roleDefinitionTypeOf(dependencies),
    defineResource({
      type: "Microsoft.Authorization/permissions",
      within: "anything",
      properties: z.looseObject({}),
      source: {
        get: async () => undefined,
        list: async (call) => ({
          items: (await permissionsAt(assignments, call.caller, call.id)).map((permission) => ({ ...permission })),
          next: undefined,
        }),
      },
    }),
    // Only Azure itself makes them; this hub has none.
    defineResource({
      type: "Microsoft.Authorization/denyAssignments",
      within: "anything",
      properties: z.looseObject({}),
      source: { get: async () => undefined, list: async () => ({ items: [], next: undefined }) },
    }),
  ];
}

async function putAssignment(dependencies: Dependencies, call: ArmCall, desired: Desired<Assignment>): Promise<WriteOutcome> {
  const { assignments } = dependencies;
  const { condition, conditionVersion, description, delegatedManagedIdentityResourceId, ...given } = desired.properties;
  const { principalId, roleDefinitionId } = given;
  if (typeof condition === "string" || typeof conditionVersion === "string")
    throw new Fault(
      "InputInvalid",
      "could not assign the role: this hub does not judge conditions, and without its condition it would grant more",
      {
        evidence: { fields: ["condition", "conditionVersion"] },
        action: "assign the role at a narrower scope instead",
      },
    );
  await requireRole(dependencies, call, roleDefinitionId);
  const principalType = await requirePrincipal(dependencies, given);
  const present = desired.existing === undefined ? undefined : assignmentShape.parse(desired.existing.properties);
  const isOther =
    present !== undefined && (present.principalId !== principalId || roleIdOf(present.roleDefinitionId) !== roleIdOf(roleDefinitionId));
  const wanted = { roleId: roleIdOf(roleDefinitionId), principalId, scopeKey: call.id.parentKey };
  const same = await assignments.findAssignment(wanted);
  if (isOther || (same !== undefined && same.toLowerCase() !== call.id.key))
    throw new ArmFault(
      "StateConflict",
      // Azure's own words for both, which its clients know.
      isOther ? "RoleAssignmentUpdateNotPermitted" : "RoleAssignmentExists",
      isOther
        ? "could not change the role assignment: its principal and role are fixed"
        : "could not assign the role: the principal holds it at this scope already",
      {
        evidence: { roleAssignment: same ?? call.id.text },
        action: "use the assignment named in the evidence, or delete it first",
        retry: "never",
      },
    );
  const extra = {
    ...(typeof description === "string" ? { description } : {}),
    ...(typeof delegatedManagedIdentityResourceId === "string" ? { delegatedManagedIdentityResourceId } : {}),
  };
  return { kind: "done", envelope: {}, properties: { principalId, roleDefinitionId, principalType, scope: call.id.parentText, ...extra } };
}

/** The type of whom the role is for, as it is; a request that takes it for another one is told so. */
async function requirePrincipal({ principals, groups }: Dependencies, { principalId, principalType }: Assignment): Promise<string> {
  const principal = await principals.find(principalId);
  const group = principal === undefined ? await groups.find(principalId) : undefined;
  if (principal === undefined && group === undefined)
    throw new Fault("NotFound", "could not assign the role: the principal does not exist", {
      evidence: { principalId },
      causes: ["the id is misspelt", "the person has never signed in", "it was removed"],
      action: "list who there is with: watari principal list; a person is known from the first sign-in on",
    });
  const present = principal === undefined ? "Group" : typeOf(principal);
  if (principalType !== undefined && principalType !== present)
    throw new ArmFault("InputInvalid", "UnmatchedPrincipalType", `could not assign the role: the principal is a ${present}`, {
      evidence: { principalId, principalType: present, asked: principalType },
      target: "properties.principalType",
    });
  return present;
}

function typeOf({ kind }: Principal): string {
  return kind === "person" || kind === "localAccount" ? "User" : "ServicePrincipal";
}

/** A custom role is assigned only inside its assignable scopes. */
async function requireRole({ resources, assignments }: Dependencies, call: ArmCall, roleDefinitionId: string): Promise<void> {
  if (findBuiltinRole(roleDefinitionId) !== undefined) return;
  const customId = await assignments.findCustomRole(roleIdOf(roleDefinitionId));
  const role = customId === undefined ? undefined : await resources.find(customId);
  const scopes = role === undefined ? [] : storedRoleShape.parse(role.properties).assignableScopes;
  const scopeKey = call.id.parentKey;
  if (scopes.some((scope) => scopeKey === scope.toLowerCase() || scopeKey.startsWith(`${scope.toLowerCase()}/`))) return;
  throw new Fault("InputInvalid", "could not assign the role: this hub does not have it at this scope", {
    evidence: { roleDefinitionId, assignableScopes: scopes, builtinRoles: builtinRoles.map((known) => `${known.name} ${known.roleId}`) },
  });
}

async function listAssignments(
  { resources, assignments, groups }: Dependencies,
  call: ArmCall,
  page: { readonly after: string | undefined; readonly countMax: number },
): Promise<{ readonly items: readonly JsonObject[]; readonly next: string | undefined }> {
  const filter = readAssignmentFilter(call.query["$filter"]);
  const { principalId, isAtScopeOnly } = filter;
  const throughGroups = filter.isWithGroups && principalId !== undefined ? await groups.groupsOf(principalId) : [];
  const principalIds = principalId === undefined ? undefined : [principalId, ...throughGroups];
  const ids = await assignments.list({
    scope: call.id,
    principalIds,
    isAtScopeOnly,
    afterKey: page.after ?? "",
    countMax: page.countMax + 1,
  });
  const shown = ids.slice(0, page.countMax);
  const found = await Promise.all(shown.map((id) => resources.find(id)));
  const items = found.flatMap((item) => (item === undefined ? [] : [presentResource(item, roleAssignmentType)]));
  return { items, next: ids.length > page.countMax ? shown.at(-1)?.toLowerCase() : undefined };
}

interface AssignmentFilter {
  readonly principalId: string | undefined;
  readonly isAtScopeOnly: boolean;
  /** assignedTo also names what the principal has through groups. */
  readonly isWithGroups: boolean;
}

/** atScope(), principalId eq '…', assignedTo('…'), joined by and; anything else is refused, because a dropped filter lies. */
function readAssignmentFilter(filter: string | undefined): AssignmentFilter {
  let principalId: string | undefined;
  let isAtScopeOnly = false;
  let isWithGroups = false;
  for (const part of (filter ?? "").split(/\s+and\s+/i).filter((text) => text.trim() !== "")) {
    const [, equal, assigned] = /^\s*(?:principalId\s+eq\s+'([^']{1,100})'|assignedTo\('([^']{1,100})'\))\s*$/i.exec(part) ?? [];
    const id = equal ?? assigned;
    if (id !== undefined && z.uuid().safeParse(id).success) {
      principalId = id.toLowerCase();
      isWithGroups = assigned !== undefined;
    } else if (/^\s*atScope\(\)\s*$/i.test(part)) isAtScopeOnly = true;
    else
      throw new Fault("InputInvalid", "could not read the filter of role assignments", {
        evidence: { filter: part, known: ["atScope()", "principalId eq '<UUID>'", "assignedTo('<UUID>')"] },
      });
  }
  return { principalId, isAtScopeOnly, isWithGroups };
}
