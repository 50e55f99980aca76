// Metrics are served where the configuration says and nowhere else, count requests by type, and never name what clients chose.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { sql } from "kysely";
import { systemClock, type Clock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { findFreePort, loopbackNetwork, openTestHub } from "../test-client.ts";
import { startTestCluster } from "../test-hub.ts";
import { createMetrics } from "./metrics.ts";

async function readLines(text: string, name: string): Promise<readonly string[]> {
  return text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
}

test("a hub serves its metrics on a listener of their own, and none without a configuration", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-metrics-"));
  try {
    const options = { stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() };
    const plain = await openTestHub(options);
    assert.equal(plain.hub.metricsPort, undefined);
    await plain.hub[Symbol.asyncDispose]();
    const test = await openTestHub({ ...options, hasMetrics: true });
    await using _hub = test.hub;
    await test.arm("PUT", test.groupPath, { location: "westeurope" });
    await test.arm("GET", `${test.groupPath}/providers/Microsoft.RecoveryServices/vaults/secret-name`);
    await test.arm("GET", `${test.groupPath}/providers/Microsoft.Made/ups/secret-name`);
    const url = `http://127.0.0.1:${test.hub.metricsPort}`;
    const answer = await fetch(`${url}/metrics`);
    assert.equal(answer.status, 200);
    const text = await answer.text();
    const counts = await readLines(text, "watari_http_request_seconds_count");
    const of = (route: string, status: string): boolean =>
      counts.some((line) => line.includes(`route="${route}"`) && line.includes(`status="${status}"`) && line.endsWith(" 1"));
    assert.ok(of("Microsoft.RecoveryServices/vaults", "404"), counts.join("\n"));
    assert.ok(of("other", "404"), counts.join("\n"));
    assert.ok(!text.includes("secret-name"));
    assert.equal((await readLines(text, "watari_database_connections")).length, 3);
    assert.deepEqual(await readLines(text, "watari_appliances"), [
      'watari_appliances{state="lost"} 0',
      'watari_appliances{state="online"} 0',
    ]);
    assert.equal((await fetch(`${url}/`)).status, 404);
    assert.equal((await fetch(`${url}/metrics`, { method: "POST" })).status, 405);
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
});

test("figures of the database are counted by set and kept for a while", async () => {
  await using cluster = await startTestCluster();
  await using database = await cluster.openFreshDatabase();
  let passedMs = 0;
  const clock: Clock = { ...systemClock, monotonicMs: () => passedMs };
  const metrics = createMetrics({ database, clock, routeOf: () => "other", figuresAgeMsMax: 1000 });
  const [vault, machineId] = ["/subscriptions/s/providers/microsoft.recoveryservices/vaults/v", systemRandom.uuid()];
  const key = `${vault}/replicationfabrics/f/replicationprotectioncontainers/c/replicationprotecteditems/i`;
  const type = "microsoft.recoveryservices/vaults/replicationfabrics/replicationprotectioncontainers/replicationprotecteditems";
  await sql`insert into resources (key, id, type, name, parent_key, envelope, properties, provisioning_state, etag, created_at, updated_at)
    values (${key}, ${key}, ${type}, 'i', '', '{}', ${JSON.stringify({ machineId, protectionState: "Protected" })}::jsonb, 'Succeeded', 'e', now(), now())`.execute(
    database.db,
  );
  await sql`insert into points values (${vault}, ${machineId}, ${systemRandom.uuid()}, ${systemClock.nowMs() - 60_000}, 'crash', '{"frozenMs": 250}')`.execute(
    database.db,
  );
  await sql`insert into health_errors (vault_key, entity_key, entity_id, entity_name, code, message, raised_at)
    values (${vault}, ${key}, ${key}, 'i', 'AgentSilent', 'm', now())`.execute(database.db);
  const [jobId, appliance] = [systemRandom.uuid(), systemRandom.uuid()];
  await sql`insert into jobs (job_id, kind, title, scope, target_id, target_name, lock_key, actor, parameters, state, ended_at)
    values (${jobId}, 'TestFailover', 't', ${vault}, 'x', 'x', 'x', 'a', '{}', 'succeeded', now())`.execute(database.db);
  await sql`insert into job_steps (job_id, name, title, position, started_at, ended_at)
    values (${jobId}, 'launch', 't', 1, now() - interval '4 seconds', now())`.execute(database.db);
  await sql`insert into orders (order_id, appliance_id, kind, body, state, percent, progress_text, created_at)
    values (${systemRandom.uuid()}, ${appliance}, 'point', '{}', 'queued', 0, '', now())`.execute(database.db);
  await sql`insert into alert_messages (message_id, target_key, target_id, channel, vault_key, state, ended_at)
    values (${systemRandom.uuid()}, 'a', 'a', 'webhook', ${vault}, 'dead', now())`.execute(database.db);
  await sql`insert into alert_items values ('b', 'b', 'email', ${vault}, ${systemRandom.uuid()}, now() - interval '90 seconds')`.execute(
    database.db,
  );
  const text = await metrics.text();
  assert.deepEqual(await readLines(text, "watari_alerts_queued"), ['watari_alerts_queued{channel="email"} 1']);
  assert.deepEqual(await readLines(text, "watari_alert_messages"), ['watari_alert_messages{channel="webhook",state="dead"} 1']);
  const [age = ""] = await readLines(text, "watari_alert_age_seconds");
  assert.ok(Number(age.split(" ").at(-1)) >= 90, age);
  assert.deepEqual(await readLines(text, "watari_protected_items"), ['watari_protected_items{state="Protected",health="Critical"} 1']);
  assert.deepEqual(await readLines(text, "watari_health_errors"), ['watari_health_errors{code="AgentSilent"} 1']);
  assert.deepEqual(await readLines(text, "watari_jobs"), ['watari_jobs{kind="TestFailover",state="succeeded"} 1']);
  assert.deepEqual(await readLines(text, "watari_orders_queued"), ["watari_orders_queued 1"]);
  const [step = ""] = await readLines(text, "watari_job_step_seconds");
  assert.equal(step, 'watari_job_step_seconds{kind="TestFailover",step="launch",quantile="0.5"} 4');
  const lags = await readLines(text, "watari_lag_seconds");
  assert.equal(lags.length, 4);
  const seconds = Number(lags[3]?.split(" ").at(-1));
  assert.ok(seconds >= 60 && seconds < 120, lags.join("\n"));
  const pauses = await readLines(text, "watari_pause_seconds");
  assert.ok(
    pauses.length === 4 && pauses[2]?.includes('quantile="0.99"') === true && pauses.every((line) => line.endsWith(" 0.25")),
    pauses.join("\n"),
  );
  await sql`delete from orders`.execute(database.db);
  passedMs = 999;
  assert.deepEqual(await readLines(await metrics.text(), "watari_orders_queued"), ["watari_orders_queued 1"]);
  passedMs = 1000;
  assert.deepEqual(await readLines(await metrics.text(), "watari_orders_queued"), ["watari_orders_queued 0"]);
});
