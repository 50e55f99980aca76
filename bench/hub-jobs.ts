// What the job engine costs: how long a killed hub's job takes to end in another hub, and what a step costs beside its own work.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { sql } from "kysely";
import { systemClock } from "../src/base/clock.ts";
import { silentLog } from "../src/base/log.ts";
import { systemRandom } from "../src/base/random.ts";
import { JobEngine } from "../src/hub/jobs/job-engine.ts";
import { readJob } from "../src/hub/jobs/job-store.ts";
import { defineTrialJob, touchRows, trialStatements } from "../src/hub/jobs/trial-job.ts";
import { startTestCluster, type TestCluster } from "../src/hub/test-hub.ts";
import { median } from "./measured.ts";

export interface JobFigures {
  readonly leaseMs: number;
  readonly takeoverMs: number;
  readonly aloneMs: number;
  readonly among64Ms: number;
}

/** What hubs have unless told. */
const leaseMs = 15_000;
const stepsPerJob = 4;
const world = { touch: touchRows, kill: (): void => undefined };

export async function measureJobs(): Promise<JobFigures> {
  await using cluster = await startTestCluster();
  return { leaseMs, ...(await measureSteps(cluster)), takeoverMs: await measureTakeover(cluster) };
}

/** What the engine adds to a step that does next to nothing: durable begin, evidence, end. */
async function measureSteps(cluster: TestCluster): Promise<Pick<JobFigures, "aloneMs" | "among64Ms">> {
  await using database = await cluster.openFreshDatabase();
  for (const statement of trialStatements) await sql.raw(statement).execute(database.db);
  const kinds = [defineTrialJob(world, database.db, "Trial")];
  await using engine = new JobEngine({ database, kinds, clock: systemClock, random: systemRandom, log: silentLog });
  const runJobs = async (count: number): Promise<number> => {
    const startedMs = systemClock.monotonicMs();
    const one = async (): Promise<void> => {
      const name = systemRandom.uuid();
      const target = { kind: "Trial", scope: "/v", targetId: name, targetName: name, lockKey: name, actor: "bench" };
      await engine.wait(await engine.submit({ ...target, parameters: {} }));
    };
    await Promise.all(Array.from({ length: count }, one));
    return (systemClock.monotonicMs() - startedMs) / (count * stepsPerJob);
  };
  await runJobs(1);
  const alone: number[] = [];
  for (let round = 0; round < 20; round++) alone.push(await runJobs(1));
  return { aloneMs: median(alone), among64Ms: await runJobs(64) };
}

/** From SIGKILL to the end of the job in another hub, with the lease that hubs have. */
async function measureTakeover(cluster: TestCluster): Promise<number> {
  await using database = await cluster.openFreshDatabase();
  for (const statement of trialStatements) await sql.raw(statement).execute(database.db);
  const common = { database, clock: systemClock, random: systemRandom, log: silentLog };
  const kinds = [defineTrialJob(world, database.db, "Trial")];
  const program = join(import.meta.dirname, "../src/hub/jobs/trial-hub-child.ts");
  const child = spawn(process.execPath, [program, JSON.stringify(database.address), "Trial", String(leaseMs)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = once(child, "exit");
  await once(child.stdout, "data");
  await using submitter = new JobEngine({ ...common, kinds, jobsMax: 0 }); // Takes no job itself.
  const target = { kind: "Trial", scope: "/v", targetId: "t", targetName: "t", lockKey: "t", actor: "bench" };
  // The child kills itself inside the second step.
  const jobId = await submitter.submit({ ...target, parameters: { moment: "two:inside", does: "kill" } });
  await exit;
  const struck = await readJob(database.db, jobId);
  assert.ok(child.signalCode === "SIGKILL" && struck?.endedAt === undefined, "the first hub was killed inside its job");
  const startedMs = systemClock.monotonicMs();
  await using other = new JobEngine({ ...common, kinds });
  assert.equal((await other.wait(jobId)).state, "succeeded");
  return systemClock.monotonicMs() - startedMs;
}
