// The appliance's local state in SQLite: durable when a call returns, migrated at opening, one writer.

import { DatabaseSync, type SQLInputValue, type SQLOutputValue } from "node:sqlite";
import type { z } from "zod";
import { Fault } from "../../contract/errors.ts";

export type Row = Readonly<Record<string, SQLOutputValue>>;

/** Each entry is one change, applied once, in order. Never edit an entry that was released. */
const migrations = [
  `CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
   CREATE TABLE credential (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, user_name TEXT NOT NULL,
     privilege TEXT NOT NULL, sealed BLOB NOT NULL) STRICT;
   CREATE TABLE vcenter (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, host TEXT NOT NULL, port INTEGER NOT NULL,
     credential_id TEXT NOT NULL REFERENCES credential(id), trust TEXT NOT NULL, status TEXT NOT NULL, fault TEXT,
     discovered_at_ms INTEGER) STRICT;
   CREATE TABLE discovered (infrastructure_id TEXT PRIMARY KEY, vcenter_id TEXT NOT NULL, body TEXT NOT NULL) STRICT;
   CREATE INDEX discovered_by_vcenter ON discovered (vcenter_id);
   CREATE TABLE machine (id TEXT PRIMARY KEY, infrastructure_id TEXT UNIQUE, smbios_uuid TEXT NOT NULL, os_machine_id TEXT NOT NULL,
     certificate_digest TEXT NOT NULL, boot_id TEXT NOT NULL, past_boot_ids TEXT NOT NULL DEFAULT '[]', banned_boot_ids TEXT NOT NULL DEFAULT '[]',
     facts TEXT NOT NULL, agent_state TEXT, agent_version TEXT NOT NULL, seen_at_ms INTEGER NOT NULL,
     address TEXT, credential_id TEXT, policy TEXT, protected_by TEXT, UNIQUE (smbios_uuid, os_machine_id)) STRICT;
   CREATE TABLE agent_order (id TEXT PRIMARY KEY, place INTEGER NOT NULL, machine_id TEXT NOT NULL REFERENCES machine(id) ON DELETE CASCADE,
     body TEXT NOT NULL, result TEXT) STRICT;
   CREATE INDEX agent_order_by_machine ON agent_order (machine_id, place);
   CREATE TABLE hub_order (id TEXT PRIMARY KEY, place INTEGER NOT NULL, body TEXT NOT NULL, step TEXT, result TEXT,
     is_told INTEGER NOT NULL DEFAULT 0) STRICT;
   CREATE TABLE point (id TEXT PRIMARY KEY, place INTEGER NOT NULL, machine_id TEXT NOT NULL, boot_id TEXT NOT NULL,
     repaired_block_count INTEGER NOT NULL, report TEXT NOT NULL, is_sealed INTEGER NOT NULL DEFAULT 0,
     is_told INTEGER NOT NULL DEFAULT 0) STRICT;
   CREATE INDEX point_by_machine ON point (machine_id, place);
   CREATE INDEX point_untold ON point (is_sealed, is_told, place);
   CREATE TABLE host_key (host TEXT PRIMARY KEY, fingerprint TEXT NOT NULL) STRICT;`,
  `CREATE TABLE hub_fence (machine TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT;`,
  `CREATE TABLE expected_machine (smbios_uuid TEXT NOT NULL, os_machine_id TEXT NOT NULL, machine_id TEXT NOT NULL,
     PRIMARY KEY (smbios_uuid, os_machine_id)) STRICT;`,
  `CREATE TABLE removed_point (id TEXT PRIMARY KEY) STRICT;`,
  `CREATE TABLE line_limits (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL) STRICT;`,
  `ALTER TABLE machine ADD COLUMN certificate_ends_at_ms INTEGER;
   ALTER TABLE machine ADD COLUMN next_certificate_digest TEXT;`,
] as const;

/** Thin and synchronous; a call has committed when it returns. */
export interface StateDatabase extends Disposable {
  run(sql: string, ...values: readonly SQLInputValue[]): void;
  all(sql: string, ...values: readonly SQLInputValue[]): readonly Row[];
  one(sql: string, ...values: readonly SQLInputValue[]): Row | undefined;
  /** All or nothing. Not to be nested. */
  transaction<T>(work: () => T): T;
}

/** Opens and migrates. Refuses a file of a newer program. */
export function openStateDatabase(path: string): StateDatabase {
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000");
  const state = wrap(database);
  migrate(database, state, path);
  return state;
}

function wrap(database: DatabaseSync): StateDatabase {
  const transaction = <T>(work: () => T): T => {
    database.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      database.exec("COMMIT");
      return result;
    } catch (error) {
      database.exec("ROLLBACK");
      throw error;
    }
  };
  return {
    run: (sql, ...values) => {
      database.prepare(sql).run(...values);
    },
    all: (sql, ...values) => database.prepare(sql).all(...values),
    one: (sql, ...values) => database.prepare(sql).get(...values),
    transaction,
    [Symbol.dispose]: () => {
      if (database.isOpen) database.close();
    },
  };
}

function migrate(database: DatabaseSync, state: StateDatabase, path: string): void {
  const present = Number(state.one("PRAGMA user_version")?.["user_version"] ?? 0);
  if (present > migrations.length) {
    throw new Fault("InputInvalid", "could not open the appliance's state: a newer program wrote it", {
      evidence: { path, version: present, versionMax: migrations.length },
      action: "start the newer program with this state folder",
    });
  }
  for (const [index, change] of migrations.entries()) {
    if (index < present) continue;
    state.transaction(() => {
      database.exec(change);
      database.exec(`PRAGMA user_version = ${index + 1}`);
    });
  }
}

/** Reads a JSON column. What this program wrote must fit; a misfit means the file was changed. */
export function readJson<T>(shape: z.ZodType<T>, row: Row, column: string): T {
  const text = row[column];
  try {
    return shape.parse(JSON.parse(typeof text === "string" ? text : ""));
  } catch (error) {
    throw new Fault("DataDamaged", `could not read the appliance's state: column ${column} does not fit`, { cause: error });
  }
}

export function readText(row: Row, column: string): string {
  const value = row[column];
  if (typeof value === "string") return value;
  throw new Fault("DataDamaged", `could not read the appliance's state: column ${column} is not text`);
}

export function readOptionalText(row: Row, column: string): string | undefined {
  const value = row[column];
  return typeof value === "string" ? value : undefined;
}

export function readNumber(row: Row, column: string): number {
  const value = row[column];
  if (typeof value === "number") return value;
  throw new Fault("DataDamaged", `could not read the appliance's state: column ${column} is not a number`);
}

export function readBytes(row: Row, column: string): Uint8Array {
  const value = row[column];
  if (value instanceof Uint8Array) return value;
  throw new Fault("DataDamaged", `could not read the appliance's state: column ${column} is not bytes`);
}
