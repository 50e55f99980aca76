// Health errors are raised while a thing is wrong and cleared when it is not, each with one event, whatever number of hubs look and die.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sql } from "kysely";
import { systemClock, toTimestamp, type Clock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import { openDatabase, type Database } from "../db/database.ts";
import { openEventStore, type EventStore } from "../db/events.ts";
import { countHealthErrors, openHealthErrors } from "../db/health-errors.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { healthLevel, presentHealthError } from "./present-health.ts";
import { reconcileHealth, startHealth, type HealthDependencies } from "./reconciler.ts";

let cluster: TestCluster;
before(async () => {
  cluster = await startTestCluster();
});
after(async () => await cluster[Symbol.asyncDispose]());

const minuteMs = 60_000;
const group = "/subscriptions/S/resourceGroups/G/providers";
const vault = `${group}/Microsoft.RecoveryServices/vaults/V`;
const account = `${group}/Microsoft.Storage/storageAccounts/a`;
const appliance = systemRandom.uuid();
const fabric = `${vault}/replicationFabrics/${appliance}`;
const container = `${fabric}/replicationProtectionContainers/cloud`;
const itemType = "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers/replicationProtectedItems";

interface Bench extends HealthDependencies {
  readonly database: Database;
  readonly events: EventStore;
  /** Sets what the hub takes for now. */
  pass(ms: number): void;
  nowText(): string;
  readonly names: Set<string>;
  readonly roles: { isGiven: boolean };
}

function createBench(database: Database, startMs = systemClock.nowMs()): Bench {
  let offsetMs = 0;
  const clock: Clock = { ...systemClock, nowMs: () => startMs + offsetMs };
  const names = new Set<string>();
  const roles = { isGiven: true };
  const events = openEventStore({ db: database.db, clock, random: systemRandom });
  const open = async (): Promise<never> => {
    await sql`select 1`.execute(database.db); // As real vaults do: they ask the pool for their account.
    throw roles.isGiven ? new Fault("StateConflict", "no matter") : new Fault("StorageRoleMissing", "no role");
  };
  return {
    services: { clock, log: silentLog, database, events, vaults: { open } },
    landedNames: async () => [...names],
    place: "here",
    database,
    events,
    names,
    roles,
    pass: (ms) => void (offsetMs += ms),
    nowText: () => toTimestamp(clock.nowMs()),
  };
}

async function put(database: Database, id: string, type: string, properties: object, at = "2020-01-01T00:00:00Z"): Promise<void> {
  await sql`insert into resources (key, id, type, name, parent_key, envelope, properties, provisioning_state, etag, created_at, updated_at)
    values (${id.toLowerCase()}, ${id}, ${type.toLowerCase()}, ${id.split("/").at(-1)}, '', '{}', ${JSON.stringify(properties)}::jsonb, 'Succeeded', 'e', ${at}, ${at})
    on conflict (key) do update set properties = excluded.properties`.execute(database.db);
}

async function putAppliance({ database, nowText }: Bench, registeredAt = nowText()): Promise<void> {
  await put(database, vault, "Microsoft.RecoveryServices/vaults", { watariStorageAccountId: account });
  await sql`insert into appliances (appliance_id, vault_key, name, version, certificate_digest, registered_at, last_seen_at)
    values (${appliance}, ${vault.toLowerCase()}, 'site one', '1', 'd', ${registeredAt}, ${nowText()})`.execute(database.db);
}

async function putItem({ database, nowText }: Bench, name: string): Promise<{ readonly id: string; readonly machineId: string }> {
  const machineId = systemRandom.uuid();
  const id = `${container}/replicationProtectedItems/${name}`;
  await put(database, id, itemType, { machineName: name, machineId, policyName: "Fast", protectionState: "Protected" });
  await sql`insert into machine_states values (${vault.toLowerCase()}, ${machineId}, ${appliance}, ${nowText()}, '{}')`.execute(
    database.db,
  );
  return { id, machineId };
}

async function putPoint({ database, services }: Bench, machineId: string, consistency = "crash"): Promise<void> {
  await sql`insert into points values (${vault.toLowerCase()}, ${machineId}, ${systemRandom.uuid()}, ${services.clock.nowMs()}, ${consistency}, '{}')`.execute(
    database.db,
  );
}

async function codes({ database }: Bench, id: string): Promise<readonly string[]> {
  return (await openHealthErrors(database.db, id)).map(({ code }) => code).toSorted();
}

async function told({ events }: Bench): Promise<readonly string[]> {
  const { events: found } = await events.list(vault.toLowerCase(), { countMax: 1000 });
  return found.map(({ code, affected }) => `${code} ${affected.name}`).toSorted();
}

test("a lost appliance is raised once, stays, and is cleared when it is heard again", async () => {
  await using database = await cluster.openFreshDatabase();
  const bench = createBench(database);
  await putAppliance(bench);
  bench.pass(14 * minuteMs);
  await reconcileHealth(bench);
  assert.deepEqual(await codes(bench, fabric), []);
  bench.pass(2 * minuteMs);
  await reconcileHealth(bench);
  await reconcileHealth(createBench(database, bench.services.clock.nowMs())); // As after a restart.
  const [error] = await openHealthErrors(database.db, fabric);
  assert.ok(error !== undefined);
  const shown = presentHealthError(error);
  assert.equal(shown["errorCode"], "ApplianceSilent");
  assert.equal(shown["entityId"], fabric);
  assert.equal(shown["errorCategory"], "FabricInfrastructure");
  assert.equal(healthLevel([error]), "Critical");
  await sql`update appliances set last_seen_at = ${bench.nowText()}`.execute(database.db);
  await reconcileHealth(bench);
  assert.deepEqual(await codes(bench, fabric), []);
  assert.deepEqual(await told(bench), ["ApplianceSilent site one", "ApplianceSilentCleared site one"]);
});

test("a cache with little room is raised with the appliance's own words, and cleared when it tells of it no more", async () => {
  await using database = await cluster.openFreshDatabase();
  const bench = createBench(database);
  await putAppliance(bench);
  const tell = async (faults: readonly Fault[]): Promise<readonly string[]> => {
    const telemetry = { healthErrors: faults.map(toReport) };
    await sql`update appliances set telemetry = ${JSON.stringify(telemetry)}::jsonb`.execute(database.db);
    await reconcileHealth(bench);
    return await codes(bench, fabric);
  };
  const other = new Fault("StoreUnavailable", "the storage account does not answer");
  assert.deepEqual(await tell([other]), []);
  assert.deepEqual(await tell([other, new Fault("CacheSpaceLow", "12 % of the cache is free")]), ["CacheSpaceLow"]);
  assert.match((await openHealthErrors(database.db, fabric))[0]?.message ?? "", /site one: 12 % of the cache is free/);
  assert.deepEqual(await tell([]), []);
  assert.deepEqual(await told(bench), ["CacheSpaceLow site one", "CacheSpaceLowCleared site one"]);
});

test("an agent is silent and its recovery point overdue by its policy's interval, other items are not", async () => {
  await using database = await cluster.openFreshDatabase();
  const bench = createBench(database);
  await putAppliance(bench);
  await put(database, `${vault}/replicationPolicies/fast`, "Microsoft.RecoveryServices/vaults/replicationPolicies", {
    settings: { crashConsistentFrequencyInMinutes: 10 },
  });
  const [ill, well] = [await putItem(bench, "ill"), await putItem(bench, "well")];
  await putPoint(bench, ill.machineId);
  bench.pass(29 * minuteMs);
  await putPoint(bench, well.machineId);
  await sql`update machine_states set last_seen_at = ${bench.nowText()} where machine_id = ${well.machineId}`.execute(database.db);
  await reconcileHealth(bench);
  assert.deepEqual(await codes(bench, ill.id), ["AgentSilent"]); // Three intervals of ten minutes are not over.
  bench.pass(2 * minuteMs);
  await reconcileHealth(bench);
  assert.deepEqual(await codes(bench, ill.id), ["AgentSilent", "RecoveryPointOverdue"]);
  assert.deepEqual(await codes(bench, well.id), []);
  await putPoint(bench, ill.machineId);
  await reconcileHealth(bench);
  assert.deepEqual(await codes(bench, ill.id), ["AgentSilent"]);
});

test("application-consistent points are overdue by their own interval, whatever others come, and only where they are asked for", async () => {
  await using database = await cluster.openFreshDatabase();
  const bench = createBench(database);
  await putAppliance(bench);
  const asked = await putItem(bench, "asked");
  await putPoint(bench, asked.machineId, "application");
  const policy = async (minutes: number): Promise<void> =>
    await put(database, `${vault}/replicationPolicies/fast`, "Microsoft.RecoveryServices/vaults/replicationPolicies", {
      settings: { crashConsistentFrequencyInMinutes: 60, appConsistentFrequencyInMinutes: minutes },
    });
  const after = async (minutes: number): Promise<readonly string[]> => {
    bench.pass(minutes * minuteMs);
    await sql`update machine_states set last_seen_at = ${bench.nowText()}`.execute(database.db);
    await sql`update appliances set last_seen_at = ${bench.nowText()}`.execute(database.db);
    await putPoint(bench, asked.machineId);
    await reconcileHealth(bench);
    return await codes(bench, asked.id);
  };
  await policy(20);
  assert.deepEqual(await after(59), []);
  assert.deepEqual(await after(2), ["ApplicationPointOverdue"]);
  await policy(0);
  assert.deepEqual(await after(0), []);
  await policy(20);
  assert.deepEqual(await after(0), ["ApplicationPointOverdue"]);
  await putPoint(bench, asked.machineId, "application");
  assert.deepEqual(await after(0), []);
});

test("certificates, roles, endpoints, jobs and landed machines are judged and cleared", async () => {
  await using database = await cluster.openFreshDatabase();
  const bench = createBench(database);
  await putAppliance(bench, toTimestamp(bench.services.clock.nowMs() - 330 * 24 * 60 * minuteMs));
  const { id } = await putItem(bench, "one");
  await putPoint(bench, (await sql<{ id: string }>`select machine_id as id from machine_states`.execute(database.db)).rows[0]?.id ?? "");
  await put(database, `${group}/Microsoft.Compute/virtualMachines/one-test`, "Microsoft.Compute/virtualMachines", {
    ...{ itemId: id, place: "here", launch: { name: "one-test" } },
  });
  const endpoint = `${group}/Microsoft.Network/privateEndpoints/pe`;
  const link = (status: string): object => ({
    privateLinkServiceConnections: [{ properties: { privateLinkServiceId: account, privateLinkServiceConnectionState: { status } } }],
  });
  await put(database, endpoint, "Microsoft.Network/privateEndpoints", link("Rejected"));
  const jobId = systemRandom.uuid();
  await sql`insert into jobs (job_id, kind, title, scope, target_id, target_name, lock_key, actor, parameters, state, created_at)
    values (${jobId}, 'K', 'Test', ${vault.toLowerCase()}, 'x', 'two', 'x', 'a', '{}', 'notStarted', ${bench.nowText()})`.execute(
    database.db,
  );
  bench.roles.isGiven = false;
  bench.pass(11 * minuteMs);
  await putPoint(bench, (await sql<{ id: string }>`select machine_id as id from machine_states`.execute(database.db)).rows[0]?.id ?? "");
  await reconcileHealth(bench);
  assert.deepEqual(await codes(bench, fabric), ["ApplianceCertificateEnding"]);
  assert.deepEqual(await codes(bench, vault), ["StorageRoleMissing"]);
  assert.deepEqual(await codes(bench, endpoint), ["PrivateEndpointUnapproved"]);
  assert.deepEqual(await codes(bench, `${vault}/replicationJobs/${jobId}`), ["JobStuck"]);
  assert.deepEqual(await codes(bench, id), ["LandedMachineGone"]);
  await reconcileHealth({ ...bench, place: "elsewhere" }); // That host does not have it either, and it is none of its business.
  assert.deepEqual(await codes(bench, id), ["LandedMachineGone"]);
  bench.names.add("one-test");
  bench.roles.isGiven = true;
  await put(database, endpoint, "Microsoft.Network/privateEndpoints", link("Approved"));
  await sql`update jobs set ended_at = now()`.execute(database.db);
  await sql`update appliances set registered_at = ${bench.nowText()}`.execute(database.db);
  await reconcileHealth(bench);
  assert.deepEqual(await countHealthErrors(database.db, vault), []);
  assert.equal((await told(bench)).length, 10);
});

test("two hubs and one that dies between errors and events tell each change once, with thousands of items", async () => {
  await using database = await cluster.openFreshDatabase();
  await using other = await openDatabase({ address: database.address, log: silentLog, clock: systemClock });
  const bench = createBench(database);
  await putAppliance(bench);
  await sql`insert into resources (key, id, type, name, parent_key, envelope, properties, provisioning_state, etag, created_at, updated_at)
    select lower(${container} || '/replicationProtectedItems/m' || n), ${container} || '/replicationProtectedItems/m' || n, ${itemType.toLowerCase()}, 'm' || n, '', '{}',
      jsonb_build_object('machineName', 'm' || n, 'policyName', 'Fast', 'protectionState', 'InitialReplicationInProgress',
        'machineId', '00000000-0000-0000-0000-' || lpad(n::text, 12, '0')), 'Succeeded', 'e', now(), now() from generate_series(1, 3000) n`.execute(
    database.db,
  );
  await sql`insert into machine_states select ${vault.toLowerCase()}, ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, ${appliance}, ${bench.nowText()}, '{}'
    from generate_series(1, 3000) n`.execute(database.db);
  bench.pass(16 * minuteMs);
  let left = 700;
  const dying: EventStore = {
    ...bench.events,
    record: async (event, transaction) => {
      if (left-- === 0) throw new Error("killed");
      return await bench.events.record(event, transaction);
    },
  };
  await assert.rejects(reconcileHealth({ ...bench, services: { ...bench.services, events: dying } }), /killed/);
  const ofOther = createBench(other, bench.services.clock.nowMs());
  await Promise.all([reconcileHealth(bench), reconcileHealth(ofOther)]);
  assert.deepEqual(await countHealthErrors(database.db, vault), [
    { code: "AgentSilent", count: 3000 },
    { code: "ApplianceSilent", count: 1 },
  ]);
  const counted = await sql<{ count: string }>`select count(*) as count from events`.execute(database.db);
  assert.equal(Number(counted.rows[0]?.count), 3001);
});

test("a running reconciler judges at once when an appliance comes back", async () => {
  await using database = await cluster.openFreshDatabase();
  const bench = createBench(database);
  await putAppliance(bench);
  bench.pass(16 * minuteMs);
  await reconcileHealth(bench);
  const changed = Promise.withResolvers<string>();
  const events: EventStore = {
    ...bench.events,
    record: async (event, transaction) => {
      changed.resolve(event.code);
      return await bench.events.record(event, transaction);
    },
  };
  await using _running = startHealth({ ...bench, services: { ...bench.services, events }, limits: { intervalMs: 10 * minuteMs } });
  await sql`update appliances set last_seen_at = ${bench.nowText()}`.execute(database.db);
  assert.equal(await changed.promise, "ApplianceSilentCleared");
});

test("alerts that do not arrive are an error of their vault, until they do", async () => {
  await using database = await cluster.openFreshDatabase();
  const bench = createBench(database);
  await put(database, vault, "Microsoft.RecoveryServices/vaults", {});
  const change = async (state: string, attempts: number, endedAt: string | null): Promise<void> => {
    await sql`delete from alert_messages`.execute(database.db);
    await sql`insert into alert_messages (message_id, target_key, target_id, channel, vault_key, state, attempt_count, outcome, ended_at)
      values (${systemRandom.uuid()}, 't', ${`${vault}/providers/Watari.Alerts/webhooks/desk`}, 'webhook', ${vault.toLowerCase()}, ${state},
        ${attempts}, '{}', ${endedAt}::timestamptz)`.execute(database.db);
    await reconcileHealth(bench);
  };
  const now = toTimestamp(systemClock.nowMs());
  const old = toTimestamp(systemClock.nowMs() - 25 * 60 * minuteMs);
  for (const [state, attempts, endedAt, isWrong] of [
    ["waiting", 2, null, false],
    ["waiting", 3, null, true],
    ["sent", 4, now, false],
    ["dead", 1, now, true],
    ["dead", 1, old, false],
  ] as const) {
    await change(state, attempts, endedAt);
    assert.deepEqual(await codes(bench, vault), isWrong ? ["AlertNotDelivered"] : [], `${state} ${attempts}`);
  }
  assert.match((await told(bench)).join(), /AlertNotDelivered v.*AlertNotDeliveredCleared v/i);
});
