// How the clone of a machine is made ready: addresses of its cards, a serial console, keys of encrypted disks; set on the item or given with a call.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { z } from "zod";
import { ArmFault } from "../api/arm-errors.ts";
import { readJob, readSteps } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimStage, simProvider, type SimStage } from "./sim/sim-stage.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const key = Buffer.from("correct horse battery staple \x00\xff", "latin1");
const otherKey = Buffer.from("a key of this call alone");
const fixed = { kind: "fixed", address: "10.9.0.5/24", gateway: "10.9.0.1", nameServers: ["10.9.0.2"] };
const triedWith = (bytes: Buffer): string => `an encrypted disk was tried with the key ${createHash("sha256").update(bytes).digest("hex")}`;

const changesShape = z.object({ hydrationChanges: z.array(z.string()) });
async function changesOf({ hub }: SimStage, jobId: string): Promise<readonly string[]> {
  const steps = await readSteps(hub.services.database.db, jobId);
  return changesShape.parse(Object.assign({}, ...steps.map((step) => step.evidence))).hydrationChanges;
}

async function set(stage: SimStage, details: object, over: object = {}): Promise<void> {
  await stage.done("PATCH", "", { properties: { ...over, providerSpecificDetails: { ...simProvider, ...details } } });
}

const extensionShape = z.object({ watari: z.looseObject({ unlockKeyCount: z.number().optional() }) });
async function shownOf(stage: SimStage): Promise<Record<string, unknown>> {
  return extensionShape.parse((await stage.get()).providerSpecificDetails).watari;
}

async function cardOf(stage: SimStage): Promise<string> {
  const shown = z.object({ vmNics: z.array(z.object({ nicId: z.string() })) }).parse((await stage.get()).providerSpecificDetails);
  const [card] = shown.vmNics;
  assert.ok(card !== undefined, "the machine has a card");
  return card.nicId;
}

async function secretsOf({ hub }: SimStage): Promise<readonly string[]> {
  const found = await sql<{ owner_key: string }>`select owner_key from secrets where name = 'unlockKeys'`.execute(hub.services.database.db);
  return found.rows.map((row) => row.owner_key);
}

/** Everything that the hub keeps as text, and everything that it answers of the item and its jobs. */
async function everythingOf(stage: SimStage): Promise<string> {
  const { db } = stage.hub.services.database;
  const tables = await sql<{ name: string }>`select tablename as name from pg_tables where schemaname = current_schema()`.execute(db);
  const rows = await Promise.all(
    tables.rows.map(
      async ({ name }) => (await sql<{ row: string }>`select row(t.*)::text as row from ${sql.table(name)} t`.execute(db)).rows,
    ),
  );
  return JSON.stringify([
    rows,
    await stage.get(),
    await stage.list(`${stage.item.split("/replicationFabrics/")[0] ?? ""}/replicationJobs`),
  ]);
}

const migrateBody = (details: object = {}): object => ({
  properties: { providerSpecificDetails: { ...simProvider, network: "prod", ...details } },
});
const testBody = (details: object = {}): object => ({ properties: { providerSpecificDetails: { ...simProvider, ...details } } });

describe("settings of the machine", { concurrency: 3 }, () => {
  it("reach every machine that lands, tests by their own addresses, and are answered without the keys", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const nicId = await cardOf(stage);
    const own = {
      hasSerialConsole: true,
      nicAddressing: [{ nicId, addressing: fixed }],
      tfoNicAddressing: [{ nicId, addressing: { kind: "dhcp" } }],
    };
    await set(stage, { ...own, unlockKeys: [key.toString("base64")] });
    const { hasSerialConsole, nicAddressing, tfoNicAddressing, unlockKeyCount } = await shownOf(stage);
    assert.deepEqual({ hasSerialConsole, nicAddressing, tfoNicAddressing, unlockKeyCount }, { ...own, unlockKeyCount: 1 });
    const test = await changesOf(stage, await stage.done("POST", "testFailover", testBody()));
    assert.ok(test.includes(`the card ${nicId} gets {"kind":"dhcp"}`) && test.includes(triedWith(key)));
    assert.ok(test.includes("the kernel talks on the serial console"));
    await stage.done("POST", "testFailoverCleanup", {});
    const migrated = await changesOf(stage, await stage.done("POST", "unplannedFailover", migrateBody()));
    assert.ok(migrated.includes(`the card ${nicId} gets ${JSON.stringify(fixed)}`) && migrated.includes(triedWith(key)));
    const status = await stage.hub.target.status("web");
    assert.deepEqual(status.addresses, ["10.9.0.5"]);
    const kept = await everythingOf(stage);
    for (const form of [key.toString("base64"), key.toString("hex"), "correct horse"]) assert.equal(kept.includes(form), false, form);
  });

  it("keep keys until they are set anew, are taken back, or the machine is gone", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await set(stage, { unlockKeys: [key.toString("base64")] });
    await set(stage, { hasSerialConsole: true });
    assert.deepEqual([(await shownOf(stage))["unlockKeyCount"], await secretsOf(stage)], [1, [stage.item.toLowerCase()]]);
    await set(stage, { unlockKeys: [otherKey.toString("base64")] });
    const rehearsed = await changesOf(stage, await stage.done("POST", "rehearse", { properties: {} }));
    assert.deepEqual([rehearsed.includes(triedWith(key)), rehearsed.includes(triedWith(otherKey))], [false, true]);
    await set(stage, { unlockKeys: [] });
    assert.deepEqual([(await shownOf(stage))["unlockKeyCount"], await secretsOf(stage)], [undefined, []]);
    await set(stage, { unlockKeys: [key.toString("base64")] });
    await stage.done("POST", "remove", { properties: {} });
    assert.deepEqual(await secretsOf(stage), []);
  });
});

