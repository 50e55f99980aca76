// The outbox: nothing is lost by a kill, each message goes out by one hub, storms become few messages, and every wait ends.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, it } from "node:test";
import { sql } from "kysely";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import {
  alertsOfMessage,
  claimMessage,
  listMessages,
  makeMessages,
  pruneMessages,
  reviveMessage,
  type AlertMessage,
} from "../db/alert-outbox.ts";
import type { Database } from "../db/database.ts";
import { openEventStore } from "../db/events.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { backOff, startOutbox, type OutboxLimits, type SendMessage } from "./outbox.ts";
import { queuedMax } from "./schema.ts";
import { listen, stop } from "./test-receivers.ts";
import { putReceiver, recordEvents, trialEvent, trialLimits, trialSend, trialVault } from "./trial-outbox.ts";

let cluster: TestCluster;
before(async () => {
  cluster = await startTestCluster();
});
after(async () => await cluster[Symbol.asyncDispose]());

const bodyShape = z.object({ id: z.guid(), leftOut: z.number(), events: z.array(z.guid()) });

interface Receiver extends AsyncDisposable {
  readonly port: number;
  readonly got: z.infer<typeof bodyShape>[];
  answer: number | "hang";
}

async function startReceiver(): Promise<Receiver> {
  const got: z.infer<typeof bodyShape>[] = [];
  const server = createServer((request, response) => {
    let text = "";
    request.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
    request.on("end", () => {
      got.push(bodyShape.parse(JSON.parse(text)));
      if (receiver.answer !== "hang") response.writeHead(receiver.answer).end();
    });
  });
  const receiver: Receiver = { port: await listen(server), got, answer: 200, [Symbol.asyncDispose]: async () => await stop(server) };
  return receiver;
}

const start = (database: Database, send: SendMessage, limits: Partial<OutboxLimits> = {}): AsyncDisposable =>
  startOutbox({ database, send, clock: systemClock, random: systemRandom, log: silentLog, limits: { ...trialLimits, ...limits } });

async function waitFor(database: Database, isMet: (messages: readonly AlertMessage[]) => boolean): Promise<readonly AlertMessage[]> {
  const endMs = systemClock.monotonicMs() + 90_000;
  for (;;) {
    const messages = await listMessages(database.db, trialVault.toLowerCase(), { countMax: 1000 });
    if (isMet(messages)) return messages;
    assert.ok(systemClock.monotonicMs() < endMs, JSON.stringify(messages));
    await systemClock.sleep(10);
  }
}
const allSent =
  (count: number) =>
  (messages: readonly AlertMessage[]): boolean =>
    messages.reduce((sum, { state, alertCount }) => sum + (state === "sent" ? alertCount : 0), 0) === count;

it("a mail tells what is critical and its end; a webhook what its filter names; nothing is queued for an event that did not happen", async () => {
  await using database = await cluster.openFreshDatabase();
  await putReceiver(database, "email");
  await putReceiver(database, "webhook", { severities: ["Warning", "Info"], eventCodes: ["JobStuck", "AgentSilentCleared"] });
  await recordEvents(database, [
    trialEvent({ dedupKey: "once" }),
    trialEvent({ dedupKey: "once" }),
    trialEvent({ dedupKey: "health:1:raised" }),
    trialEvent({ dedupKey: "health:1:cleared", code: "AgentSilentCleared", severity: "Info" }),
    trialEvent({ dedupKey: "health:2:raised", code: "JobStuck", severity: "Warning", kind: "JobStatus" }),
    trialEvent({ dedupKey: "health:2:cleared", code: "JobStuckCleared", severity: "Info", kind: "JobStatus" }),
    trialEvent({ code: "TestFailoverFailed", kind: "JobStatus" }),
    trialEvent({ code: "TestFailoverSucceeded", severity: "Info", kind: "JobStatus" }),
    trialEvent({ vaultKey: "/another/vault" }),
  ]);
  await assert.rejects(
    database.db.transaction().execute(async (transaction) => {
      const store = openEventStore({ db: transaction, clock: systemClock, random: systemRandom });
      assert.equal(await store.record(trialEvent(), transaction), true);
      throw new Error("undone");
    }),
    /undone/,
  );
  const queued = await sql<{ channel: string; code: string }>`select i.channel, e.code from alert_items i join events e using (event_id)
    order by channel, code`.execute(database.db);
  assert.deepEqual(
    queued.rows.map(({ channel, code }) => `${channel} ${code}`),
    [
      "email AgentSilent",
      "email AgentSilent",
      "email AgentSilentCleared",
      "email TestFailoverFailed",
      "webhook AgentSilentCleared",
      "webhook JobStuck",
    ],
  );
});

