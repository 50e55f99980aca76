// The database: resources, operations, orders and secrets keep their promises on a real PostgreSQL, also when its server is killed.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { parseApplianceId, parseOrderId } from "../../contract/ids.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openDatabase } from "./database.ts";
import { openOperationStore } from "./operations.ts";
import { openOrderQueue } from "./orders.ts";
import { openPrivateAddresses } from "./private-addresses.ts";
import { startPrivateCluster } from "./private-cluster.ts";
import { openResourceStore } from "./resources.ts";
import { createSealer, openSecretStore } from "./secrets.ts";

let cluster: TestCluster;
before(async () => {
  cluster = await startTestCluster();
});
after(async () => await cluster[Symbol.asyncDispose]());

const clock = systemClock;
const random = systemRandom;
const group = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/Move";
const isFault = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;

test("ResourceStore saves, finds without case, lists in pages and removes what lies below", async () => {
  await using database = await cluster.openFreshDatabase();
  const resources = openResourceStore({ db: database.db, clock, random });
  const vault = parseResourceId(`${group}/providers/Microsoft.RecoveryServices/vaults/V`);
  const first = await resources.save({ id: vault, properties: { a: 1 }, mustBeNew: true });
  assert.equal(first.isNew, true);
  assert.deepEqual((await resources.find(vault.text.toUpperCase()))?.properties, { a: 1 });
  await assert.rejects(resources.save({ id: vault, properties: {}, ifMatch: '"other"' }), isFault("PreconditionFailed"));
  await assert.rejects(resources.save({ id: vault, properties: {}, mustBeNew: true }), isFault("PreconditionFailed"));
  const second = await resources.save({ id: vault, properties: { a: 2 }, ifMatch: first.resource.etag });
  assert.notEqual(second.resource.etag, first.resource.etag);
  for (const name of ["c", "a", "b"])
    await resources.save({ id: parseResourceId(`${vault.text}/replicationPolicies/${name}`), properties: {} });
  const type = "Microsoft.RecoveryServices/vaults/replicationPolicies";
  const page = await resources.list({ under: vault.text, type, countMax: 2 });
  assert.deepEqual(
    page.map((resource) => resource.id.name),
    ["a", "b"],
  );
  const rest = await resources.list({ under: group, isDeep: true, type, countMax: 9, afterKey: page[1]?.id.key ?? "" });
  assert.deepEqual(
    rest.map((resource) => resource.id.name),
    ["c"],
  );
  assert.equal(await resources.remove(vault), true);
  assert.equal(await resources.remove(vault), false);
  assert.equal((await resources.list({ under: group, isDeep: true, type, countMax: 9 })).length, 0);
});

test("ResourceStore.update loses no change of parallel callers", async () => {
  await using database = await cluster.openFreshDatabase();
  const resources = openResourceStore({ db: database.db, clock, random });
  const id = parseResourceId(`${group}/providers/Microsoft.Network/virtualNetworks/n`);
  await resources.save({ id, properties: { count: 0 } });
  const add = () => resources.update(id, (present) => ({ properties: { count: Number(present.properties["count"]) + 1 } }));
  await Promise.all(Array.from({ length: 20 }, add));
  assert.equal((await resources.get(id)).properties["count"], 20);
});