describe("settings of a call", { concurrency: 3 }, () => {
  it("stand before the machine's own, and their keys go with the job, whatever its end", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const nicId = await cardOf(stage);
    await set(stage, { nicAddressing: [{ nicId, addressing: fixed }], hasSerialConsole: true, unlockKeys: [key.toString("base64")] });
    const wish = {
      hasSerialConsole: false,
      nicAddressing: [{ nicId, addressing: { kind: "keep" } }],
      unlockKeys: [otherKey.toString("base64")],
    };
    const jobId = await stage.done("POST", "testFailover", testBody(wish));
    const changes = await changesOf(stage, jobId);
    assert.deepEqual(
      changes.filter((line) => !line.includes("keeps the name")),
      [triedWith(otherKey)],
    );
    assert.equal(JSON.stringify(await readJob(stage.hub.services.database.db, jobId)).includes(otherKey.toString("base64")), false);
    assert.deepEqual(await secretsOf(stage), [stage.item.toLowerCase()]);
    await stage.done("POST", "testFailoverCleanup", {});
    const probe = { port: 81, timeoutSeconds: 1 };
    const failing = { ...wish, probe, network: "prod", actions: [{ kind: "serial", text: "never said", timeoutSeconds: 1 }] };
    const { state } = await stage.change("POST", `${stage.item}/unplannedFailover`, migrateBody(failing));
    assert.equal(state, "failed");
    assert.deepEqual(await secretsOf(stage), [stage.item.toLowerCase()]);
  });

  it("are what a machine lands with again from another point, which needs the keys anew", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const nicId = await cardOf(stage);
    const wish = { hasSerialConsole: true, nicAddressing: [{ nicId, addressing: fixed }], unlockKeys: [key.toString("base64")] };
    await stage.done("POST", "unplannedFailover", migrateBody(wish));
    const recoveryPointId = (await stage.list(`${stage.item}/recoveryPoints`)).at(-1)?.name;
    const apply = (more: object): object => ({ properties: { recoveryPointId, providerSpecificDetails: { ...simProvider, ...more } } });
    const refused = await stage.change("POST", `${stage.item}/applyRecoveryPoint`, apply({}));
    assert.match(refused.fault, /its encrypted disks need keys/);
    assert.deepEqual(await stage.hub.target.list(), ["web"]);
    const changes = await changesOf(stage, await stage.done("POST", "applyRecoveryPoint", apply({ unlockKeys: wish.unlockKeys })));
    assert.ok(changes.includes(`the card ${nicId} gets ${JSON.stringify(fixed)}`) && changes.includes(triedWith(key)));
    assert.ok(changes.includes("the kernel talks on the serial console"));
  });
});

it("settings that cannot be are refused with what may be, and keys are never part of a refusal", async () => {
  await using stage = await openSimStage(cluster);
  await stage.protect();
  const nicId = await cardOf(stage);
  const to = (addressing: object, of = nicId): object => ({ nicAddressing: [{ nicId: of, addressing }] });
  const badKey = "c2VjcmV0IQ=*";
  const cases: readonly (readonly [object, RegExp])[] = [
    [to({ kind: "dhcp" }, "none"), /no such card/],
    [{ nicAddressing: [to, to].map(() => ({ nicId, addressing: { kind: "dhcp" } })) }, /named twice/],
    [to({ kind: "fixed", address: "10.9.0.5" }), /prefix of 1 to 30/],
    [to({ kind: "fixed", address: "10.9.0.5/31" }), /prefix of 1 to 30/],
    [to({ kind: "fixed", address: "fd00::5/64" }), /prefix of 1 to 30/],
    [to({ kind: "fixed", address: "10.9.0.255/24" }), /neither the first nor the last/],
    [to({ kind: "fixed", address: "10.9.0.5/24", gateway: "10.8.0.1" }), /own subnet/],
    [to({ kind: "fixed", address: "10.9.0.5/24", nameServers: ["dns"] }), /name servers/],
    [to({ kind: "dhcp", address: "10.9.0.5/24" }), /address/],
    [{ unlockKeys: [badKey] }, /base64/],
    [{ unlockKeys: Array.from({ length: 9 }, () => "c2VjcmV0") }, /unlockKeys/],
    [{ unlockKeys: ["A".repeat(12_000)] }, /unlockKeys/],
  ];
  for (const [details, reason] of cases)
    for (const [method, path, body] of [
      ["PATCH", stage.item, { properties: { providerSpecificDetails: { ...simProvider, ...details } } }],
      ["POST", `${stage.item}/testFailover`, testBody(details)],
      ["POST", `${stage.item}/unplannedFailover`, migrateBody(details)],
    ] as const) {
      const refusal = await stage.hub.call(method, path, body).then(
        () => assert.fail(`${method} took ${JSON.stringify(details)}`),
        (error: unknown) => error,
      );
      assert.ok(refusal instanceof ArmFault, String(refusal));
      const text = JSON.stringify([refusal.message, refusal.evidence]);
      assert.match(text, reason);
      assert.equal(text.includes(badKey), false);
    }
  await set(stage, {}, { selectedSourceNicId: nicId });
  assert.deepEqual(await stage.hub.target.list(), []);
});
