// What a call has to know before it begins, by one question to the database: its caller and the caller's roles, and what stands at its path.
// Nothing of it is kept for the next call, so what was revoked is gone at once.

import { CompiledQuery, type Kysely, type Selectable } from "kysely";
import { fromRow, type Resource } from "./resources.ts";
import { heldRolesSql, type HeldRole, type RoleHolder } from "./role-assignments.ts";
import type { ResourceTable, Tables } from "./tables.ts";

export interface CallView {
  /** The principal exists. */
  readonly isKnown: boolean;
  /** Of the caller and its groups, at any scope. */
  readonly roles: readonly HeldRole[];
  /** Lower-case ids that were looked for: that of the path first, then what contains it. */
  readonly keys: readonly string[];
  /** Of these, the stored ids as they were first written: key → text. */
  readonly texts: ReadonlyMap<string, string>;
  /** What stood at the first key when the call began. */
  readonly resource: Resource | undefined;
}

interface Row {
  readonly is_known: boolean;
  readonly roles: readonly (readonly [string, string])[] | null;
  readonly texts: Readonly<Record<string, string>> | null;
}

/**
 * The keys come through a select of their own: a planner that sees how many they are finds its plan for any number dearer, and then plans
 * at every call, which takes longer than the answer.
 */
const question = `select exists (select from principals where principal_id = $1) as is_known,
  (select jsonb_agg(jsonb_build_array(held.role, held.scope_key)) from (${heldRolesSql}) held) as roles,
  (select jsonb_object_agg(key, id) from resources where key = any((select $3::text[])::text[])) as texts, found.*
  from (select) one left join resources found on found.key = $4`;

export async function readCallView(db: Kysely<Tables>, holder: RoleHolder, keys: readonly string[]): Promise<CallView> {
  const principalIds = [holder.principalId, ...holder.groupIds].map((id) => id.toLowerCase());
  const values = [holder.principalId, principalIds, [...keys], keys[0] ?? ""];
  const { rows } = await db.executeQuery<Row & (Selectable<ResourceTable> | { readonly key: null })>(CompiledQuery.raw(question, values));
  const [row] = rows;
  if (row === undefined) throw new Error("assertion failed: the question has one row for an answer");
  return {
    isKnown: row.is_known,
    roles: (row.roles ?? []).map(([role, scopeKey]) => ({ role, scopeKey })),
    keys,
    texts: new Map(Object.entries(row.texts ?? {})),
    resource: row.key === null ? undefined : fromRow(row),
  };
}
