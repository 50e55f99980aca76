// Events are written once, paged by time without gap or repeat, filtered within a bound, and pruned by age and number.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { systemClock, toTimestamp } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openEventStore, type EventLimits, type EventPlace, type EventStore, type EventWish, type NewEvent } from "./events.ts";

const vaultKey = "/subscriptions/s/resourcegroups/g/providers/microsoft.recoveryservices/vaults/v";
const fabricId = `${vaultKey}/replicationFabrics/f1`;
let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

function event(number: number, more: Partial<NewEvent> = {}): NewEvent {
  return {
    ...{ vaultKey, dedupKey: `event:${number}`, code: "AgentSilent", kind: "AgentHealth", severity: "Critical" },
    ...{ description: `event ${number}`, affected: { id: `${vaultKey}/items/${number}`, name: `machine-${number}` } },
    ...{ component: "Agent", at: toTimestamp(1_700_000_000_000 + Math.floor(number / 3)) },
    ...more,
  };
}

async function readAll(
  events: EventStore,
  wish: EventWish = {},
): Promise<{ readonly texts: readonly string[]; readonly pageCount: number }> {
  const texts: string[] = [];
  let after: EventPlace | undefined;
  for (let pageCount = 1; ; pageCount++) {
    const page = await events.list(vaultKey, { countMax: 4, after, wish });
    texts.push(...page.events.map((each) => each.description));
    if (page.next === undefined) return { texts, pageCount };
    after = page.next;
  }
}

async function openEvents(limits: Partial<EventLimits> = {}): Promise<AsyncDisposable & { readonly events: EventStore; readonly db: Db }> {
  const database = await cluster.openFreshDatabase();
  const events = openEventStore({ db: database.db, clock: systemClock, random: systemRandom, limits });
  return { events, db: database.db, [Symbol.asyncDispose]: async () => await database[Symbol.asyncDispose]() };
}
type Db = Awaited<ReturnType<TestCluster["openFreshDatabase"]>>["db"];

test("EventStore records an occurrence once, with the transaction that it belongs to", async () => {
  await using opened = await openEvents();
  const { events, db } = opened;
  const rolledBack = db.transaction().execute(async (transaction) => {
    assert.equal(await events.record(event(1), transaction), true);
    throw new Error("rolled back");
  });
  await assert.rejects(rolledBack, /rolled back/);
  const told = await Promise.all([events.record(event(1)), events.record(event(1)), events.record(event(1))]);
  assert.equal(told.filter((isNew) => isNew).length, 1);
  assert.equal(await events.record(event(1, { vaultKey: "other" })), true);
  assert.deepEqual((await readAll(events)).texts, ["event 1"]);
});

test("EventStore pages by time without gap or repeat, also where many share a millisecond", async () => {
  await using opened = await openEvents();
  for (let number = 0; number < 23; number++) await opened.events.record(event(number));
  const { texts, pageCount } = await readAll(opened.events);
  assert.equal(pageCount, 6);
  assert.equal(new Set(texts).size, 23);
  assert.ok(texts[0] === "event 21" || texts[0] === "event 22");
});

test("EventStore answers a wish page by page and looks at a bounded number of events for each", async () => {
  await using opened = await openEvents({ scanMax: 5 });
  const { events } = opened;
  for (let number = 0; number < 20; number++)
    await events.record(event(number, number % 9 === 1 ? { severity: "Warning", code: "PointOverdue", fabricId } : {}));
  assert.deepEqual(await readAll(events, { severity: "warning" }), { texts: ["event 19", "event 10", "event 1"], pageCount: 5 });
  assert.equal((await readAll(events, { fabric: "F1" })).texts.length, 3);
  assert.equal((await readAll(events, { fabric: fabricId.toUpperCase() })).texts.length, 3);
  assert.deepEqual(await readAll(events, { affectedName: "MACHINE-7" }), { texts: ["event 7"], pageCount: 1 }, "found by its index");
  assert.deepEqual((await readAll(events, { code: "AgentSilent", affectedId: `${vaultKey}/items/10` })).texts, []);
  const range = { startAt: event(3).at ?? "", endAt: event(6).at ?? "" };
  assert.equal((await readAll(events, range)).texts.length, 6);
});

test("EventStore prunes by age and by number, in batches", async () => {
  await using opened = await openEvents({ perVaultMax: 10, pruneBatch: 3, ageDaysMax: 30 });
  const { events } = opened;
  const nowMs = systemClock.nowMs();
  for (let number = 0; number < 8; number++) await events.record(event(number));
  for (let number = 8; number < 22; number++) await events.record(event(number, { at: toTimestamp(nowMs - 1000 * (30 - number)) }));
  assert.equal(await events.prune(), 12);
  const { texts } = await readAll(events);
  assert.deepEqual(
    texts,
    Array.from({ length: 10 }, (_each, index) => `event ${21 - index}`),
  );
  assert.equal(await events.prune(), 0);
});
