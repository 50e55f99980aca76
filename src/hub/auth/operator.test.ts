// The first operator's secret has an end: it is renewed in its file before that, the one before lasts until its own end, and old hubs' get one.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { z } from "zod";
import { systemClock, toTimestamp, type Clock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { openCredentials } from "../db/credentials.ts";
import { openPrincipals } from "../db/principals.ts";
import { openResourceStore } from "../db/resources.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { bootstrapOperator, renewOperator } from "./operator.ts";

const dayMs = 86_400_000;
let cluster: TestCluster;
let stateDir = "";
before(async () => {
  cluster = await startTestCluster();
  stateDir = await mkdtemp(join(tmpdir(), "watari-operator-"));
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

test("the operator's secret is renewed before its end, and lives no longer than it says", async () => {
  await using database = await cluster.openFreshDatabase();
  let nowMs = systemClock.nowMs();
  const clock: Clock = { ...systemClock, nowMs: () => nowMs };
  const around = { db: database.db, clock, random: systemRandom };
  const [principals, credentials, resources] = [openPrincipals(around), openCredentials(around), openResourceStore(around)];
  const wish = { principals, credentials, clock, random: systemRandom, stateDir };
  const path = join(stateDir, "operator.json");
  const read = async () =>
    z.looseObject({ clientId: z.string(), clientSecret: z.string() }).parse(JSON.parse(await readFile(path, "utf8")));
  const holds = async ({ clientId, clientSecret }: Awaited<ReturnType<typeof read>>): Promise<boolean> =>
    (await principals.signIn(clientId, clientSecret)) !== undefined;
  assert.equal((await renewOperator(wish)).kind, "left"); // Nothing is written where no operator was made.

  const facts = { managementUrl: "m", loginUrl: "l", tenantId: "t", subscriptionId: systemRandom.uuid(), caPem: "c" };
  // The first thing that is stored: whoever reads the file from here on has what holds.
  const early: Awaited<ReturnType<typeof read>>[] = [];
  const save: typeof resources.save = async (resource) => {
    early.push(await read());
    return await resources.save(resource);
  };
  assert.equal(await bootstrapOperator({ ...wish, resources: { ...resources, save }, facts }), path);
  const first = await read();
  assert.ok(await holds(first));
  assert.deepEqual(early, [first]);
  assert.equal((await renewOperator(wish)).kind, "fresh");
  assert.deepEqual(await read(), first);

  nowMs += 61 * dayMs;
  // A hub that was killed after it had a successor accepted and before it wrote the file: nobody knows that secret.
  const killed = { principalId: (await principals.findClient(first.clientId))?.principalId ?? "", credentialId: systemRandom.uuid() };
  await credentials.addSecret({ ...killed, secretHash: "0".repeat(64), expiresAt: toTimestamp(nowMs + 90 * dayMs) });
  assert.equal((await renewOperator(wish)).kind, "renewed");
  const second = await read();
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual({ ...second, clientSecret: "" }, { ...first, clientSecret: "" });
  assert.deepEqual([await holds(first), await holds(second)], [true, true]);

  nowMs += 30 * dayMs;
  assert.deepEqual([await holds(first), await holds(second)], [false, true]);

  // What an earlier version made has no end until it is looked at.
  const endless = { principalId: systemRandom.uuid(), clientId: second.clientId };
  const operator = await principals.findClient(second.clientId);
  assert.ok(operator !== undefined && operator.principalId !== endless.principalId);
  const secretHash = createHash("sha256").update("endless", "utf8").digest("hex");
  await database.db.updateTable("principals").set({ secret_hash: secretHash }).where("principal_id", "=", operator.principalId).execute();
  const old = { ...second, clientSecret: "endless" };
  assert.ok(await holds(old));
  await renewOperator(wish);
  assert.ok(await holds(old));
  nowMs += 31 * dayMs;
  assert.equal(await holds(old), false);

  await principals.remove(operator.principalId);
  assert.equal((await renewOperator(wish)).kind, "left");
});
