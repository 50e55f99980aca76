// The chain of audit entries: each row's hash covers the row before it, so a change anywhere shows everywhere after it.

import { createHash } from "node:crypto";

/** One row as it is stored; `entry` is the exact text that was hashed. */
export interface AuditRow {
  readonly sequence: number;
  readonly entry: string;
  readonly previousHash: string;
  readonly hash: string;
}

/** The last row that somebody knows of. */
export interface AuditHead {
  readonly sequence: number;
  readonly hash: string;
}

/** What the first row follows. */
export const chainStart: AuditHead = { sequence: 0, hash: "0".repeat(64) };

function hashEntry(previousHash: string, entry: string): string {
  return createHash("sha256").update(`${previousHash}\n${entry}`, "utf8").digest("hex");
}

/** Rows for the entries, in order. They follow the hash of `known` and stand after the row `last`. */
export function linkEntries(known: AuditHead, last: number, entries: readonly object[]): readonly AuditRow[] {
  let previousHash = known.hash;
  return entries.map((content, index) => {
    const sequence = last + 1 + index;
    const entry = JSON.stringify({ sequence, ...content });
    const row = { sequence, entry, previousHash, hash: hashEntry(previousHash, entry) };
    previousHash = row.hash;
    return row;
  });
}

/** Why the row cannot follow `previous`; undefined when it does. */
export function faultOfLink(previous: AuditHead, row: AuditRow): string | undefined {
  if (row.sequence !== previous.sequence + 1) return `row ${previous.sequence + 1} is missing`;
  if (row.previousHash !== previous.hash) return "it does not follow the row before it";
  if (hashEntry(row.previousHash, row.entry) !== row.hash) return "its content was changed";
  return sequenceOf(row.entry) === row.sequence ? undefined : "it was moved from another place";
}

function sequenceOf(entry: string): unknown {
  try {
    const content: unknown = JSON.parse(entry);
    return typeof content === "object" && content !== null && "sequence" in content ? content.sequence : undefined;
  } catch {
    return undefined; // Not JSON: no sequence, so the link is refused.
  }
}
