// For tests: a private PostgreSQL cluster in a folder of its own, opened and migrated, gone afterwards.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { openDatabase, type Database, type DatabaseAddress } from "../db/database.ts";
import { startPrivateCluster } from "../db/private-cluster.ts";

export interface TestDatabase extends AsyncDisposable {
  readonly database: Database;
  readonly address: DatabaseAddress;
}

export async function openTestDatabase(): Promise<TestDatabase> {
  const stateDir = await mkdtemp(join(tmpdir(), "wj-"));
  const cluster = await startPrivateCluster({ stateDir, log: silentLog });
  const address: DatabaseAddress = {
    kind: "socket",
    socketFolder: cluster.socketFolder,
    user: cluster.user,
    database: cluster.database,
  };
  const database = await openDatabase({ address, log: silentLog, clock: systemClock });
  const close = async (): Promise<void> => {
    await database[Symbol.asyncDispose]();
    await cluster.stop();
    await rm(stateDir, { recursive: true, force: true });
  };
  return { database, address, [Symbol.asyncDispose]: close };
}
