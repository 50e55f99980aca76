// PostgreSQL's own dump and restore at the address of a hub's database; passwords go by the environment, never by arguments.

import { join } from "node:path";
import { runCommand } from "../../base/run-command.ts";
import type { DatabaseAddress } from "../db/database.ts";
import { findBinaries } from "../db/private-cluster.ts";

const toolMsMax = 6 * 3600_000;
const systemCaFiles = "system";

/** One consistent picture of the whole database, whatever is written meanwhile. */
export async function dumpDatabase(address: DatabaseAddress, path: string, work: { readonly caFile?: string }): Promise<void> {
  const args = ["--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=60000", `--file=${path}`];
  await run("pg_dump", args, address, work);
}

/** All or nothing, into an empty database. */
export async function restoreDatabase(address: DatabaseAddress, path: string, work: { readonly caFile?: string }): Promise<void> {
  const args = ["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", `--dbname=${databaseOf(address)}`, path];
  await run("pg_restore", args, address, work);
}

async function run(
  program: string,
  args: readonly string[],
  address: DatabaseAddress,
  { caFile }: { readonly caFile?: string },
): Promise<void> {
  const env = { PATH: "/usr/bin:/bin", LC_ALL: "C.UTF-8", ...environmentOf(address, caFile) };
  await runCommand(join(await findBinaries(), program), ["--no-password", ...args], { env, timeoutMs: toolMsMax });
}

function databaseOf(address: DatabaseAddress): string {
  return address.kind === "socket" ? address.database : decodeURIComponent(new URL(address.url).pathname.slice(1));
}

function environmentOf(address: DatabaseAddress, caFile: string | undefined): Readonly<Record<string, string>> {
  if (address.kind === "socket")
    return { PGHOST: address.socketFolder, PGPORT: "5432", PGUSER: address.user, PGDATABASE: address.database };
  const { hostname, port, username } = new URL(address.url);
  return {
    PGHOST: hostname.replace(/^\[|\]$/g, ""),
    PGPORT: port === "" ? "5432" : port,
    PGUSER: decodeURIComponent(username),
    PGDATABASE: databaseOf(address),
    PGSSLMODE: address.tls === "off" ? "disable" : "verify-full",
    PGSSLROOTCERT: caFile ?? systemCaFiles,
    ...(address.password === undefined ? {} : { PGPASSWORD: address.password }),
  };
}