it("a storm of 1000 machines is one mail, and the next storm is one more", async () => {
  await using database = await cluster.openFreshDatabase();
  await using receiver = await startReceiver();
  await putReceiver(database, "email");
  await using _outbox = start(database, trialSend(receiver.port));
  await recordEvents(
    database,
    Array.from({ length: 1000 }, () => trialEvent()),
  );
  await waitFor(database, allSent(1000));
  await recordEvents(
    database,
    Array.from({ length: 100 }, () => trialEvent()),
  );
  await waitFor(database, allSent(1100));
  assert.deepEqual(
    receiver.got.map(({ events }) => events.length),
    [1000, 100],
  );
});

it("two hubs send each alert once", async () => {
  await using database = await cluster.openFreshDatabase();
  await using receiver = await startReceiver();
  await putReceiver(database, "email");
  await putReceiver(database, "webhook");
  await using _one = start(database, trialSend(receiver.port));
  await using _other = start(database, trialSend(receiver.port));
  for (let round = 0; round < 30; round++) await recordEvents(database, [trialEvent(), trialEvent({ severity: "Info" })]);
  await waitFor(database, allSent(90));
  const events = receiver.got.flatMap((each) => each.events);
  assert.equal(new Set(receiver.got.map(({ id }) => id)).size, receiver.got.length);
  assert.equal(events.length, 90);
  assert.equal(new Set(events).size, 60); // Critical ones go to both receivers.
});

for (const moment of ["claimed", "sent"])
  it(`a hub that is killed when a message is ${moment} loses nothing, and a repetition has the same id and alerts`, async () => {
    await using database = await cluster.openFreshDatabase();
    await using receiver = await startReceiver();
    await putReceiver(database, "email");
    const args = [join(import.meta.dirname, "trial-outbox-child.ts"), JSON.stringify(database.address), String(receiver.port), moment];
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", ...args], { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(child, "exit");
    await once(child.stdout, "data");
    await recordEvents(
      database,
      Array.from({ length: 5 }, () => trialEvent()),
    );
    assert.deepEqual(await ended, [null, "SIGKILL"]);
    assert.equal(receiver.got.length, moment === "claimed" ? 0 : 1);
    await using _outbox = start(database, trialSend(receiver.port));
    const [message] = await waitFor(database, allSent(5));
    assert.equal(message?.attemptCount, 2);
    assert.equal(receiver.got.length, moment === "claimed" ? 1 : 2);
    for (const each of receiver.got) assert.deepEqual(each, receiver.got[0]);
    assert.equal(receiver.got[0]?.id, message.messageId);
  });

it("a full queue keeps what it has and tells how many it left out", async () => {
  await using database = await cluster.openFreshDatabase();
  await using receiver = await startReceiver();
  await putReceiver(database, "email");
  await sql`with made as (insert into events select gen_random_uuid(), ${trialVault.toLowerCase()}, now(), 'many' || n, 'AgentSilent', 'AgentHealth',
      'Critical', 'd', 'id', 'name', null, 'Agent', null, null from generate_series(1, ${queuedMax - 3}::int) n returning event_id, vault_key)
    select count(*) from made`.execute(database.db);
  await recordEvents(
    database,
    Array.from({ length: 10 }, () => trialEvent()),
  );
  await using _outbox = start(database, trialSend(receiver.port));
  const [message] = await waitFor(database, allSent(queuedMax));
  assert.equal(message?.leftOut, 7);
  assert.deepEqual([receiver.got[0]?.events.length, receiver.got[0]?.leftOut], [queuedMax, 7]);
  await recordEvents(database, [trialEvent()]);
  await waitFor(database, allSent(queuedMax + 1));
  assert.equal(receiver.got[1]?.leftOut, 0);
});

it("a receiver that is down is tried again and then given up; one that refuses at once is not tried again; both can be sent again", async () => {
  await using database = await cluster.openFreshDatabase();
  await using receiver = await startReceiver();
  await putReceiver(database, "webhook");
  for (const [answer, attempts] of [
    [503, 4],
    [400, 1],
    ["hang", 4],
  ] as const) {
    receiver.answer = answer;
    receiver.got.length = 0;
    await using _outbox = start(database, trialSend(receiver.port), { attemptsMax: 4, ...(answer === "hang" ? { sendMsMax: 300 } : {}) });
    await recordEvents(database, [trialEvent()]);
    const [dead] = await waitFor(database, ([newest]) => newest?.state === "dead" && receiver.got.length > 0);
    assert.ok(dead !== undefined);
    assert.deepEqual([dead.attemptCount, receiver.got.length], [attempts, attempts]);
    assert.equal(new Set(receiver.got.map(({ id }) => id)).size, 1);
    assert.ok(dead.outcome?.["fault"] !== undefined);
    receiver.answer = 200;
    assert.equal(await reviveMessage(database.db, dead.messageId), "revived");
    await waitFor(database, ([newest]) => newest?.state === "sent");
    assert.equal(await reviveMessage(database.db, dead.messageId), "notDead");
  }
});

