// For tests: one private cluster per test file in a fresh folder, one fresh database each call, all removed at the end.

import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { openDatabase, type Database } from "./db/database.ts";
import { startPrivateCluster } from "./db/private-cluster.ts";

export interface TestCluster extends AsyncDisposable {
  readonly stateDir: string;
  /** A new, migrated database in the cluster. Close it with `await using`. */
  openFreshDatabase(): Promise<Database>;
}

export async function startTestCluster(): Promise<TestCluster> {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-pg-"));
  await chmod(stateDir, 0o711);
  const cluster = await startPrivateCluster({ stateDir, log: silentLog, lives: "as this program" });
  const { socketFolder, user } = cluster;
  return {
    stateDir,
    openFreshDatabase: async () => {
      const database = `test_${systemRandom.uuid().replaceAll("-", "")}`;
      await using first = await openDatabase({
        address: { kind: "socket", socketFolder, user, database: cluster.database },
        log: silentLog,
        clock: systemClock,
      });
      await sql.raw(`create database ${database}`).execute(first.db);
      return await openDatabase({ address: { kind: "socket", socketFolder, user, database }, log: silentLog, clock: systemClock });
    },
    [Symbol.asyncDispose]: async () => {
      await cluster.stop();
      await rm(stateDir, { recursive: true, force: true });
    },
  };
}
