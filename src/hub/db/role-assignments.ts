// Role assignments and custom roles as rights need them: what a principal holds at a scope and above it.

import { CompiledQuery, sql, type Expression, type Kysely, type SqlBool } from "kysely";
import type { ResourceId } from "../api/resource-id.ts";
import type { Permission } from "../auth/builtin-roles.ts";
import { storedRoleShape } from "./custom-role.ts";
import type { Tables } from "./tables.ts";

export const roleAssignmentType = "Microsoft.Authorization/roleAssignments";
export const roleDefinitionType = "Microsoft.Authorization/roleDefinitions";

export interface RoleHolder {
  readonly principalId: string;
  /** Groups besides those that the principal was added to here. */
  readonly groupIds: readonly string[];
}

export interface HeldRole {
  /** Id of the role definition. */
  readonly role: string;
  /** Lower-case id of where it was assigned. */
  readonly scopeKey: string;
}

/** Of the principal $1 and of its groups; $2: its own id and those of groups that its provider names. One array, made once: the index serves it. */
export const heldRolesSql = `select properties->>'roleDefinitionId' as role, parent_key as scope_key from resources
  where type = 'microsoft.authorization/roleassignments' and properties->>'principalId' = any($2::text[]
    || array(select group_id::text from group_members where principal_id = $1))`;

/** Role definition ids among them that hold at `scope`: assigned there, or at what contains it. */
export function rolesAt(held: readonly HeldRole[], scope: ResourceId): readonly string[] {
  return held.filter(({ scopeKey }) => scope.key === scopeKey || scope.key.startsWith(`${scopeKey}/`)).map(({ role }) => role);
}

export interface ListAssignments {
  readonly scope: ResourceId;
  /** Only assignments to one of these. */
  readonly principalIds: readonly string[] | undefined;
  /** At the scope and above it; otherwise also below it. */
  readonly isAtScopeOnly: boolean;
  readonly afterKey: string;
  readonly countMax: number;
}

export interface RoleAssignments {
  /** Role definition ids that the holder has at `scope` or at any scope that contains it: by itself and by groups. */
  of(holder: RoleHolder, scope: ResourceId): Promise<readonly string[]>;
  /** What the custom roles of these ids permit; unknown ids give nothing. */
  customPermissions(roleIds: readonly string[]): Promise<readonly Permission[]>;
  /** Resource ids of assignments, in key order. */
  list(wanted: ListAssignments): Promise<readonly string[]>;
  /** The resource id of the custom role with this id, wherever it was made. */
  findCustomRole(roleId: string): Promise<string | undefined>;
  /** The id of an assignment of the role, or of the same role to the same principal at the same scope. */
  findAssignment(wanted: {
    readonly roleId: string;
    readonly principalId?: string;
    readonly scopeKey?: string;
  }): Promise<string | undefined>;
}

const customRolesMax = 100;

export function openRoleAssignments({ db }: { readonly db: Kysely<Tables> }): RoleAssignments {
  const assignments = db.selectFrom("resources").where("type", "=", roleAssignmentType.toLowerCase());
  const definitions = db.selectFrom("resources").where("type", "=", roleDefinitionType.toLowerCase());
  return {
    of: async ({ principalId, groupIds }, scope) => {
      const own = [principalId, ...groupIds].map((id) => id.toLowerCase());
      const { rows } = await db.executeQuery<{ role: string; scope_key: string }>(CompiledQuery.raw(heldRolesSql, [principalId, own]));
      return rolesAt(
        rows.map((row) => ({ role: row.role, scopeKey: row.scope_key })),
        scope,
      );
    },
    customPermissions: async (roleIds) => {
      const rows = await definitions
        .select("properties")
        .where(sql`lower(name)`, "in", roleIds.slice(0, customRolesMax))
        .execute();
      return rows.flatMap((row) => storedRoleShape.parse(row.properties).permissions);
    },
    list: async ({ scope, principalIds, isAtScopeOnly, afterKey, countMax }) => {
      const above = sql<SqlBool>`(${scope.key} = parent_key or starts_with(${scope.key}, parent_key || '/'))`;
      const near = isAtScopeOnly ? above : sql<SqlBool>`(${above} or starts_with(parent_key, ${`${scope.key}/`}))`;
      const query = assignments.select("id").where(near).where("key", ">", afterKey).orderBy("key").limit(countMax);
      const rows = await (principalIds === undefined ? query : query.where(holds(principalIds))).execute();
      return rows.map((row) => row.id);
    },
    findCustomRole: async (roleId) =>
      (
        await definitions
          .select("id")
          .where(sql`lower(name)`, "=", roleId.toLowerCase())
          .orderBy("key")
          .executeTakeFirst()
      )?.id,
    findAssignment: async ({ roleId, principalId, scopeKey }) => {
      let query = assignments.select("id").where(sql<SqlBool>`lower(properties->>'roleDefinitionId') like ${`%/${roleId.toLowerCase()}`}`);
      if (principalId !== undefined) query = query.where(holds([principalId]));
      if (scopeKey !== undefined) query = query.where("parent_key", "=", scopeKey);
      return (await query.orderBy("key").executeTakeFirst())?.id;
    },
  };
}

function holds(principalIds: readonly string[]): Expression<SqlBool> {
  return sql<SqlBool>`properties->>'principalId' = any(${principalIds.map((id) => id.toLowerCase())})`;
}
