// Backup and restore: taken from a busy hub, restored elsewhere, the jobs and the appliances go on; nothing used is written over.

import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { runCommand } from "../../base/run-command.ts";
import {
  appliancePollResponseShape,
  applianceRegisterResponseShape,
  applianceRoutes,
  registrationKeyShape,
} from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import { parseApplianceId, parseOrderId } from "../../contract/ids.ts";
import { openDatabase, type Database } from "../db/database.ts";
import { nextFence } from "../db/fences.ts";
import { readServerAddress } from "../db/server-address.ts";
import { parseHubConfig, type HubConfig } from "../hub-config.ts";
import { JobEngine } from "../jobs/job-engine.ts";
import { readJob } from "../jobs/job-store.ts";
import { defineTrialJob, touchRows, trialStatements } from "../jobs/trial-job.ts";
import { makeRegistration } from "../test-appliance.ts";
import { callTarget, createLandingZone, findFreePort, loopbackNetwork, openTestHub, testDomain, type TestHub } from "../test-client.ts";
import { startTestServer, type TestServer } from "../test-server.ts";
import { backUpHub, restoreHub } from "./backup.ts";

const environment = { clock: systemClock, random: systemRandom, log: silentLog };
const passphrase = "correct horse battery";
const isFault =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof Fault && error.code === code;

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watari-bk-"));
  await chmod(folder, 0o711); // The database's own account walks through it.
});
after(async () => await rm(folder, { recursive: true, force: true }));

