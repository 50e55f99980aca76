// The rows of the audit trail: added behind the last one under a lock, read in order, proved link by link.

import { sql, type Kysely } from "kysely";
import { chainStart, faultOfLink, linkEntries, type AuditHead, type AuditRow } from "./audit-chain.ts";
import { lockKey } from "./locks.ts";
import type { Tables } from "./tables.ts";

/** cut: the database no longer has the row that the caller knows. What was added then shows the cut for ever. */
export interface Appended {
  readonly head: AuditHead;
  readonly kind: "whole" | "cut";
}

const pageRows = 1000;
const lockName = "audit entries";
/** A hub in its turn meets hubs that append at once; each of those tries once and then waits for its turn. */
const attemptsMax = 10;

/** Adds the entries in one transaction; hubs take turns. `known` is what this hub wrote last; undefined: it knows nothing yet. */
export async function appendEntries(db: Kysely<Tables>, known: AuditHead | undefined, entries: readonly object[]): Promise<Appended> {
  const head = known === undefined || known.sequence === 0 ? undefined : await appendAtOnce(db, known, entries);
  if (head !== undefined) return { head, kind: "whole" };
  for (let attempt = 1; ; attempt++) {
    try {
      return await appendInTurn(db, known, entries);
    } catch (error) {
      // A hub that appended at once, without its turn, was first.
      if (!isTaken(error) || attempt === attemptsMax) throw error;
    }
  }
}

/**
 * One statement, for a hub that still wrote last: its row is there, and the next number is free. Otherwise nothing is added and the answer is
 * undefined. Numbers are unique, so of two hubs that try this one succeeds.
 */
async function appendAtOnce(db: Kysely<Tables>, known: AuditHead, entries: readonly object[]): Promise<AuditHead | undefined> {
  const linked = linkEntries(known, known.sequence, entries);
  // Arrays through selects: a planner that sees their lengths plans at every call, which takes longer than the insert.
  const column = (name: keyof AuditRow) => linked.map((row) => row[name]);
  try {
    const added = await sql`insert into audit_entries (sequence, entry, previous_hash, hash)
      select * from unnest((select ${column("sequence")}::bigint[]), (select ${column("entry")}::text[]),
        (select ${column("previousHash")}::text[]), (select ${column("hash")}::text[]))
      where exists (select 1 from audit_entries where sequence = ${known.sequence} and hash = ${known.hash})`.execute(db);
    return added.numAffectedRows === BigInt(linked.length) ? linked.at(-1) : undefined;
  } catch (error) {
    if (isTaken(error)) return undefined;
    throw error;
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "23505"; // SQLSTATE unique_violation
}

async function appendInTurn(db: Kysely<Tables>, known: AuditHead | undefined, entries: readonly object[]): Promise<Appended> {
  return await db.transaction().execute(async (transaction) => {
    await lockKey(transaction, lockName);
    const { rows } = await sql<{ sequence: string; hash: string }>`select sequence, hash from audit_entries
      where sequence = ${known?.sequence ?? 0} or sequence = (select max(sequence) from audit_entries) order by sequence`.execute(
      transaction,
    );
    const heads = rows.map((row) => ({ sequence: Number(row.sequence), hash: row.hash }));
    const last = heads.at(-1) ?? chainStart;
    const isWhole = known === undefined || known.sequence === 0 || heads.some((head) => isSame(head, known));
    const linked = linkEntries(isWhole ? last : known, Math.max(last.sequence, known?.sequence ?? 0), entries);
    await transaction.insertInto("audit_entries").values(linked.map(toColumns)).execute();
    return { head: linked.at(-1) ?? last, kind: isWhole ? "whole" : "cut" };
  });
}

export async function findAuditRow(db: Kysely<Tables>, sequence: number): Promise<AuditRow | undefined> {
  const row = await db.selectFrom("audit_entries").selectAll().where("sequence", "=", String(sequence)).executeTakeFirst();
  return row === undefined ? undefined : fromColumns(row);
}

/** Rows after `after`, in order. */
export async function pageOfAudit(db: Kysely<Tables>, after: number, countMax: number): Promise<readonly AuditRow[]> {
  const query = db.selectFrom("audit_entries").selectAll().where("sequence", ">", String(after));
  return (await query.orderBy("sequence").limit(countMax).execute()).map(fromColumns);
}

export async function* allAudit(db: Kysely<Tables>, after = 0): AsyncIterable<AuditRow> {
  for (let last = after; ;) {
    const page = await pageOfAudit(db, last, pageRows);
    yield* page;
    if (page.length < pageRows) return;
    last = page.at(-1)?.sequence ?? last;
  }
}

export type AuditProof =
  | { readonly kind: "whole"; readonly count: number; readonly end: AuditHead }
  | { readonly kind: "broken"; readonly sequence: number; readonly reason: string };

/** Proves every link from the first row on, and that the row that a hub wrote down outside the database is among them. */
export async function proveAudit(db: Kysely<Tables>, head: AuditHead | undefined): Promise<AuditProof> {
  let previous = chainStart;
  let isHeadFound = head === undefined || head.sequence === 0;
  for await (const row of allAudit(db)) {
    const reason = faultOfLink(previous, row);
    if (reason !== undefined) return { kind: "broken", sequence: row.sequence, reason };
    if (head !== undefined && row.sequence === head.sequence) {
      if (row.hash !== head.hash) return { kind: "broken", sequence: row.sequence, reason: "it is not the row that the hub wrote" };
      isHeadFound = true;
    }
    previous = row;
  }
  if (!isHeadFound) return { kind: "broken", sequence: previous.sequence + 1, reason: "the hub wrote it, and it was removed" };
  return { kind: "whole", count: previous.sequence, end: { sequence: previous.sequence, hash: previous.hash } };
}

function isSame(left: AuditHead, right: AuditHead): boolean {
  return left.sequence === right.sequence && left.hash === right.hash;
}

function toColumns({ sequence, entry, previousHash, hash }: AuditRow) {
  return { sequence: String(sequence), entry, previous_hash: previousHash, hash };
}

function fromColumns(row: Tables["audit_entries"]): AuditRow {
  return { sequence: Number(row.sequence), entry: row.entry, previousHash: row.previous_hash, hash: row.hash };
}
