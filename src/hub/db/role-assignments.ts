// Role assignments as rights need them: the roles of a principal at a scope and above it.

import { sql, type Kysely } from "kysely";
import type { ResourceId } from "../api/resource-id.ts";
import type { Tables } from "./tables.ts";

export const roleAssignmentType = "Microsoft.Authorization/roleAssignments";

export interface RoleAssignments {
  /** Role definition ids that the principal holds at `scope` or at any scope that contains it. */
  of(principalId: string, scope: ResourceId): Promise<readonly string[]>;
}

export function openRoleAssignments({ db }: { readonly db: Kysely<Tables> }): RoleAssignments {
  return {
    of: async (principalId, scope) => {
      const rows = await db
        .selectFrom("resources")
        .select([sql<string>`properties->>'roleDefinitionId'`.as("role"), "parent_key"])
        .where("type", "=", roleAssignmentType.toLowerCase())
        .where(sql<boolean>`properties->>'principalId' = ${principalId}`)
        .execute();
      return rows.filter((row) => scope.key === row.parent_key || scope.key.startsWith(`${row.parent_key}/`)).map((row) => row.role);
    },
  };
}
