// Jobs: each step run twice, each step failed, the hub killed at every moment, cancelled, taken over; always the same end.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { JobEngine, type JobEngineOptions, type JobOrder } from "./job-engine.ts";
import { undoAttemptsMax } from "./job-run.ts";
import { readHolds } from "./job-control.ts";
import { readJob, readLog, readSteps } from "./job-store.ts";
import type { Database } from "../db/database.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { defineTrialJob, touchRows, trialMoments, trialStatements } from "./trial-job.ts";

let cluster: TestCluster;
let database: Database;
before(async () => {
  cluster = await startTestCluster();
  database = await cluster.openFreshDatabase();
  for (const statement of trialStatements) await sql.raw(statement).execute(database.db);
});
after(async () => {
  await database[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

const doNotKill = (): void => assert.fail("only a child process may be killed");

function startEngine(options: Partial<JobEngineOptions> = {}, kind = "Trial"): JobEngine {
  const kinds = [defineTrialJob({ touch: touchRows, kill: doNotKill }, database.db, kind)];
  const times = { leaseMs: 800, pollMs: 50 };
  return new JobEngine({ database, kinds, clock: systemClock, random: systemRandom, log: silentLog, ...times, ...options });
}

const order = (parameters: object, kind = "Trial"): JobOrder => {
  const name = systemRandom.uuid();
  return { kind, scope: "/v", targetId: `/v/${name}`, targetName: name, lockKey: name, actor: "test", parameters };
};

interface End {
  readonly outcome: string;
  readonly evidence: object;
  readonly effects: readonly string[];
}

async function readEnd(jobId: string): Promise<End> {
  const { db } = database;
  const ends = await sql<{ outcome: string; evidence: object }>`select outcome, evidence from trial_ends where job_id = ${jobId}`.execute(
    db,
  );
  const effects = await sql<{ name: string }>`select name from trial_effects where job_id = ${jobId} order by name`.execute(db);
  assert.equal(ends.rows.length, 1, "a job is settled once");
  return { outcome: ends.rows[0]?.outcome ?? "", evidence: ends.rows[0]?.evidence ?? {}, effects: effects.rows.map((row) => row.name) };
}

const whole: End = {
  outcome: "succeeded",
  evidence: { one: "one after 0", two: "two after 1", three: "three after 2", four: "four after 3" },
  effects: ["four", "one", "three", "two"],
};
const forwardMoments = trialMoments.filter((moment) => !moment.endsWith("undo"));

describe("submitting a job", () => {
  it("with an id that is known changes nothing", async () => {
    const jobId = systemRandom.uuid();
    await using engine = startEngine({ jobsMax: 1 }, "TrialTwice");
    const wish = { ...order({}, "TrialTwice"), jobId };
    assert.equal(await engine.submit(wish), jobId);
    assert.equal(await engine.submit(wish), jobId);
    assert.equal((await engine.wait(jobId)).state, "succeeded");
    assert.equal(await engine.submit(wish), jobId);
    assert.equal((await readEnd(jobId)).effects.length, 4);
  });
});

describe("a job", () => {
  it("runs its steps in order and ends its operation", async () => {
    await using engine = startEngine();
    const jobId = await engine.submit(order({}));
    const job = await engine.wait(jobId);
    assert.deepEqual([job.state, job.percent], ["succeeded", 100]);
    assert.deepEqual(await readEnd(jobId), whole);
    const operation = await sql<{
      status: string;
      result: object;
    }>`select status, result from operations where operation_id = ${jobId}`.execute(database.db);
    assert.deepEqual(operation.rows, [{ status: "Succeeded", result: { outcome: "succeeded" } }]);
    const log = await readLog(database.db, jobId);
    assert.deepEqual(
      log.map((line) => line.text),
      ["touched one", "touched two", "touched three", "touched four"],
    );
  });

  it("is refused while another of the same target is under way", async () => {
    await using engine = startEngine();
    const first = order({ moment: "two:inside", does: "wait" });
    const jobId = await engine.submit(first);
    await assert.rejects(
      engine.submit(first),
      (error) => error instanceof Fault && error.code === "StateConflict" && error.evidence["jobId"] === jobId,
    );
    await engine.cancel(jobId, "test");
    await engine.wait(jobId);
  });

  for (const moment of forwardMoments)
    it(`undoes what was done when it fails at ${moment}`, async () => {
      await using engine = startEngine();
      const jobId = await engine.submit(order({ failsAt: moment }));
      const job = await engine.wait(jobId);
      assert.equal(job.state, "failed");
      assert.equal(job.fault?.id, "InputInvalid");
      const end = await readEnd(jobId);
      assert.deepEqual([end.outcome, end.effects], ["failed", []]);
      const acts = await sql<{
        name: string;
        act: string;
      }>`select name, act from trial_acts where job_id = ${jobId} and act = 'undo' order by serial`.execute(database.db);
      const names = ["one", "two", "three", "four"];
      const failed = names.indexOf(moment.split(":")[0] ?? "");
      assert.deepEqual(
        acts.rows.map((row) => row.name),
        names.slice(0, failed + 1).toReversed(),
      );
    });

  it("tells an undo that never succeeds, and still runs the others", async () => {
    await using engine = startEngine();
    const jobId = await engine.submit(order({ moment: "two:undo", does: "undoFail", failsAt: "three:inside" }));
    assert.equal((await engine.wait(jobId)).state, "failed");
    const steps = await readSteps(database.db, jobId);
    assert.deepEqual(
      steps.map((step) => step.undoState),
      ["done", "failed", "done", "none"],
    );
    assert.equal(steps[1]?.undoAttemptCount, undoAttemptsMax);
    assert.equal(steps[1]?.undoFault?.id, "Internal");
  });

  it("undoes what was done when it is cancelled inside a step", async () => {
    await using engine = startEngine();
    const jobId = await engine.submit(order({ moment: "three:inside", does: "wait" }));
    await untilStep(jobId, "three");
    await engine.cancel(jobId, "test");
    const job = await engine.wait(jobId);
    assert.deepEqual([job.state, job.fault?.id], ["cancelled", "JobCancelled"]);
    assert.deepEqual((await readEnd(jobId)).effects, []);
    await assert.rejects(engine.cancel(jobId, "test"), (error) => error instanceof Fault && error.code === "StateConflict");
  });

  it("goes on at once in another hub when its hub stops", async () => {
    const first = startEngine({ leaseMs: 60_000 });
    const jobId = await first.submit(order({ moment: "two:after", does: "wait" }));
    await untilStep(jobId, "two");
    await first[Symbol.asyncDispose]();
    await sql`update jobs set parameters = '{}' where job_id = ${jobId}`.execute(database.db);
    await using second = startEngine({ leaseMs: 60_000 });
    assert.equal((await second.wait(jobId)).state, "succeeded");
    assert.deepEqual(await readEnd(jobId), whole);
  });
});

describe("a job that waits for a person", () => {
  it("is suspended at its hold, holds no hub, and goes on when it is resumed", async () => {
    const first = startEngine();
    const jobId = await first.submit(order({ moment: "two:inside", does: "hold" }));
    await untilState(jobId, "suspended");
    await first[Symbol.asyncDispose]();
    await using engine = startEngine();
    assert.deepEqual(
      (await readHolds(database.db, jobId)).map(({ name, step, answer }) => ({ name, step, answer })),
      [{ name: "inside", step: "two", answer: undefined }],
    );
    await engine.resume(jobId, "anna", "the cable is in");
    assert.equal((await engine.wait(jobId)).state, "succeeded");
    assert.deepEqual(await readEnd(jobId), whole);
    const [hold] = await readHolds(database.db, jobId);
    assert.deepEqual([hold?.answer?.by, hold?.answer?.comments], ["anna", "the cable is in"]);
    const texts = (await readLog(database.db, jobId)).map((line) => line.text);
    assert.ok(texts.includes("resumed by anna") && texts.includes("went on for anna: the cable is in"), texts.join("; "));
    assert.equal((await readSteps(database.db, jobId))[1]?.attemptCount, 1, "a hold is no failed attempt");
    await assert.rejects(engine.resume(jobId, "anna", ""), isConflict);
  });

  it("is undone when it is cancelled meanwhile", async () => {
    await using engine = startEngine();
    const jobId = await engine.submit(order({ moment: "three:inside", does: "hold" }));
    await untilState(jobId, "suspended");
    await engine.cancel(jobId, "anna");
    assert.equal((await engine.wait(jobId)).state, "cancelled");
    assert.deepEqual((await readEnd(jobId)).effects, []);
  });
});

describe("a job of a machine that landed at a host", () => {
  it("is left to the hubs of that host by those of others", async () => {
    const kind = systemRandom.uuid();
    const here = startEngine({ place: "here", jobsMax: 0 }, kind);
    const bound = await here.submit(order({}, kind));
    await sql`update jobs set place = 'here' where job_id = ${bound}`.execute(database.db);
    await using _there = startEngine({ place: "there" }, kind);
    const free = await here.submit(order({}, kind));
    assert.equal((await here.wait(free)).state, "succeeded");
    assert.equal((await readJob(database.db, bound))?.state, "notStarted");
    await here[Symbol.asyncDispose]();
    await using again = startEngine({ place: "here" }, kind);
    assert.equal((await again.wait(bound)).state, "succeeded");
  });
});

describe("a job that failed", () => {
  it("is begun again once, as a new job with the same parameters", async () => {
    await using engine = startEngine();
    const jobId = await engine.submit(order({ failsAt: "two:inside" }));
    assert.equal((await engine.wait(jobId)).state, "failed");
    const newJobId = await engine.restart(jobId, "anna");
    const again = await engine.wait(newJobId);
    assert.deepEqual([again.state, again.restartOf, again.actor], ["failed", jobId, "anna"]);
    await assert.rejects(engine.restart(jobId, "anna"), isConflict);
    assert.equal(engine.canRestart(again), true);
  });

  it("is not begun again when its resource refuses or it succeeded, and nothing is left of the attempt", async () => {
    await using engine = startEngine();
    const refused = await engine.submit(order({ moment: "four:undo", does: "undoFail", failsAt: "one:inside" }));
    await engine.wait(refused);
    await assert.rejects(engine.restart(refused, "anna"), isConflict);
    const found = await sql<{ count: string }>`select count(*) from jobs where restart_of = ${refused}`.execute(database.db);
    assert.equal(found.rows[0]?.count, "0");
    const succeeded = await engine.submit(order({}));
    await engine.wait(succeeded);
    await assert.rejects(engine.restart(succeeded, "anna"), isConflict);
    await assert.rejects(engine.restart(systemRandom.uuid(), "anna"), (error) => error instanceof Fault && error.code === "NotFound");
  });
});

describe("a killed hub's job", { concurrency: 4 }, () => {
  for (const moment of forwardMoments)
    it(`ends the same after SIGKILL at ${moment}`, async () => {
      const { state, end } = await killAndTakeOver({ moment, does: "kill" });
      assert.equal(state, "succeeded");
      assert.deepEqual(end, whole);
    });

  for (const moment of trialMoments.filter((each) => each.endsWith("undo")))
    it(`is undone to the end after SIGKILL at ${moment}`, async () => {
      const { state, end } = await killAndTakeOver({ moment, does: "kill", failsAt: "four:after" });
      assert.equal(state, "failed");
      assert.deepEqual([end.outcome, end.effects], ["failed", []]);
    });
});

describe("a stopped hub's job", () => {
  it("goes on in another hub, and the old hub's commands are refused when it wakes", async () => {
    const kind = systemRandom.uuid();
    await using submitter = startEngine({ jobsMax: 0 }, kind);
    await using child = await startChild(kind);
    const jobId = await submitter.submit(order({ moment: "two:inside", does: "wait" }, kind));
    await untilStep(jobId, "two");
    child.process.kill("SIGSTOP");
    await sql`update jobs set parameters = '{}' where job_id = ${jobId}`.execute(database.db);
    await using second = startEngine({}, kind);
    assert.equal((await second.wait(jobId)).state, "succeeded");
    child.process.kill("SIGCONT");
    child.process.kill("SIGTERM");
    const [exitCode] = (await once(child.process, "exit")) as [number | null];
    assert.equal(exitCode, 0, "the old hub let go and ended");
    assert.deepEqual(await readEnd(jobId), whole);
    const acts = await sql<{ fence: string }>`select fence from trial_acts where job_id = ${jobId} order by serial`.execute(database.db);
    const fences = acts.rows.map((row) => Number(row.fence));
    assert.deepEqual(
      fences,
      fences.toSorted((left, right) => left - right),
      "no command of the old hub came after one of the new",
    );
  });
});

async function killAndTakeOver(parameters: object): Promise<{ readonly state: string; readonly end: End }> {
  const kind = systemRandom.uuid();
  await using submitter = startEngine({ jobsMax: 0 }, kind);
  await using child = await startChild(kind);
  const exit = once(child.process, "exit");
  const jobId = await submitter.submit(order(parameters, kind));
  await exit;
  assert.equal(child.process.signalCode, "SIGKILL");
  await using engine = startEngine({}, kind);
  const job = await engine.wait(jobId);
  return { state: job.state, end: await readEnd(jobId) };
}

/** A hub in a process of its own that takes the jobs of a kind. */
async function startChild(kind: string): Promise<AsyncDisposable & { readonly process: ChildProcess }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "trial-hub-child.ts"), JSON.stringify(database.address), kind], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout ?? assert.fail("stdout is a pipe"), "data");
  const close = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  };
  return { process: child, [Symbol.asyncDispose]: close };
}

const isConflict = (error: unknown): boolean => error instanceof Fault && error.code === "StateConflict";

async function untilState(jobId: string, state: string): Promise<void> {
  while ((await readJob(database.db, jobId))?.state !== state) await systemClock.sleep(10);
}

async function untilStep(jobId: string, name: string): Promise<void> {
  for (;;) {
    const steps = await readSteps(database.db, jobId);
    const found = steps.find((step) => step.name === name);
    if (found?.state === "running" && Object.keys(found.evidence).length > 0) return;
    await systemClock.sleep(10);
  }
}
