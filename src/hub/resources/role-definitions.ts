// Role definitions: Azure's built-in roles, and custom ones of subscriptions and resource groups.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ArmCall, type Desired, type ResourceType, type WriteOutcome } from "../api/resource-type.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { builtinRoles, type Role } from "../auth/builtin-roles.ts";
import { allows, findBuiltinRole, permissionsAt } from "../auth/roles.ts";
import { storedRoleShape } from "../db/custom-role.ts";
import { presentResource, type JsonObject, type ResourceStore } from "../db/resources.ts";
import { roleAssignmentType, roleDefinitionType, type RoleAssignments } from "../db/role-assignments.ts";

interface Dependencies {
  readonly resources: ResourceStore;
  readonly assignments: RoleAssignments;
}

type StoredRole = z.infer<typeof storedRoleShape>;

export function roleDefinitionTypeOf(dependencies: Dependencies): ResourceType {
  const { resources, assignments } = dependencies;
  return defineResource({
    type: roleDefinitionType,
    isBare: true,
    within: "anything",
    properties: storedRoleShape,
    onPut: async (call, desired) => await putRole(dependencies, call, desired),
    onDelete: async (call) => {
      const user = await assignments.findAssignment({ roleId: call.id.name });
      if (user === undefined) return { kind: "done" };
      throw new Fault("StateConflict", `could not delete the role ${call.id.name}: it is assigned`, {
        evidence: { roleAssignment: user },
        action: "delete the assignments of the role first",
        retry: "never",
      });
    },
    source: {
      get: async (call) => {
        const builtin = findBuiltinRole(call.id.name);
        if (builtin !== undefined) return presentBuiltin(builtin, call.id.subscriptionId);
        const stored = await resources.find(call.id);
        return stored === undefined ? undefined : presentResource(stored, roleDefinitionType);
      },
      list: async (call, page) => {
        const wanted = readRoleFilter(call.query["$filter"]);
        const custom = await resources.list({
          under: `/subscriptions/${call.id.subscriptionId}`,
          isDeep: true,
          type: roleDefinitionType,
          afterKey: page.after ?? "",
          countMax: page.countMax + 1,
        });
        const last = custom.length > page.countMax ? custom[page.countMax - 1] : undefined;
        const builtin = page.after === undefined ? builtinRoles.map((role) => presentBuiltin(role, call.id.subscriptionId)) : [];
        const usable = custom
          .slice(0, page.countMax)
          .filter((role) => storedRoleShape.parse(role.properties).assignableScopes.some((scope) => isWithin(call.id.key, scope)));
        const all = [...builtin, ...usable.map((role) => presentResource(role, roleDefinitionType))];
        return { items: all.filter((role) => fits(role, wanted)), next: last?.id.key };
      },
    },
  });
}

async function putRole(dependencies: Dependencies, call: ArmCall, desired: Desired<StoredRole>): Promise<WriteOutcome> {
  const { resources, assignments } = dependencies;
  const { properties } = desired;
  const refuse = (reason: string, evidence: Readonly<Record<string, string>>): never => {
    throw new Fault("InputInvalid", `could not keep the role ${properties.roleName}: ${reason}`, { evidence });
  };
  if (!z.uuid().safeParse(call.id.name).success) refuse("its name is not a UUID", { name: call.id.name });
  if (findBuiltinRole(call.id.name) !== undefined) refuse("built-in roles cannot be changed", { roleId: call.id.name });
  const same = await assignments.findCustomRole(call.id.name);
  if (same !== undefined && same.toLowerCase() !== call.id.key) refuse("another scope has a role with this id", { role: same });
  for (const scope of properties.assignableScopes) {
    const id = parseResourceId(scope);
    if (!isWithin(id.key, call.id.parentText)) refuse("an assignable scope lies outside the scope where it is made", { scope });
    if ((await resources.find(id)) === undefined) refuse("an assignable scope does not exist", { scope });
  }
  await refuseMoreThanOwn(assignments, call, properties);
  return { kind: "done", envelope: {}, properties: { ...properties, type: "CustomRole" } };
}

/** The right to write definitions alone makes no roles: a custom role that has it must not lead to more than its own rights. */
async function refuseMoreThanOwn(assignments: RoleAssignments, call: ArmCall, role: StoredRole): Promise<void> {
  const own = await permissionsAt(assignments, call.caller, call.id);
  if (own.some((permission) => allows(permission, `${roleAssignmentType}/write`))) return;
  throw new Fault("Forbidden", `could not keep the role ${role.roleName}: the caller may not assign roles here`, {
    evidence: { principalId: call.caller.principalId, scope: call.id.parentText, action: `${roleAssignmentType}/write` },
  });
}

function isWithin(innerKey: string, outer: string): boolean {
  const outerKey = outer.toLowerCase().replace(/\/$/, "");
  return innerKey === outerKey || innerKey.startsWith(`${outerKey}/`);
}

function presentBuiltin(role: Role, subscriptionId: string): JsonObject {
  return {
    id: `/subscriptions/${subscriptionId}/providers/${roleDefinitionType}/${role.roleId}`,
    name: role.roleId,
    type: roleDefinitionType,
    properties: {
      roleName: role.name,
      description: role.description,
      type: "BuiltInRole",
      assignableScopes: ["/"],
      permissions: role.permissions,
    },
  };
}

interface RoleFilter {
  readonly roleName?: string;
  readonly type?: string;
}

/** atScopeAndBelow(), roleName eq '…', type eq '…'; anything else is refused, because a dropped filter lies. */
function readRoleFilter(filter: string | undefined): RoleFilter {
  const wanted: Record<string, string> = {};
  for (const part of (filter ?? "").split(/\s+and\s+/i).filter((text) => text.trim() !== "")) {
    const [, name, value] = /^\s*(roleName|type)\s+eq\s+'((?:[^']|'')*)'\s*$/i.exec(part) ?? [];
    if (name !== undefined && value !== undefined) wanted[name.toLowerCase()] = value.replaceAll("''", "'");
    else if (!/^\s*atScope(AndBelow)?\(\)\s*$/i.test(part))
      throw new Fault("InputInvalid", "could not read the filter of role definitions", {
        evidence: { filter: part, known: ["atScopeAndBelow()", "roleName eq '…'", "type eq '…'"] },
      });
  }
  return {
    ...(wanted["rolename"] === undefined ? {} : { roleName: wanted["rolename"] }),
    ...(wanted["type"] === undefined ? {} : { type: wanted["type"] }),
  };
}

const shownRoleShape = z.object({ properties: z.object({ roleName: z.string(), type: z.string() }) });

function fits(role: JsonObject, wanted: RoleFilter): boolean {
  const { roleName, type } = shownRoleShape.parse(role).properties;
  return (
    (wanted.roleName === undefined || wanted.roleName.toLowerCase() === roleName.toLowerCase()) &&
    (wanted.type === undefined || wanted.type.toLowerCase() === type.toLowerCase())
  );
}
