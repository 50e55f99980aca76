// The collector finds each kind of thing that nothing counts on, removes it, and leaves alone what is in use.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { parseDiskId } from "../../contract/ids.ts";
import { MemoryDisk } from "../../disk/memory-disk.ts";
import { simGuestMark, SimTarget, SimWorld } from "../../landing/sim/sim-target.ts";
import type { Database } from "../db/database.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { Collector } from "./collector.ts";
import { startCollecting } from "./collector-loop.ts";
import { askCollection, readCollection } from "../db/collections.ts";

let cluster: TestCluster;
let folder: string;
before(async () => {
  cluster = await startTestCluster();
  folder = await mkdtemp(join(tmpdir(), "wc-"));
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const group = "/subscriptions/s/resourcegroups/g";
const vault = `${group}/providers/microsoft.recoveryservices/vaults/v`;
const item = `${vault}/replicationfabrics/f/replicationprotectioncontainers/c/replicationprotecteditems/i`;
const uuid = (): string => systemRandom.uuid();

async function putResource(database: Database, key: string, type: string, properties: object, state = "Succeeded"): Promise<void> {
  await sql`insert into resources (key, id, type, name, parent_key, envelope, properties, provisioning_state, etag, created_at, updated_at)
    values (${key.toLowerCase()}, ${key}, ${type}, 'n', ${group}, '{}', ${JSON.stringify(properties)}::jsonb, ${state}, 'e', now(), now())`.execute(
    database.db,
  );
}

async function putJob(
  database: Database,
  state: string,
  more: { readonly targetId?: string; readonly folder?: string } = {},
): Promise<string> {
  const jobId = uuid();
  const hasEnded = state !== "inProgress";
  await sql`insert into jobs (job_id, kind, title, scope, target_id, target_name, lock_key, actor, parameters, state, ended_at)
    values (${jobId}, 'ExportPoint', 't', '/other', ${more.targetId ?? "/x"}, 'n', ${jobId}, 'a', '{"format": "raw"}', ${state},
      ${hasEnded ? sql`now()` : null})`.execute(database.db);
  const evidence = more.folder === undefined ? {} : { folder: more.folder, diskCount: 1 };
  await sql`insert into job_steps (job_id, name, title, position, evidence)
    values (${jobId}, 'choosePoint', 't', 0, ${JSON.stringify(evidence)}::jsonb)`.execute(database.db);
  return jobId;
}

async function putOrder(database: Database, applianceId: string, jobId: string | null): Promise<string> {
  const orderId = uuid();
  await sql`insert into orders (order_id, appliance_id, kind, body, state, percent, progress_text, created_at, job_id)
    values (${orderId}, ${applianceId}, 'discover', '{}', 'queued', 0, '', now(), ${jobId})`.execute(database.db);
  return orderId;
}

async function putAppliance(database: Database): Promise<string> {
  const applianceId = uuid();
  await sql`insert into appliances (appliance_id, vault_key, name, version, certificate_digest, registered_at, last_seen_at)
    values (${applianceId}, ${vault}, 'a', '1', ${applianceId}, now(), now())`.execute(database.db);
  return applianceId;
}

async function launch(target: SimTarget, name: string): Promise<void> {
  const content = Buffer.alloc(2 ** 20);
  content.write(simGuestMark);
  const disks = [{ diskId: parseDiskId("boot"), isBoot: true, content: new MemoryDisk(content) }];
  const shape = { name, cpuCount: 1, memoryBytes: 2 ** 28, firmware: "bios", network: { kind: "isolated" } } as const;
  await target.under({ kind: "job", fence: 1 }).launch({ ...shape, disks, nics: [] });
}

/** One thing of each kind in use, one of each kind that nothing counts on. */
async function plant(database: Database, target: SimTarget): Promise<readonly string[]> {
  const { db } = database;
  const applianceId = await putAppliance(database);
  const machineId = uuid();
  await putResource(database, vault, "microsoft.recoveryservices/vaults", {});
  await putResource(
    database,
    item,
    "microsoft.recoveryservices/vaults/replicationfabrics/replicationprotectioncontainers/replicationprotecteditems",
    {
      machineId,
    },
  );
  const running = await putJob(database, "inProgress", { targetId: item, folder: join(folder, "being-written") });
  await putOrder(database, applianceId, null);
  await putOrder(database, applianceId, running);
  await putResource(
    database,
    `${group}/providers/Microsoft.Compute/virtualMachines/web`,
    "microsoft.compute/virtualmachines",
    {
      itemId: item,
      launch: { name: "web" },
    },
    "Creating",
  );
  await launch(target, "web");
  for (const name of ["being-written", "given-up"]) await mkdir(join(folder, name), { recursive: true });
  for (const id of [machineId, uuid()]) {
    await sql`insert into machine_states values (${vault}, ${id}, ${applianceId}, now(), '{}')`.execute(db);
    await sql`insert into points values (${vault}, ${id}, ${uuid()}, 1, 'crash', '{}')`.execute(db);
  }
  for (const owner of [vault, `${vault}/sub/x`, "hub", `${group}/providers/microsoft.storage/storageaccounts/gone`])
    await sql`insert into secrets values (${owner}, 'key', '\\x00')`.execute(db);
  await sql`insert into operations (operation_id, resource_id, action, status, percent, started_at) values (${running}, '/x', 'a', 'InProgress', 0, now())`.execute(
    db,
  );

  const ended = await putJob(database, "failed", { folder: join(folder, "given-up") });
  await putOrder(database, applianceId, ended);
  await putOrder(database, uuid(), null);
  await sql`insert into operations (operation_id, resource_id, action, status, percent, started_at)
    values (${ended}, '/x', 'a', 'InProgress', 0, now()), (gen_random_uuid(), '/x', 'a', 'InProgress', 0, now() - interval '2 hours')`.execute(
    db,
  );
  await sql`insert into private_addresses values ('/s', '127.0.0.9', '/gone', 'm')`.execute(db);
  await sql`insert into registration_keys values (${uuid()}, '/gone', null, now(), null, null)`.execute(db);
  const network = `${group}/providers/Microsoft.Network`;
  await putResource(database, `${network}/networkInterfaces/gone.nic`, "microsoft.network/networkinterfaces", {
    privateEndpoint: { id: "/gone" },
  });
  await putResource(database, `${network}/networkInterfaces/own.nic`, "microsoft.network/networkinterfaces", {});
  await putResource(database, `${network}/privateDnsZones/z/A/a`, "microsoft.network/privatednszones/a", {
    metadata: { creator: "/gone/privateDnsZoneGroups/default" },
  });
  await putResource(database, `${network}/privateDnsZones/z/A/own`, "microsoft.network/privatednszones/a", {
    metadata: { creator: "anna" },
  });
  await putResource(
    database,
    `${group}/providers/Microsoft.Compute/virtualMachines/never`,
    "microsoft.compute/virtualmachines",
    {
      itemId: "/gone",
      launch: { name: "never" },
    },
    "Creating",
  );
  await launch(target, "forgotten");
  return [
    "catalogued point",
    "endpoint interface",
    "endpoint record",
    "export folder",
    "landed machine",
    "landed machine's row",
    "machine state",
    "operation in progress",
    "operation in progress",
    "order of an ended job",
    "order of no appliance",
    "private address",
    "registration key",
    "secret",
  ];
}

describe("the collector", () => {
  it("finds one of each kind, removes it, and leaves what is in use", async () => {
    await using database = await cluster.openFreshDatabase();
    await using target = new SimTarget({ world: new SimWorld(), clock: systemClock });
    const images = { remove: async (path: string) => await rm(path, { recursive: true }) };
    const collector = new Collector({ database, log: silentLog, target, images });
    assert.deepEqual(await collector.find(), []);
    const planted = await plant(database, target);
    const found = await collector.find();
    assert.deepEqual(found.map((orphan) => orphan.kind).toSorted(byText), planted);
    assert.deepEqual(await collector.remove(found), []);
    assert.deepEqual(await collector.find(), []);
    assert.deepEqual(await target.list(), ["web"]);
    const counts = await sql<{ text: string }>`select concat_ws(' ',
      (select count(*) from orders where state = 'queued'), (select count(*) from machine_states), (select count(*) from points),
      (select count(*) from secrets), (select count(*) from operations where status = 'InProgress')) as text`.execute(database.db);
    assert.equal(counts.rows[0]?.text, "2 1 1 3 1");
  });

  it("is asked by a command through the database, to look or to remove", async () => {
    await using database = await cluster.openFreshDatabase();
    const collector = new Collector({ database, log: silentLog });
    await sql`insert into private_addresses values ('/s', '127.0.0.9', '/gone', 'm')`.execute(database.db);
    await using _collecting = startCollecting({ collector, database, clock: systemClock, log: silentLog });
    const ask = async (mode: "look" | "apply") => {
      const collectionId = await askCollection(database.db, mode);
      for (;;) {
        const answered = await readCollection(database.db, collectionId);
        if (answered !== undefined) return answered.answer as { found: object[]; left: object[] };
        await systemClock.sleep(10);
      }
    };
    const looked = await ask("look");
    assert.deepEqual([looked.found.length, looked.left.length], [1, 1]);
    const applied = await ask("apply");
    assert.deepEqual([applied.found.length, applied.left.length], [1, 0]);
    assert.deepEqual((await ask("look")).found, []);
  });
});

const byText = (left: string, right: string): number => (left < right ? -1 : left > right ? 1 : 0);
