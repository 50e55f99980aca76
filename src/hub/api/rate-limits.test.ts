// Limits and request ids through HTTP, by a clock that the test moves.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { systemClock, type Clock } from "../../base/clock.ts";
import {
  callTarget,
  codeOf,
  findFreePort,
  loopbackNetwork,
  openTestHub,
  signIn,
  testDomain,
  type Answer,
  type TestHub,
} from "../test-client.ts";
import { createRateLimit } from "./rate-limits.ts";

let nowMs = 1_000_000;
const clock: Clock = { ...systemClock, monotonicMs: () => nowMs };
let stateDir: string;
let hub: TestHub;

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-limits-"));
  const limits = {
    principal: { perSecond: 1, burst: 5 },
    address: { perSecond: 1, burst: 12 },
    failedSignIns: { perSecond: 0.1, burst: 3 },
  };
  hub = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort(), limits, environment: { clock } });
});
after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

const read = async (headers: Readonly<Record<string, string>> = {}): Promise<Answer> =>
  await hub.arm("GET", `/subscriptions/${hub.operator.subscriptionId}`, undefined, headers);
const rested = (): void => void (nowMs += 3_600_000);

test("a principal that asks too much is told to wait, and is heard again after that", async () => {
  rested();
  const left: unknown[] = [];
  for (let index = 0; index < 5; index++) left.push((await read()).headers["x-ms-ratelimit-remaining-subscription-reads"]);
  assert.deepEqual(left, ["4", "3", "2", "1", "0"]);
  const refused = await read();
  assert.deepEqual([refused.status, codeOf(refused), refused.headers["retry-after"]], [429, "TooManyRequests", "1"]);
  nowMs += 1000;
  assert.equal((await read()).status, 200);
  nowMs += 1000;
  const written = await hub.arm("PUT", hub.groupPath, { location: "lab1" });
  assert.deepEqual([written.status, written.headers["x-ms-ratelimit-remaining-subscription-writes"]], [201, "0"]);
});

test("an address that asks too much is refused before its token is looked at", async () => {
  rested();
  const statuses: number[] = [];
  for (let index = 0; index < 14; index++) statuses.push((await read({ authorization: "Bearer x" })).status);
  assert.deepEqual(statuses, [...Array.from({ length: 12 }, () => 401), 429, 429]);
});

test("sign-ins that fail are limited by address; until then the right secret works", async () => {
  rested();
  const login = hub.target(`login.${testDomain}`);
  const wrong = { ...hub.operator, clientSecret: "wrong" };
  for (let index = 0; index < 2; index++) await assert.rejects(signIn(login, wrong), /401/);
  assert.ok(await signIn(login, hub.operator));
  await assert.rejects(signIn(login, wrong), /401/);
  await assert.rejects(signIn(login, hub.operator), /429/);
  nowMs += 10_000;
  assert.ok(await signIn(login, hub.operator));
});

test("every answer has its ids, also when it refuses; what the caller sent comes back only when it is an id", async () => {
  rested();
  const management = hub.target(`management.${testDomain}`);
  const login = hub.target(`login.${testDomain}`);
  const ids = { "x-ms-correlation-request-id": "corr-1", "x-ms-client-request-id": "client-1" };
  const answers = [
    await read(ids),
    await read({ ...ids, authorization: "Bearer x" }),
    await callTarget(management, { method: "GET", path: "/nowhere", headers: ids }),
    await callTarget(login, { method: "POST", path: `/${hub.operator.tenantId}/oauth2/v2.0/token`, headers: ids }),
    await callTarget(login, { method: "GET", path: `/${hub.operator.tenantId}/discovery/v2.0/keys`, headers: ids }),
  ];
  for (const { headers, status } of answers) {
    assert.match(String(headers["x-ms-request-id"]), /^[0-9a-f-]{36}$/, String(status));
    assert.deepEqual([headers["x-ms-correlation-request-id"], headers["x-ms-client-request-id"]], ["corr-1", "client-1"], String(status));
  }
  const strange = await read({ "x-ms-correlation-request-id": 'a b"<', "x-ms-client-request-id": "x".repeat(65) });
  assert.equal(strange.headers["x-ms-correlation-request-id"], strange.headers["x-ms-request-id"]);
  assert.equal(strange.headers["x-ms-client-request-id"], undefined);
});

test("a limit forgets the callers unseen for longest, and keeps the rest in bounds", () => {
  const limit = createRateLimit({ rate: { perSecond: 0.001, burst: 1 }, clock });
  for (let index = 0; index < 10_001; index++) assert.equal(limit.take(`k${index}`).kind, "taken");
  assert.equal(limit.take("k10000").kind, "refused");
  assert.equal(limit.take("k0").kind, "taken", "it was forgotten");
});
