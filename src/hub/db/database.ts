// The hub's connection to PostgreSQL: a pool under kysely, migrated on opening, with notifications beside it.

import { PostgresDialect, type Kysely } from "kysely";
import pg from "pg";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { HubDatabase, refuseSecondConnection } from "./held-connection.ts";
import { migrate } from "./migrations.ts";
import { createStatementNames, nameStatements } from "./named-statements.ts";
import { openNotifications, type Notifications } from "./notifications.ts";
import type { Tables } from "./tables.ts";

/** A private cluster's socket or an outside server's URL. */
export type DatabaseAddress =
  | { readonly kind: "socket"; readonly socketFolder: string; readonly user: string; readonly database: string }
  | {
      readonly kind: "url";
      readonly url: string;
      /** checked: TLS, and the server's certificate is for the name in the URL. */
      readonly tls: "checked" | "off";
      readonly ca?: string;
      readonly password?: string;
    };

export interface Database extends AsyncDisposable {
  readonly db: Kysely<Tables>;
  readonly notifications: Notifications;
  readonly address: DatabaseAddress;
  /** Of the pool, now. */
  connections(): { readonly inUse: number; readonly idle: number; readonly waiting: number };
}

const connectionsDefault = 16;
/** A caller waits this long for a connection of the pool, and for a server that does not answer. */
const connectMsMax = 30_000;
/**
 * A hub that is paused inside a transaction holds locks; the server ends its session, so that another hub can take its jobs. Sessions of
 * a host that is gone are found by keep-alives.
 */
const idleTransactionDefault = 10_000;
const sessionSettings = {
  timezone: "UTC",
  tcp_keepalives_idle: "15",
  tcp_keepalives_interval: "5",
  tcp_keepalives_count: "3",
};

export async function openDatabase(options: {
  readonly address: DatabaseAddress;
  readonly log: Log;
  readonly clock: Clock;
  readonly connectionsMax?: number;
  /** How long a transaction may stand still before the server ends its session; 10 000 unless told. */
  readonly idleTransactionMsMax?: number;
}): Promise<Database> {
  const { address, log, clock, connectionsMax = connectionsDefault, idleTransactionMsMax = idleTransactionDefault } = options;
  const config = connectionConfigOf(address, idleTransactionMsMax);
  const pool = new pg.Pool({ ...config, max: connectionsMax });
  // An idle connection that breaks is replaced by the pool; calls under way get the error themselves.
  pool.on("error", (error) => log.warn("database connection lost", { reason: error.message }));
  // One that breaks while a transaction has it tells so as an event too; without a listener that would end the program.
  pool.on("connect", (client) => client.on("error", () => undefined));
  const nameOf = createStatementNames();
  pool.on("connect", (client) => nameStatements(client, nameOf));
  const db = new HubDatabase({ dialect: new PostgresDialect({ pool: refuseSecondConnection(pool) }) });
  try {
    await migrate(db, { log, clock, hubs: address.kind === "socket" ? "one" : "several" }); // A private cluster has one hub.
    const notifications = await openNotifications({ config, log, clock });
    const close = async (): Promise<void> => {
      await notifications[Symbol.asyncDispose]();
      await db.destroy();
    };
    const connections: Database["connections"] = () => {
      const { totalCount, idleCount, waitingCount } = pool;
      return { inUse: totalCount - idleCount, idle: idleCount, waiting: waitingCount };
    };
    return { db, notifications, address, connections, [Symbol.asyncDispose]: close };
  } catch (error) {
    await db.destroy();
    if (error instanceof Fault) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new Fault("DatabaseUnavailable", "could not open the hub's database", { cause: error, evidence: { reason } });
  }
}

/** Without migrations and notifications: for tools that look at a database before anything is done to it. */
export function openPlainConnection(address: DatabaseAddress, log: Log): AsyncDisposable & { readonly db: Kysely<Tables> } {
  const pool = new pg.Pool({ ...connectionConfigOf(address), max: 1 });
  pool.on("error", (error) => log.warn("database connection lost", { reason: error.message }));
  pool.on("connect", (client) => client.on("error", () => undefined)); // As above: calls under way get the error themselves.
  const db = new HubDatabase({ dialect: new PostgresDialect({ pool }) });
  return { db, [Symbol.asyncDispose]: async () => await db.destroy() };
}

/** How `pg` reaches the database; times are read as RFC 3339 text. */
function connectionConfigOf(address: DatabaseAddress, idleTransactionMsMax: number = idleTransactionDefault): pg.ClientConfig {
  const where =
    address.kind === "url"
      ? toServerConfig(address)
      : { host: address.socketFolder, port: 5432, user: address.user, database: address.database };
  const options = Object.entries({ ...sessionSettings, idle_in_transaction_session_timeout: idleTransactionMsMax }).map(
    ([name, value]) => `-c ${name}=${value}`,
  );
  const application_name = `watari hub ${process.pid}`;
  return {
    ...where,
    application_name,
    options: options.join(" "),
    types: { getTypeParser },
    keepAlive: true,
    connectionTimeoutMillis: connectMsMax,
  };
}

function toServerConfig({ url, tls, ca, password }: Extract<DatabaseAddress, { kind: "url" }>): pg.ClientConfig {
  const { hostname, port, username, pathname } = new URL(url);
  const host = decodeURIComponent(hostname).replace(/^\[|\]$/g, "");
  return {
    host,
    port: port === "" ? 5432 : Number(port),
    user: decodeURIComponent(username),
    database: decodeURIComponent(pathname.slice(1)),
    ...(password === undefined ? {} : { password }),
    ssl: tls === "off" ? false : { rejectUnauthorized: true, ...(ca === undefined ? {} : { ca }) },
  };
}

const timestamptzOid = 1184;

const getTypeParser: pg.CustomTypesConfig["getTypeParser"] = (oid: number, format?: string) =>
  oid === timestamptzOid ? toRfc3339 : pg.types.getTypeParser(oid, format as "text");

/** PostgreSQL prints "2026-01-02 03:04:05.6+00"; with three digits of fraction the texts also sort by time. */
function toRfc3339(text: string): string {
  const gap = text.indexOf(" ");
  if (gap === -1 || text[gap + 3] !== ":" || !text.endsWith("+00")) return text; // "infinity", and years before ours.
  const seconds = gap + 9;
  const fraction = text[seconds] === "." ? text.slice(seconds + 1, -3) : "";
  return `${text.slice(0, gap)}T${text.slice(gap + 1, seconds)}.${fraction.slice(0, 3).padEnd(3, "0")}Z`;
}
