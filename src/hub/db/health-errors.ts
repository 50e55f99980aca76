// Health errors: raised and cleared by set, one statement each, and read by the things that they are about.

import { sql, type Kysely, type RawBuilder } from "kysely";
import type { Tables } from "./tables.ts";

export interface HealthErrorRow {
  readonly errorId: string;
  readonly vaultKey: string;
  readonly entityId: string;
  readonly entityName: string;
  readonly fabricId: string | undefined;
  readonly code: string;
  readonly message: string;
  readonly raisedAt: string;
}

/** What a rule finds wrong now: a query with the columns vault_key, entity_id, entity_name, fabric_id and message. */
export type Findings = RawBuilder<unknown>;

export interface HealthRound {
  readonly code: string;
  readonly at: string;
  /** Rows that one call may change. */
  readonly countMax: number;
}

const columns = sql`error_id as "errorId", vault_key as "vaultKey", entity_id as "entityId", entity_name as "entityName",
  fabric_id as "fabricId", code, message, raised_at as "raisedAt"`;

// "not in" is hashed; an anti join is planned as a nested loop as long as the server takes the findings for one row.

/** Raises what is found and not raised yet; answers what this call raised. Of two hubs that raise the same, one does. */
export async function raiseHealthErrors(db: Kysely<Tables>, findings: Findings, round: HealthRound): Promise<readonly HealthErrorRow[]> {
  const raised = await sql<HealthErrorColumns>`with found as materialized (${findings})
    insert into health_errors (vault_key, entity_key, entity_id, entity_name, fabric_id, code, message, raised_at)
    select f.vault_key, lower(f.entity_id), f.entity_id, f.entity_name, f.fabric_id, ${round.code}, f.message, ${round.at}::timestamptz from found f
    where lower(f.entity_id) not in (select h.entity_key from health_errors h where h.code = ${round.code} and h.cleared_at is null)
    limit ${round.countMax} on conflict (entity_key, code) where cleared_at is null do nothing returning ${columns}`.execute(db);
  return raised.rows.map(toHealthError);
}

/** Clears what is raised and found no more, of the entities in `scope` (all unless told); answers what this call cleared. */
export async function clearHealthErrors(
  db: Kysely<Tables>,
  findings: Findings,
  round: HealthRound,
  scope: RawBuilder<unknown> = sql`true`,
): Promise<readonly HealthErrorRow[]> {
  const cleared = await sql<HealthErrorColumns>`with found as materialized (${findings})
    update health_errors e set cleared_at = ${round.at}::timestamptz where e.error_id in (
      select h.error_id from health_errors h where h.code = ${round.code} and h.cleared_at is null and (${scope})
        and h.entity_key not in (select lower(f.entity_id) from found f where f.entity_id is not null)
      order by h.error_id limit ${round.countMax} for update skip locked) returning ${columns}`.execute(db);
  return cleared.rows.map(toHealthError);
}

/** Those that are raised now, of one thing, gravest last raised first; never more than a person reads. */
export async function openHealthErrors(db: Kysely<Tables>, entityKey: string): Promise<readonly HealthErrorRow[]> {
  const { rows } = await sql<{
    raised: readonly HealthErrorColumns[] | null;
  }>`select ${openErrorsOf(sql`lower(${entityKey})`)} as raised`.execute(db);
  return (rows[0]?.raised ?? []).map(toHealthError);
}

/** As openHealthErrors, as a column of a query whose rows are things: an array of HealthErrorColumns, or null. `key` is in lower case. */
export function openErrorsOf(key: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(select jsonb_agg(open) from (select error_id as "errorId", vault_key as "vaultKey", entity_id as "entityId",
      entity_name as "entityName", fabric_id as "fabricId", code, message,
      to_char(raised_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "raisedAt"
    from health_errors where entity_key = ${key} and cleared_at is null order by raised_at desc, code limit 20) open)`;
}

export interface HealthCount {
  readonly code: string;
  readonly count: number;
}

/** How many things of a vault, or of all, have each error now. */
export async function countHealthErrors(db: Kysely<Tables>, vaultKey?: string): Promise<readonly HealthCount[]> {
  const where = vaultKey === undefined ? sql`true` : sql`vault_key = ${vaultKey.toLowerCase()}`;
  const found = await sql<{ code: string; count: string }>`select code, count(*) as count from health_errors
    where cleared_at is null and ${where} group by code order by code`.execute(db);
  return found.rows.map(({ code, count }) => ({ code, count: Number(count) }));
}

/** Takes away what was cleared before `before`: its events stay. */
export async function forgetHealthErrors(db: Kysely<Tables>, before: string, countMax: number): Promise<void> {
  await sql`delete from health_errors where error_id in (
    select error_id from health_errors where cleared_at < ${before}::timestamptz limit ${countMax})`.execute(db);
}

export interface HealthErrorColumns extends Omit<HealthErrorRow, "fabricId"> {
  readonly fabricId: string | null;
}

export function toHealthError(row: HealthErrorColumns): HealthErrorRow {
  return { ...row, fabricId: row.fabricId ?? undefined };
}
