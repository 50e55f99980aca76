// How many statements a call of each kind costs the hub's database, and how long they take there, by pg_stat_statements.

import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { sql, type Kysely } from "kysely";
import { silentLog } from "../src/base/log.ts";
import { openPlainConnection } from "../src/hub/db/database.ts";
import type { Tables } from "../src/hub/db/tables.ts";

export interface StatementFigures {
  readonly statementsPerCall: number;
  /** Those that take longest in sum, of one call. */
  readonly dearest: readonly {
    readonly text: string;
    readonly timesPerCall: number;
    readonly plannedPerCall: number;
    readonly msPerCall: number;
  }[];
}

const library = "pg_stat_statements";
const dearestMax = 12;

/** For a cluster that stands still: it loads the library at its next start, and counts nothing until it is asked to. */
export async function prepareCounting(dataFolder: string): Promise<void> {
  const file = join(dataFolder, "postgresql.auto.conf");
  const present = await readFile(file, "utf8");
  if (present.includes(library)) return;
  await appendFile(file, `shared_preload_libraries = '${library}'\n${library}.track = 'none'\n${library}.track_planning = 'on'\n`);
}

/** A connection beside the hub's own to its private cluster. */
export async function openBesideHub(dataFolder: string): Promise<ReturnType<typeof openPlainConnection>> {
  // PostgreSQL's documentation, "Database File Layout": the fifth line is the folder of the socket.
  const socketFolder = (await readFile(join(dataFolder, "postmaster.pid"), "utf8")).split("\n")[4] ?? "";
  const connection = openPlainConnection({ kind: "socket", socketFolder, user: "watari", database: "watari" }, silentLog);
  await sql`create extension if not exists pg_stat_statements`.execute(connection.db);
  return connection;
}

/** The hub's own timers ask the database too; with some hundred calls at once they count little. */
export async function countStatements(db: Kysely<Tables>, callCount: number, task: () => Promise<void>): Promise<StatementFigures> {
  await setTracking(db, "top");
  await sql`select pg_stat_statements_reset()`.execute(db);
  await task();
  const { rows } = await sql<{
    query: string;
    calls: string;
    plans: string;
    ms: number;
  }>`select query, calls, plans, total_exec_time + total_plan_time as ms
    from pg_stat_statements s join pg_database d on d.oid = s.dbid
    where d.datname = current_database() and query not like '%pg_stat_statements%' order by ms desc`.execute(db);
  await setTracking(db, "none");
  return {
    statementsPerCall: rows.reduce((sum, { calls }) => sum + Number(calls), 0) / callCount,
    dearest: rows.slice(0, dearestMax).map(({ query, calls, plans, ms }) => {
      return {
        text: query.replaceAll(/\s+/g, " ").slice(0, 160),
        timesPerCall: Number(calls) / callCount,
        plannedPerCall: Number(plans) / callCount,
        msPerCall: ms / callCount,
      };
    }),
  };
}

async function setTracking(db: Kysely<Tables>, track: "top" | "none"): Promise<void> {
  await sql`alter system set pg_stat_statements.track = ${sql.lit(track)}`.execute(db);
  await sql`select pg_reload_conf()`.execute(db);
  // Each session reads it before its next statement, once the server's first process has told it.
  await sql`select pg_sleep(0.3)`.execute(db);
}
