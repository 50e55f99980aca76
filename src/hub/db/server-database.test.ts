// The database on a server of the site: checked TLS and password, hubs that start together, restarts, pauses and stuck sessions.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { JobEngine } from "../jobs/job-engine.ts";
import { readSteps } from "../jobs/job-store.ts";
import { defineTrialJob, touchRows, trialStatements } from "../jobs/trial-job.ts";
import { startTestServer, type TestServer } from "../test-server.ts";
import { openDatabase, type Database, type DatabaseAddress } from "./database.ts";
import { joinHubs } from "./hub-registry.ts";
import { newestSchema } from "./migrations.ts";
import { openSealer } from "./master-key-check.ts";
import { readServerAddress } from "./server-address.ts";

let server: TestServer;
let folder: string;
before(async () => {
  server = await startTestServer();
  folder = await mkdtemp(join(tmpdir(), "watari-server-"));
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const addressOf = async (url: string): Promise<DatabaseAddress> =>
  await readServerAddress({ url, databaseCaFile: server.caFile, databasePasswordFile: server.passwordFile });
const open = async (address: DatabaseAddress, more: object = {}): Promise<Database> =>
  await openDatabase({ address, log: silentLog, clock: systemClock, ...more });
const isFault =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof Fault && error.code === code;

describe("a database server", () => {
  it("is trusted only with its authority and its name, and only lets in who has the password", async () => {
    const url = await server.createDatabase();
    await using database = await open(await addressOf(url));
    const ssl = await sql<{ ssl: boolean }>`select ssl from pg_stat_ssl where pid = pg_backend_pid()`.execute(database.db);
    assert.equal(ssl.rows[0]?.ssl, true);
    const { databasePasswordFile, databaseCaFile } = { databasePasswordFile: server.passwordFile, databaseCaFile: server.caFile };
    await assert.rejects(open(await readServerAddress({ url, databasePasswordFile })), isFault("DatabaseUnavailable"));
    const byAddress = url.replace("localhost", "127.0.0.1");
    await assert.rejects(open(await addressOf(byAddress)), isFault("DatabaseUnavailable"));
    const wrong = join(folder, "wrong");
    await writeFile(wrong, "not it");
    const guessed = await readServerAddress({ url, databaseCaFile, databasePasswordFile: wrong });
    await assert.rejects(open(guessed), (error) => isFault("DatabaseUnavailable")(error) && !JSON.stringify(error).includes("not it"));
    await assert.rejects(open(await addressOf(`${url}?sslmode=disable`)), isFault("DatabaseUnavailable"), "the server refuses it in clear");
  });

  it("is not named with a password or an unchecked connection in the URL", async () => {
    for (const url of ["postgres://watari:secret@localhost/x", "postgres://localhost/x?sslmode=require", "mysql://localhost/x", "x"])
      await assert.rejects(readServerAddress({ url }), (error) => isFault("InputInvalid")(error) && !String(error).includes("secret"));
  });

  it("is migrated once by hubs that start together, and keeps hubs with another master key out", async () => {
    const address = await addressOf(await server.createDatabase());
    const opened = await Promise.all(Array.from({ length: 4 }, async () => await open(address, { connectionsMax: 2 })));
    try {
      const [first] = opened;
      const { db } = first ?? assert.fail("opened");
      const applied = await sql<{ number: number }>`select number from schema_migrations order by number`.execute(db);
      assert.equal(applied.rows.at(-1)?.number, newestSchema);
      const path = join(folder, systemRandom.uuid());
      await openSealer({ db, path, random: systemRandom });
      await openSealer({ db, path, random: systemRandom });
      await assert.rejects(openSealer({ db, path: join(folder, systemRandom.uuid()), random: systemRandom }), isFault("DataDamaged"));
      const other = join(folder, systemRandom.uuid());
      await writeFile(other, systemRandom.bytes(32));
      await assert.rejects(openSealer({ db, path: other, random: systemRandom }), isFault("DataDamaged"));
    } finally {
      for (const database of opened) await database[Symbol.asyncDispose]();
    }
  });

  it("is not brought to a newer schema while an older hub runs, and refuses an older hub after that", async () => {
    const address = await addressOf(await server.createDatabase());
    {
      await using database = await open(address);
      await sql`delete from schema_migrations where number = ${newestSchema}`.execute(database.db);
      await sql`insert into hubs (hub_id, host, schema) values (gen_random_uuid(), 'old', ${newestSchema - 1})`.execute(database.db);
      let nowMs = 0;
      const clock = { ...systemClock, monotonicMs: () => (nowMs += 10_000), sleep: async () => undefined };
      await assert.rejects(openDatabase({ address, log: silentLog, clock }), isFault("StateConflict"));
      await sql`insert into schema_migrations (number, name) values (${newestSchema}, 'as it was')`.execute(database.db);
    }
    await using database = await open(address);
    await using _here = await joinHubs({ db: database.db, hubId: systemRandom.uuid(), clock: systemClock, log: silentLog });
    await sql`insert into schema_migrations (number, name) values (${newestSchema + 1}, 'of the future')`.execute(database.db);
    await assert.rejects(open(address), isFault("StateConflict"));
  });
});

describe("jobs on a database server", () => {
  const kind = "Trial";
  const world = { touch: touchRows, kill: (): void => assert.fail("not here") };
  const engineOn = (database: Database, more: object = {}): JobEngine =>
    new JobEngine({
      database,
      kinds: [defineTrialJob(world, database.db, kind)],
      ...{ clock: systemClock, random: systemRandom, log: silentLog, leaseMs: 600, pollMs: 30, ...more },
    });
  const submit = async (engine: JobEngine, parameters: object): Promise<string> => {
    const name = systemRandom.uuid();
    return await engine.submit({ kind, scope: "/v", targetId: name, targetName: name, lockKey: name, actor: "test", parameters });
  };

  async function openTrials(more: object = {}): Promise<Database> {
    const database = await open(await addressOf(await server.createDatabase()), more);
    for (const statement of trialStatements) await sql.raw(statement).execute(database.db);
    return database;
  }

  async function assertWhole(database: Database, jobIds: readonly string[]): Promise<void> {
    for (const jobId of jobIds) {
      const ends = await sql<{ outcome: string }>`select outcome from trial_ends where job_id = ${jobId}`.execute(database.db);
      assert.deepEqual(
        ends.rows.map((row) => row.outcome),
        ["succeeded"],
      );
      const acts = await sql<{ fence: string }>`select fence from trial_acts where job_id = ${jobId} order by serial`.execute(database.db);
      const fences = acts.rows.map((row) => Number(row.fence));
      assert.deepEqual(
        fences,
        fences.toSorted((left, right) => left - right),
      );
    }
  }

  for (const cut of ["restart", "pause"] as const)
    it(`all end as if nothing had been after a ${cut} of the server`, async () => {
      await using database = await openTrials();
      await using engine = engineOn(database);
      const jobIds: string[] = [];
      for (let index = 0; index < 12; index++) jobIds.push(await submit(engine, { pauseMs: 40 }));
      await systemClock.sleep(100);
      if (cut === "restart") await server.restart();
      else {
        await server.pause();
        await systemClock.sleep(1500); // Longer than the lease.
        await server.resume();
      }
      for (const jobId of jobIds) assert.equal((await waitThrough(engine, jobId)).state, "succeeded");
      await assertWhole(database, jobIds);
    });

  it("run 64 at once over a pool of four, none holding a connection while it waits", async () => {
    await using database = await openTrials({ connectionsMax: 4 });
    await using engine = engineOn(database, { leaseMs: 5000 });
    const jobIds = await Promise.all(Array.from({ length: 64 }, async () => await submit(engine, { moment: "two:inside", does: "hold" })));
    const states = async (): Promise<string> =>
      (await sql<{ count: string }>`select count(*) from jobs where state = 'suspended'`.execute(database.db)).rows[0]?.count ?? "";
    while ((await states()) !== "64") await systemClock.sleep(20);
    await Promise.all(jobIds.map(async (jobId) => await engine.resume(jobId, "anna", "")));
    for (const jobId of jobIds) assert.equal((await engine.wait(jobId)).state, "succeeded");
    await assertWhole(database, jobIds);
  });

  it("are taken from a hub that is stuck in a transaction, because the server ends its session", async () => {
    await using database = await openTrials({ idleTransactionMsMax: 300 });
    const stuck = engineOn(database, { jobsMax: 0 });
    const jobId = await submit(stuck, {});
    await stuck[Symbol.asyncDispose]();
    const holding = database.db.transaction().execute(async (transaction) => {
      await sql`select 1 from jobs where job_id = ${jobId} for update`.execute(transaction);
      await systemClock.sleep(2000);
      await sql`select 1`.execute(transaction);
    });
    await using engine = engineOn(database);
    assert.equal((await engine.wait(jobId)).state, "succeeded");
    assert.equal((await readSteps(database.db, jobId)).length, 4);
    await assert.rejects(holding);
  });
});

/** The test's own question may be cut off too. */
async function waitThrough(engine: JobEngine, jobId: string): Promise<{ readonly state: string }> {
  for (;;) {
    try {
      return await engine.wait(jobId);
    } catch {
      await systemClock.sleep(50);
    }
  }
}