describe("a backup on a database server", () => {
  let server: TestServer;
  before(async () => void (server = await startTestServer()));
  after(async () => await server[Symbol.asyncDispose]());

  const configOf = (name: string, databaseUrl: string): HubConfig =>
    parseHubConfig({
      ...{ domain: testDomain, stateDir: join(folder, name), publicAddresses: ["127.0.0.1"] },
      ...{ databaseUrl, databaseCaFile: server.caFile, databasePasswordFile: server.passwordFile },
    });
  const open = async ({ databaseUrl = "", ...config }: HubConfig): Promise<Database> =>
    await openDatabase({ address: await readServerAddress({ ...config, url: databaseUrl }), log: silentLog, clock: systemClock });
  const engineOn = (database: Database): JobEngine =>
    new JobEngine({
      database,
      kinds: [defineTrialJob({ touch: touchRows, kill: () => assert.fail("not here") }, database.db, "Trial")],
      ...{ ...environment, leaseMs: 60_000, pollMs: 30 },
    });

  it("is restored with the jobs that were under way, which go on above every fencing number of before", async () => {
    const from = configOf("from", await server.createDatabase());
    await using database = await open(from);
    for (const statement of trialStatements) await sql.raw(statement).execute(database.db);
    await mkdir(from.stateDir);
    await writeFile(join(from.stateDir, "master.key"), systemRandom.bytes(32), { mode: 0o600 });
    const path = join(folder, "under-load.backup");
    const jobIds: string[] = [];
    {
      await using engine = engineOn(database);
      for (let index = 0; index < 20; index++) {
        const name = systemRandom.uuid();
        const target = { kind: "Trial", scope: "/v", targetId: name, targetName: name, lockKey: name, actor: "test" };
        // The first waits for a person, so that one at least is under way however slow the backup is.
        const parameters = index === 0 ? { moment: "two:inside", does: "hold" } : { pauseMs: 150 };
        jobIds.push(await engine.submit({ ...target, parameters }));
      }
      const manifest = await backUpHub({ config: from, path, passphrase, blobs: "absent" }, environment);
      assert.deepEqual([manifest.masterKey, manifest.blobs], ["sealed", "absent"]);
      await assert.rejects(backUpHub({ config: from, path, passphrase, blobs: "absent" }, environment), isFault("StateConflict"));
    }
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    const bytes = await readFile(path);
    assert.equal(bytes.includes(await readFile(join(from.stateDir, "master.key"))), false, "the key is not in it in clear");

    const to = configOf("to", await server.createDatabase());
    await assert.rejects(restoreHub({ config: to, path, passphrase: "a wrong passphrase" }, environment), isFault("InputInvalid"));
    await restoreHub({ config: to, path, passphrase }, environment);
    assert.deepEqual(await readFile(join(to.stateDir, "master.key")), await readFile(join(from.stateDir, "master.key")));
    await using restored = await open(to);
    const open1 = await sql<{ count: string }>`select count(*) from jobs where ended_at is null`.execute(restored.db);
    assert.ok(Number(open1.rows[0]?.count) > 0, "the backup caught jobs under way");
    assert.ok((await nextFence(restored.db)) > (await nextFence(database.db)) + 2 ** 39);
    await using engine = engineOn(restored);
    const [held = ""] = jobIds;
    while ((await readJob(restored.db, held))?.state !== "suspended") await systemClock.sleep(10);
    await engine.resume(held, "owner", "restored");
    for (const jobId of jobIds) assert.equal((await engine.wait(jobId)).state, "succeeded");
    await assert.rejects(restoreHub({ config: to, path, passphrase }, environment), isFault("StateConflict"), "the folder is used");
    const other = { ...to, stateDir: join(folder, "other") };
    await assert.rejects(restoreHub({ config: other, path, passphrase }, environment), isFault("StateConflict"), "the database is used");
  });

  it("that was changed, cut, or is of a newer hub is refused and leaves nothing", async () => {
    const from = configOf("good", await server.createDatabase());
    await (await open(from))[Symbol.asyncDispose]();
    await mkdir(from.stateDir);
    const path = join(folder, "good.backup");
    await backUpHub({ config: from, path, blobs: "absent" }, environment);
    const good = await readFile(path);
    const to = configOf("nothing", await server.createDatabase());
    const refuses = async (name: string, bytes: Uint8Array, code: string): Promise<void> => {
      await writeFile(join(folder, name), bytes);
      await assert.rejects(restoreHub({ config: to, path: join(folder, name) }, environment), isFault(code), name);
    };
    const flipped = Buffer.from(good);
    const middle = flipped.indexOf("PGDMP") + 500;
    flipped[middle] = (flipped[middle] ?? 0) ^ 1;
    await refuses("flipped", flipped, "DataDamaged");
    // A tar ends with zeros that hold nothing; to lose some of these is no harm.
    const endOfContent = good.findLastIndex((byte) => byte !== 0);
    for (const share of [0.1, 0.5, 0.9, 1]) await refuses("cut", good.subarray(0, Math.floor(endOfContent * share)), "DataDamaged");
    await refuses("noise", Buffer.from("no backup"), "DataDamaged");
    const parts = await mkdtemp(join(folder, "parts-"));
    await runCommand("tar", ["-xf", path, "-C", parts]);
    const manifest = (await readFile(join(parts, "manifest.json"), "utf8")).replace(/"schema": \d+/, '"schema": 9999');
    await writeFile(join(parts, "manifest.json"), manifest);
    await runCommand("tar", ["-cf", join(folder, "newer.backup"), "-C", parts, "manifest.json", "database.dump"]);
    await assert.rejects(restoreHub({ config: to, path: join(folder, "newer.backup") }, environment), isFault("StateConflict"));
    await writeFile(join(parts, "stowaway"), "x");
    await runCommand("tar", ["-cf", join(folder, "more.backup"), "-C", parts, "manifest.json", "database.dump", "stowaway"]);
    await assert.rejects(restoreHub({ config: to, path: join(folder, "more.backup") }, environment), isFault("DataDamaged"));
    await restoreHub({ config: to, path }, environment);
    await assert.rejects(stat(join(to.stateDir, "master.key")), "a key that was not in it is not made up");
  });
});

