// Jobs as clients see them: one that waits for a person is resumed with a comment, one that failed is restarted, lists page without a gap.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sql } from "kysely";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { findResource } from "../api/arm-call.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { ArmCall, ResourceType } from "../api/resource-type.ts";
import type { Database } from "../db/database.ts";
import { openOperationStore } from "../db/operations.ts";
import { JobEngine } from "../jobs/job-engine.ts";
import { listJobs } from "../jobs/job-list.ts";
import { defineTrialJob, touchRows, trialStatements } from "../jobs/trial-job.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { jobResource } from "./job-type.ts";

const vault = parseResourceId(
  "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v",
);
let cluster: TestCluster;
let database: Database;
let engine: JobEngine;
let type: ResourceType;
before(async () => {
  cluster = await startTestCluster();
  database = await cluster.openFreshDatabase();
  for (const statement of trialStatements) await sql.raw(statement).execute(database.db);
  const kinds = [defineTrialJob({ touch: touchRows, kill: () => assert.fail("nothing is killed here") }, database.db, "Trial")];
  engine = new JobEngine({ database, kinds, clock: systemClock, random: systemRandom, log: silentLog, pollMs: 50 });
  const vaults = {
    open: async (): Promise<never> => {
      throw new Fault("StorageRoleMissing", "there is no storage here");
    },
  };
  const operations = openOperationStore({ db: database.db, clock: systemClock, random: systemRandom });
  type = jobResource({ database, clock: systemClock, random: systemRandom, vaults, operations }, () => engine);
});
after(async () => {
  await engine[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

const shape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({
    state: z.string(),
    allowedActions: z.array(z.string()),
    tasks: z.array(
      z.looseObject({ name: z.string(), state: z.string(), allowedActions: z.array(z.string()), customDetails: z.unknown().optional() }),
    ),
  }),
});
type Shown = z.infer<typeof shape>;

function callOf(jobId: string): ArmCall {
  const id = parseResourceId(`${vault.text}/replicationJobs/${jobId}`);
  const caller = { principalId: "anna", name: "anna", groupIds: [] };
  return {
    id,
    caller,
    apiVersion: "",
    query: {},
    correlationId: "",
    origin: "https://management.test",
    log: silentLog,
    signal: new AbortController().signal,
  };
}

async function submit(parameters: object): Promise<string> {
  const name = systemRandom.uuid();
  const target = { targetId: `${vault.text}/replicationPolicies/${name}`, targetName: name, lockKey: name };
  return await engine.submit({ kind: "Trial", scope: vault.key, ...target, actor: "test", parameters });
}

async function show(jobId: string): Promise<Shown> {
  return shape.parse(await type.source?.get(callOf(jobId)));
}

async function act(jobId: string, name: string, body: object = {}): Promise<Shown> {
  const action = type.actions?.[name];
  const hub = Object.create(null) as Parameters<typeof findResource>[0]; // A type with a source is found through the source alone.
  const resource = await findResource(hub, callOf(jobId), type);
  assert.ok(action !== undefined && resource !== undefined);
  const outcome = await action.run(callOf(jobId), action.body.parse(body), resource);
  assert.equal(outcome.kind, "done");
  return shape.parse(outcome.kind === "done" ? outcome.body : undefined);
}

test("a job that waits for a person offers Resume and Cancel, tells what to do, and goes on with the comment", async () => {
  const jobId = await submit({ moment: "two:inside", does: "hold" });
  let held = await show(jobId);
  for (; held.properties.state !== "Suspended"; held = await show(jobId)) assert.notEqual(held.properties.state, "Failed");
  assert.deepEqual(held.properties.allowedActions, ["Resume", "Cancel"]);
  const [, two] = held.properties.tasks;
  assert.deepEqual([two?.state, two?.allowedActions], ["Suspended", ["Resume"]]);
  const manual = { instanceType: "ManualActionTaskDetails", name: "hold at inside", instructions: "look, then resume" };
  assert.deepEqual(two?.customDetails, { ...manual, observation: "" });
  const resumed = await act(jobId, "resume", { properties: { comments: "the cable is in" } });
  assert.deepEqual(resumed.properties.tasks[1]?.customDetails, { ...manual, observation: "the cable is in" });
  assert.equal((await engine.wait(jobId)).state, "succeeded");
  assert.deepEqual((await show(jobId)).properties.allowedActions, []);
});

test("a job that failed offers Restart where its kind can, and restart answers the new job", async () => {
  const jobId = await submit({ failsAt: "two:inside" });
  await engine.wait(jobId);
  assert.deepEqual((await show(jobId)).properties.allowedActions, ["Restart"]);
  const restarted = await act(jobId, "restart");
  assert.notEqual(restarted.name, jobId);
  assert.deepEqual((await show(jobId)).properties.allowedActions, []);
  await engine.wait(restarted.name);
});

test("a list of jobs pages without gap or repeat, also where many were asked for at one moment", async () => {
  const ids = await Promise.all(Array.from({ length: 7 }, async () => await submit({})));
  await Promise.all(ids.map(async (jobId) => await engine.wait(jobId)));
  await sql`update jobs set created_at = date_trunc('second', clock_timestamp()) where job_id = any(${ids}::uuid[])`.execute(database.db);
  const seen: string[] = [];
  let next: string | undefined;
  do {
    const page = await listJobs(database.db, { scope: vault.key, countMax: 2, afterJobId: next });
    seen.push(...page.jobs.map((job) => job.jobId));
    next = page.next;
  } while (next !== undefined);
  assert.equal(new Set(seen).size, seen.length);
  assert.deepEqual(
    ids.filter((id) => !seen.includes(id)),
    [],
  );
});