it("while a receiver is down its alerts gather for one message, and others are not kept waiting", async () => {
  await using database = await cluster.openFreshDatabase();
  await using receiver = await startReceiver();
  await putReceiver(database, "email");
  await putReceiver(database, "webhook");
  let isDown = true;
  const send = trialSend(receiver.port);
  await using _outbox = start(database, async (message, alerts, signal) => {
    if (message.channel === "email" && isDown) throw new Error("down");
    return await send(message, alerts, signal);
  });
  for (let round = 0; round < 5; round++) {
    await recordEvents(database, [trialEvent()]);
    await waitFor(database, (messages) => messages.filter(({ state }) => state === "sent").length === round + 1);
  }
  isDown = false;
  const messages = await waitFor(database, allSent(10));
  assert.equal(messages.filter(({ channel }) => channel === "email").length, 2);
});

it("waits end although the clock of the database jumps", async () => {
  await using database = await cluster.openFreshDatabase();
  await using receiver = await startReceiver();
  await putReceiver(database, "email");
  const { db } = database;
  const owner = systemRandom.uuid();
  await recordEvents(database, [trialEvent()]);
  // As after a jump back by three days: all that was stored lies in the future.
  await sql`update alert_items set queued_at = queued_at + interval '3 days'`.execute(db);
  assert.equal(await makeMessages(db, { random: systemRandom, grouping: trialLimits.grouping }), 1);
  await sql`update alert_messages set next_at = next_at + interval '3 days', made_at = made_at + interval '3 days'`.execute(db);
  assert.ok((await claimMessage(db, { owner, leaseMs: 60_000 })) !== undefined);
  assert.equal(await claimMessage(db, { owner, leaseMs: 60_000 }), undefined);
  await sql`update alert_messages set lease_until = lease_until + interval '3 days'`.execute(db);
  await using _outbox = start(database, trialSend(receiver.port));
  await waitFor(database, allSent(1));
  await recordEvents(database, [trialEvent()]); // The interval since a mail of three days ahead.
  await waitFor(database, allSent(2));
});

it("waits between attempts double, are drawn by lot and have an end", () => {
  const waits = Array.from({ length: 40 }, (_none, index) => backOff({ firstWaitMs: 1000, waitMsMax: 60_000 }, index + 1, systemRandom));
  for (const [index, waitMs] of waits.entries()) {
    const whole = Math.min(60_000, 1000 * 2 ** index);
    assert.ok(waitMs >= whole / 2 && waitMs <= whole, `${index}: ${waitMs}`);
  }
  assert.ok(new Set(waits.slice(10)).size > 10);
});

it("what ended long ago and what belongs to removed receivers is forgotten", async () => {
  await using database = await cluster.openFreshDatabase();
  await using receiver = await startReceiver();
  await putReceiver(database, "webhook");
  const { db } = database;
  {
    await using _outbox = start(database, trialSend(receiver.port));
    await recordEvents(database, [trialEvent()]);
    await waitFor(database, allSent(1));
  }
  const limits = { sentDays: 7, deadDays: 30, perVaultMax: 2, countMax: 100 };
  assert.equal(await pruneMessages(db, limits), 0);
  await sql`update alert_messages set ended_at = ended_at - interval '8 days'`.execute(db);
  assert.equal(await pruneMessages(db, limits), 1);
  assert.equal((await sql`select 1 from alert_items`.execute(db)).rows.length, 0);
  await sql`insert into alert_messages (message_id, target_key, target_id, channel, vault_key, state, ended_at)
    select gen_random_uuid(), target_key, target_id, channel, vault_key, 'sent', now() from resources r
    cross join lateral (select r.key as target_key, r.id as target_id, 'webhook' as channel, r.parent_key as vault_key) t,
      generate_series(1, 5) where r.type = 'watari.alerts/webhooks'`.execute(db);
  assert.equal(await pruneMessages(db, limits), 3);
  await recordEvents(database, [trialEvent()]);
  await makeMessages(db, { random: systemRandom, grouping: trialLimits.grouping });
  const [message] = await listMessages(db, trialVault.toLowerCase(), { countMax: 1 });
  assert.equal((await alertsOfMessage(db, message?.messageId ?? "")).length, 1);
  await sql`delete from resources where type = 'watari.alerts/webhooks'`.execute(db);
  assert.equal(await pruneMessages(db, limits), 3);
});
