// Where an outside PostgreSQL is and how it is trusted: TLS with a checked name, the password from a file.

import { readFile } from "node:fs/promises";
import { Fault } from "../../contract/errors.ts";
import type { DatabaseAddress } from "./database.ts";

/** `sslmode` of the URL may only be verify-full, which is meant without it too, or disable, which has to be written out. */
export async function readServerAddress(wanted: {
  readonly url: string;
  readonly databaseCaFile?: string | undefined;
  readonly databasePasswordFile?: string | undefined;
}): Promise<DatabaseAddress> {
  const url = URL.canParse(wanted.url) ? new URL(wanted.url) : undefined;
  if (url === undefined || !/^postgres(ql)?:$/.test(url.protocol))
    throw new Fault("InputInvalid", "could not read databaseUrl: it is no URL of a PostgreSQL server", {
      action: "write it as postgres://user@host:5432/database",
    });
  if (url.password !== "")
    throw new Fault("InputInvalid", "could not read databaseUrl: it holds a password", {
      action: "put the password into a file with mode 0600 and name it as databasePasswordFile",
    });
  const mode = url.searchParams.get("sslmode") ?? "verify-full";
  if (mode !== "verify-full" && mode !== "disable")
    throw new Fault("InputInvalid", "could not read databaseUrl: its sslmode does not check who answers", {
      evidence: { sslmode: mode },
      action: "leave sslmode away or write verify-full; on one host disable may be written",
    });
  url.searchParams.delete("sslmode");
  const { databaseCaFile, databasePasswordFile } = wanted;
  const password = databasePasswordFile === undefined ? undefined : (await readFile(databasePasswordFile, "utf8")).replace(/\r?\n$/, "");
  const ca = databaseCaFile === undefined ? undefined : await readFile(databaseCaFile, "utf8");
  return {
    kind: "url",
    url: url.href,
    tls: mode === "disable" ? "off" : "checked",
    ...(password === undefined ? {} : { password }),
    ...(ca === undefined ? {} : { ca }),
  };
}
