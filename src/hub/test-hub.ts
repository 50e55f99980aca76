// For tests: one private cluster per test file in a fresh folder, one fresh database each call, all removed at the end.

import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { openDatabase, openPlainConnection, type Database } from "./db/database.ts";
import { startPrivateCluster, type PrivateCluster } from "./db/private-cluster.ts";

export interface TestCluster extends AsyncDisposable {
  readonly stateDir: string;
  readonly cluster: PrivateCluster;
  /** A new, migrated database in the cluster. Close it with `await using`. */
  openFreshDatabase(): Promise<Database>;
}

/** In a folder of its own, in the one that is given or in that of temporary files. */
export async function startTestCluster(parent: string = tmpdir()): Promise<TestCluster> {
  const stateDir = await mkdtemp(join(parent, "watari-pg-"));
  await chmod(stateDir, 0o711);
  const cluster = await startPrivateCluster({ stateDir, log: silentLog, lives: "as this program" });
  const { socketFolder, user } = cluster;
  const addressOf = (database: string) => ({ kind: "socket", socketFolder, user, database }) as const;
  const environment = { log: silentLog, clock: systemClock };
  /** Migrated once; each database of a test is a copy of it. */
  const makeModel = async (): Promise<string> => {
    const model = "test_model";
    await using first = openPlainConnection(addressOf("postgres"), silentLog);
    await sql.raw(`create database ${model}`).execute(first.db);
    await using _migrated = await openDatabase({ address: addressOf(model), ...environment });
    return model;
  };
  let model: Promise<string> | undefined;
  return {
    stateDir,
    cluster,
    openFreshDatabase: async () => {
      model ??= makeModel();
      const [database, template] = [`test_${systemRandom.uuid().replaceAll("-", "")}`, await model];
      await using first = openPlainConnection(addressOf("postgres"), silentLog);
      await sql.raw(`create database ${database} template ${template}`).execute(first.db);
      return await openDatabase({ address: addressOf(database), ...environment });
    },
    [Symbol.asyncDispose]: async () => {
      await cluster.stop();
      await rm(stateDir, { recursive: true, force: true });
    },
  };
}