test("ResourceStore.save makes a resource once among parallel callers, and replaces nothing that is not as expected", async () => {
  await using database = await cluster.openFreshDatabase();
  const resources = openResourceStore({ db: database.db, clock, random });
  const idOf = (name: string) => parseResourceId(`${group}/providers/Microsoft.Network/virtualNetworks/${name}`);
  const callers = Array.from({ length: 12 }, (_, index) => index);
  const saved = await Promise.all(
    callers.map((index) => resources.save({ id: idOf(index % 2 === 0 ? "One" : "ONE"), properties: { index } })),
  );
  assert.equal(saved.filter(({ isNew }) => isNew).length, 1);
  const written = new Set(saved.map(({ resource }) => resource.id.text));
  assert.equal(written.size, 1, "each answer has the id as it was first written");
  const made = await Promise.allSettled(
    callers.map((index) => resources.save({ id: idOf("two"), properties: { index }, mustBeNew: true })),
  );
  assert.equal(made.filter(({ status }) => status === "fulfilled").length, 1);
  const { etag } = await resources.get(idOf("two"));
  const replaced = await Promise.allSettled(
    callers.map((index) => resources.save({ id: idOf("two"), properties: { index }, ifMatch: etag })),
  );
  assert.equal(replaced.filter(({ status }) => status === "fulfilled").length, 1);
  for (const result of [...made, ...replaced]) if (result.status === "rejected") assert.ok(isFault("PreconditionFailed")(result.reason));
  await assert.rejects(resources.save({ id: idOf("three"), properties: {}, ifMatch: "*" }), isFault("PreconditionFailed"));
  assert.equal((await resources.save({ id: idOf("two"), properties: {}, ifMatch: "*" })).isNew, false);
  const present = await resources.get(idOf("two"));
  assert.equal(await resources.claim(present.id, present.etag), true);
  for (const more of [{}, { ifMatch: present.etag }, { ifMatch: "*" }])
    await assert.rejects(resources.save({ id: present.id, properties: {}, ...more }), isFault("StateConflict"));
  await resources.release(present.id);
  assert.equal((await resources.save({ id: present.id, properties: {} })).isNew, false);
});

test("an operation ends once", async () => {
  await using database = await cluster.openFreshDatabase();
  const operations = openOperationStore({ db: database.db, clock, random });
  const { operationId } = await operations.begin({ resourceId: group, action: "test" });
  assert.equal((await operations.begin({ resourceId: group, action: "test", operationId })).operationId, operationId);
  await operations.fail(operationId, new Fault("NotFound", "gone"));
  await operations.succeed(operationId, { late: true });
  const ended = await operations.find(operationId);
  assert.equal(ended?.status, "Failed");
  assert.equal(ended?.fault?.id, "NotFound");
  assert.deepEqual(await operations.inProgress(), []);
});

test("an order is given to its appliance, answered once, and wakes who waits for it", async () => {
  await using database = await cluster.openFreshDatabase();
  const orders = openOrderQueue({ db: database.db, notifications: database.notifications, clock });
  const applianceId = parseApplianceId(random.uuid());
  const other = parseApplianceId(random.uuid());
  const orderId = parseOrderId(random.uuid());
  const signal = AbortSignal.timeout(10_000);
  const waiting = orders.waitQueued(applianceId, 10_000, signal);
  await orders.enqueue(applianceId, { kind: "discover", orderId });
  await orders.enqueue(applianceId, { kind: "discover", orderId });
  assert.deepEqual(await waiting, [{ kind: "discover", orderId }]);
  assert.deepEqual(await orders.waitQueued(applianceId, 0, signal), []);
  const result = orders.result(orderId, signal);
  await orders.answer(other, { outcome: "done", orderId });
  assert.equal((await orders.find(orderId))?.result, undefined);
  await orders.answer(applianceId, { outcome: "done", orderId });
  assert.deepEqual(await result, { outcome: "done", orderId });
  await assert.rejects(orders.enqueue(other, { kind: "discover", orderId }), isFault("StateConflict"));
});

