// Role definitions and assignments: who may do what, at which scope. The built-in roles are Azure's.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import { findRole, roles, type Role } from "../auth/roles.ts";
import type { Principals } from "../db/principals.ts";
import type { JsonObject } from "../db/resources.ts";
import { roleAssignmentType } from "../db/role-assignments.ts";

const roleDefinitionType = "Microsoft.Authorization/roleDefinitions";

const assignmentShape = z.looseObject({
  principalId: z.uuid(),
  roleDefinitionId: z.string().max(500),
  principalType: z.enum(["User", "Group", "ServicePrincipal"]).default("ServicePrincipal"),
});

export function authorizationTypes(dependencies: { readonly principals: Principals }): readonly ResourceType[] {
  const { principals } = dependencies;
  return [
    defineResource({
      type: roleAssignmentType,
      within: "anything",
      properties: assignmentShape,
      onPut: async (call, desired) => {
        const { principalId, roleDefinitionId, principalType } = desired.properties;
        if (findRole(roleDefinitionId) === undefined)
          throw new Fault("InputInvalid", "could not assign the role: this hub does not have it", {
            evidence: { roleDefinitionId, roles: roles.map((role) => `${role.name} ${role.roleId}`) },
          });
        if ((await principals.find(principalId)) === undefined)
          throw new Fault("NotFound", "could not assign the role: the principal does not exist", { evidence: { principalId } });
        return { kind: "done", properties: { principalId, roleDefinitionId, principalType, scope: call.id.parentText } };
      },
    }),
    defineResource({
      type: roleDefinitionType,
      within: "anything",
      properties: z.looseObject({}),
      source: {
        get: async (call) => {
          const role = findRole(call.id.name);
          return role === undefined ? undefined : presentRole(role);
        },
        list: async () => ({ items: roles.map(presentRole), next: undefined }),
      },
    }),
  ];
}

function presentRole(role: Role): JsonObject {
  return {
    id: `/providers/${roleDefinitionType}/${role.roleId}`,
    name: role.roleId,
    type: roleDefinitionType,
    properties: {
      roleName: role.name,
      type: "BuiltInRole",
      assignableScopes: ["/"],
      permissions: [{ actions: role.actions, notActions: role.notActions, dataActions: role.dataActions, notDataActions: [] }],
    },
  };
}
