// The hub's connection to PostgreSQL: a pool under kysely, migrated on opening, with notifications beside it.

import { Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { migrate } from "./migrations.ts";
import { openNotifications, type Notifications } from "./notifications.ts";
import type { Tables } from "./tables.ts";

/** A private cluster's socket or an outside server's URL. */
export type DatabaseAddress =
  | { readonly kind: "socket"; readonly socketFolder: string; readonly user: string; readonly database: string }
  | { readonly kind: "url"; readonly url: string };

export interface Database extends AsyncDisposable {
  readonly db: Kysely<Tables>;
  readonly notifications: Notifications;
  readonly address: DatabaseAddress;
}

const connectionsMax = 16;

export async function openDatabase(options: {
  readonly address: DatabaseAddress;
  readonly log: Log;
  readonly clock: Clock;
}): Promise<Database> {
  const { address, log, clock } = options;
  const pool = new pg.Pool({ ...toConnectionConfig(address), max: connectionsMax });
  // An idle connection that breaks is replaced by the pool; calls under way get the error themselves.
  pool.on("error", (error) => log.warn("database connection lost", { reason: error.message }));
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
  try {
    await migrate(db, log);
    const notifications = await openNotifications({ config: toConnectionConfig(address), log, clock });
    const close = async (): Promise<void> => {
      await notifications[Symbol.asyncDispose]();
      await db.destroy();
    };
    return { db, notifications, address, [Symbol.asyncDispose]: close };
  } catch (error) {
    await db.destroy();
    if (error instanceof Fault) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new Fault("DatabaseUnavailable", "could not open the hub's database", { cause: error, evidence: { reason } });
  }
}

/** How `pg` reaches the database; times are read as RFC 3339 text. */
function toConnectionConfig(address: DatabaseAddress): pg.ClientConfig {
  const where =
    address.kind === "url"
      ? { connectionString: address.url }
      : { host: address.socketFolder, port: 5432, user: address.user, database: address.database };
  return { ...where, options: "-c timezone=UTC", types: { getTypeParser } };
}

const timestamptzOid = 1184;

const getTypeParser: pg.CustomTypesConfig["getTypeParser"] = (oid: number, format?: string) =>
  oid === timestamptzOid ? toRfc3339 : pg.types.getTypeParser(oid, format as "text");

/** PostgreSQL prints "2026-01-02 03:04:05.6+00"; with three digits of fraction the texts also sort by time. */
function toRfc3339(text: string): string {
  return text.replace(
    /^(\S+) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?\+00$/,
    (_whole, day: string, time: string, fraction: string | undefined) => `${day}T${time}.${(fraction ?? "").slice(0, 3).padEnd(3, "0")}Z`,
  );
}