test("an order that nobody spoke of since it was given is given again; progress keeps it from that", async () => {
  await using database = await cluster.openFreshDatabase();
  let nowMs = clock.nowMs();
  const moved = { ...clock, nowMs: () => nowMs };
  const orders = openOrderQueue({ db: database.db, notifications: database.notifications, clock: moved });
  const applianceId = parseApplianceId(random.uuid());
  const orderId = parseOrderId(random.uuid());
  const signal = AbortSignal.timeout(10_000);
  const given = async (isLost = false) => (await orders.waitQueued(applianceId, 0, signal, { isLost })).length;
  await orders.enqueue(applianceId, { kind: "discover", orderId });
  assert.deepEqual([await given(), await given()], [1, 0]);
  assert.deepEqual([await given(true), await given()], [1, 0], "at once to who has lost the answer");
  nowMs += 20_000;
  await orders.progress(applianceId, { orderId, percent: 40, text: "reading" });
  nowMs += 20_000;
  assert.equal(await given(), 0);
  nowMs += 20_000;
  assert.equal(await given(), 1);
  await orders.answer(applianceId, { outcome: "done", orderId });
  nowMs += 60_000;
  assert.equal(await given(), 0);
  assert.equal(await given(true), 0, "what was answered is never given again");
  assert.equal((await orders.find(orderId))?.percent, 100);
});

test("addresses are given once, kept by who has them, and end", async () => {
  await using database = await cluster.openFreshDatabase();
  const addresses = openPrivateAddresses({ db: database.db });
  const subnetId = `${group}/providers/Microsoft.Network/virtualNetworks/n/subnets/s`;
  const candidates = ["127.1.0.4", "127.1.0.5", "127.1.0.6"];
  const take = (endpointId: string, members: readonly string[]) => addresses.allocate({ subnetId, endpointId, members, candidates });
  const [one, two] = await Promise.all([take("/a", ["x"]), take("/b", ["x"])]);
  assert.notEqual(one.get("x"), two.get("x"));
  assert.deepEqual(await take("/a", ["x"]), one);
  await assert.rejects(take("/c", ["x", "y"]), isFault("AddressRangeFull"));
  await addresses.release("/b");
  assert.equal((await take("/c", ["x", "y"])).size, 2);
});

test("secrets are sealed in the database and open only with their master key and owner", async () => {
  await using database = await cluster.openFreshDatabase();
  const sealer = createSealer(random.bytes(32), random);
  const secrets = openSecretStore({ db: database.db, sealer });
  const secret = Buffer.from("the account key of a test");
  assert.deepEqual(Buffer.from(await secrets.getOrCreate(group, "key", () => secret)), secret);
  assert.deepEqual(Buffer.from(await secrets.getOrCreate(group.toUpperCase(), "key", () => random.bytes(9))), secret);
  const row = await database.db.selectFrom("secrets").selectAll().executeTakeFirstOrThrow();
  assert.equal(Buffer.from(row.sealed).includes(secret), false);
  assert.throws(() => sealer.open("other#key", row.sealed), isFault("DataDamaged"));
  assert.throws(() => createSealer(random.bytes(32), random).open(`${group.toLowerCase()}#key`, row.sealed), isFault("DataDamaged"));
});

test("a cluster that still runs is adopted; one whose server was killed starts again with every committed row", async () => {
  const stateDir = cluster.stateDir;
  const address = { kind: "socket" as const, socketFolder: join(stateDir, "pg", "s"), user: "watari", database: "watari" };
  const id = parseResourceId(`${group}/providers/Microsoft.Network/virtualNetworks/kept`);
  const postmaster = async () => Number((await readFile(join(stateDir, "pg", "data", "postmaster.pid"), "utf8")).split("\n", 1)[0]);
  const pid = await postmaster();
  await startPrivateCluster({ stateDir, log: silentLog });
  assert.equal(await postmaster(), pid);
  {
    await using database = await openDatabase({ address, log: silentLog, clock });
    await openResourceStore({ db: database.db, clock, random }).save({ id, properties: { kept: true } });
  }
  process.kill(pid, "SIGKILL");
  await startPrivateCluster({ stateDir, log: silentLog });
  assert.notEqual(await postmaster(), pid);
  await using database = await openDatabase({ address, log: silentLog, clock });
  assert.deepEqual((await openResourceStore({ db: database.db, clock, random }).get(id)).properties, { kept: true });
});