describe("a backup of a hub with a database of its own", () => {
  it("is taken while it works and restored elsewhere; operators and appliances come back with what they had", async () => {
    const cidr = loopbackNetwork();
    const place = { stateDir: join(folder, "own"), cidr, endpointPort: await findFreePort() };
    const path = join(folder, "own.backup");
    const configOf = (stateDir: string): HubConfig =>
      parseHubConfig({ domain: testDomain, stateDir, publicAddresses: ["127.0.0.1"], endpointPort: place.endpointPort });
    const orderId = parseOrderId(systemRandom.uuid());
    const written: string[] = [];
    let site;
    {
      const hub = await openTestHub(place);
      await using _hub = hub.hub;
      const { vaultIds } = await createLandingZone(hub, cidr);
      site = await registerAt(hub, vaultIds[0] ?? "");
      await hub.hub.services.orders.enqueue(parseApplianceId(site.applianceId), { kind: "discover", orderId });
      await mkdir(join(place.stateDir, "blob", "packs1", "kept"), { recursive: true });
      await writeFile(join(place.stateDir, "blob", "packs1", "kept", "pack"), "a pack");
      const over = new AbortController();
      const writing = (async () => {
        while (!over.signal.aborted) {
          const id = `${hub.groupPath}/providers/Microsoft.Migrate/migrateProjects/n${written.length}`;
          assert.equal((await hub.arm("PUT", id, { location: "lab1" })).status, 201);
          written.push(id);
        }
      })();
      while (written.length < 3) await systemClock.sleep(10);
      const before = [...written];
      await backUpHub({ config: configOf(place.stateDir), path, passphrase, blobs: "included" }, environment);
      over.abort();
      await writing;
      assert.equal((await hub.arm("GET", before[0] ?? "")).status, 200, "the backup did not stop the hub's database");
      written.splice(before.length);
    }
    const elsewhere = join(folder, "elsewhere");
    await restoreHub({ config: configOf(elsewhere), path, passphrase }, environment);
    const operatorFile = await readFile(join(place.stateDir, "operator.json"));
    await writeFile(join(elsewhere, "operator.json"), operatorFile, { mode: 0o600 }); // What the operator carried away.
    const hub = await openTestHub({ ...place, stateDir: elsewhere });
    await using _hub = hub.hub;
    for (const id of written) assert.equal((await hub.arm("GET", id)).status, 200, id);
    assert.equal(await readFile(join(elsewhere, "blob", "packs1", "kept", "pack"), "utf8"), "a pack");
    const served = hub.hub.privateLink.served().find((entry) => entry.fqdn === site.rcm1);
    const call = { protocolVersion: 1, applianceId: site.applianceId, results: [], progress: [], waitSeconds: 5 };
    const target = {
      name: site.rcm1,
      address: served?.address ?? "",
      port: place.endpointPort,
      ca: site.caPem,
      certificate: site.certificate,
    };
    const answer = await callTarget(target, { method: "POST", path: applianceRoutes.poll.path, body: call });
    assert.deepEqual(
      appliancePollResponseShape.parse(answer.body).orders.map((order) => order.orderId),
      [orderId],
      "the appliance trusts the restored hub, is known there, and gets its order",
    );
  });
});

async function registerAt(hub: TestHub, vaultId: string) {
  const key = registrationKeyShape.parse((await hub.arm("POST", `${vaultId}/registrationKeys`, {})).body);
  const served = hub.hub.privateLink.served().find((entry) => entry.fqdn === key.services.id1);
  const { body, keyPem } = await makeRegistration(key);
  const target = { name: key.services.id1, address: served?.address ?? "", port: served?.port ?? 0, ca: hub.hub.caPem };
  const answer = await callTarget(target, { method: "POST", path: applianceRoutes.register.path, body });
  const { applianceId, certificatePem } = applianceRegisterResponseShape.parse(answer.body);
  return { applianceId, rcm1: key.services.rcm1, caPem: hub.hub.caPem, certificate: { cert: certificatePem, key: keyPem } };
}
