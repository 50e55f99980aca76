// Strikes every kind of job at every moment, by SIGKILL and by SIGSTOP, and shows what became of it; measures takeover and step overhead.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { sql } from "kysely";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import { Semaphore } from "../../src/base/semaphore.ts";
import type { Database } from "../../src/hub/db/database.ts";
import { JobEngine } from "../../src/hub/jobs/job-engine.ts";
import { readJob } from "../../src/hub/jobs/job-store.ts";
import { defineTrialJob, touchRows, trialStatements } from "../../src/hub/jobs/trial-job.ts";
import { killCases } from "../../src/hub/replication/kill-cases.ts";
import { runKillTrial, type KillCase, type TrialEnd } from "../../src/hub/replication/kill-trial.ts";
import { startTestCluster, type TestCluster } from "../../src/hub/test-hub.ts";

interface Row {
  readonly kind: string;
  readonly case: string;
  readonly moment: string;
  readonly how: "kill" | "pause";
  readonly outcome: "taken over" | "rolled back" | "had ended" | "WRONG";
  readonly orphans: number;
  readonly doubledEffects: number;
  readonly takeoverMs: number | undefined;
  readonly wrong?: object;
}

/** What hubs have unless told. */
const leaseMs = 15_000;
const trialsAtOnce = 2;
const isJson = process.argv.includes("--json");
const say = (line: string): void => void process.stderr.write(`${line}\n`);

/** Orders carried out more often than in the trial that nobody struck, and two machines that ran at once. */
function doubledEffects(whole: TrialEnd, struck: TrialEnd): number {
  const left = [...whole.orders];
  const more = struck.orders.filter((order) => {
    const index = left.indexOf(order);
    if (index >= 0) left.splice(index, 1);
    return index < 0;
  });
  return more.length + (struck.ranBoth ? 1 : 0);
}

async function strikeAll(cluster: TestCluster, kase: KillCase, turn: Semaphore): Promise<readonly Row[]> {
  const whole = await turn.run(async () => await runKillTrial(cluster, kase, { how: "none", at: 0 }));
  const strikes = whole.moments.flatMap((moment, index) => (["kill", "pause"] as const).map((how) => ({ moment, how, at: index + 1 })));
  const rows = await Promise.all(
    strikes.map(async ({ moment, how, at }) => {
      const struck = await turn.run(async () => await runKillTrial(cluster, kase, { how, at }));
      const isRight = struck.wasStruck && isDeepStrictEqual(struck.end, whole.end);
      const ended = struck.takeCount < 2 ? "had ended" : kase.ends === "failed" ? "rolled back" : "taken over";
      const row: Row = {
        ...{ kind: kase.kind, case: kase.name, moment, how, outcome: isRight ? ended : "WRONG", orphans: struck.end.orphans.length },
        ...{ doubledEffects: doubledEffects(whole.end, struck.end), takeoverMs: struck.takeoverMs },
        ...(isRight ? {} : { wrong: { expected: whole.end, found: struck.end, wasStruck: struck.wasStruck } }),
      };
      return row;
    }),
  );
  const wrong = rows.filter((row) => row.outcome === "WRONG").length;
  say(`${kase.kind}, ${kase.name}: ${whole.moments.length} moments, ${rows.length} strikes, ${wrong} wrong`);
  return rows;
}

/** What the engine adds to a step that does next to nothing: durable begin, evidence, end. */
async function measureSteps(cluster: TestCluster): Promise<{ readonly aloneMs: number; readonly among64Ms: number }> {
  await using database = await cluster.openFreshDatabase();
  for (const statement of trialStatements) await sql.raw(statement).execute(database.db);
  const world = { touch: touchRows, kill: (): void => undefined };
  const kinds = [defineTrialJob(world, database.db, "Trial")];
  await using engine = new JobEngine({ database, kinds, clock: systemClock, random: systemRandom, log: silentLog });
  const stepsPerJob = 4;
  const runJobs = async (count: number): Promise<number> => {
    const startedMs = systemClock.monotonicMs();
    const one = async (): Promise<void> => {
      const name = systemRandom.uuid();
      const target = { kind: "Trial", scope: "/v", targetId: name, targetName: name, lockKey: name, actor: "proof" };
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
  const world = { touch: touchRows, kill: (): void => undefined };
  const kinds = [defineTrialJob(world, database.db, "Trial")];
  const program = join(import.meta.dirname, "../../src/hub/jobs/trial-hub-child.ts");
  const child = spawn(process.execPath, [program, JSON.stringify(database.address), "Trial", String(leaseMs)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = once(child, "exit");
  await once(child.stdout, "data");
  await using submitter = new JobEngine({ ...common, kinds, jobsMax: 0 }); // Takes no job itself.
  const target = { kind: "Trial", scope: "/v", targetId: "t", targetName: "t", lockKey: "t", actor: "proof" };
  const jobId = await submitter.submit({ ...target, parameters: { moment: "two:inside", does: "kill" } });
  await exitOrKill(child, exit, database, jobId);
  const startedMs = systemClock.monotonicMs();
  await using other = new JobEngine({ ...common, kinds });
  const job = await other.wait(jobId);
  if (job.state !== "succeeded") throw new Error(`the job that was taken over is ${job.state}`);
  return systemClock.monotonicMs() - startedMs;
}

/** The child kills itself inside the second step. */
async function exitOrKill(child: ChildProcess, exit: Promise<unknown>, database: Database, jobId: string): Promise<void> {
  await exit;
  const job = await readJob(database.db, jobId);
  if (child.signalCode !== "SIGKILL" || job?.endedAt !== undefined) throw new Error("the first hub was not killed inside its job");
}

function median(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function showTable(rows: readonly Row[]): void {
  const widths = { kind: 20, case: 17, moment: 26, how: 6, outcome: 12 };
  say(
    ["job kind".padEnd(20), "case".padEnd(17), "moment".padEnd(26), "by".padEnd(6), "outcome".padEnd(12), "orphans", "doubled"].join("  "),
  );
  for (const row of rows) {
    const texts = [
      row.kind.padEnd(widths.kind),
      row.case.padEnd(widths.case),
      row.moment.padEnd(widths.moment),
      row.how.padEnd(widths.how),
      row.outcome.padEnd(widths.outcome),
    ];
    say([...texts, String(row.orphans).padStart(7), String(row.doubledEffects).padStart(7)].join("  "));
    if (row.wrong !== undefined) say(JSON.stringify(row.wrong));
  }
}

await using cluster = await startTestCluster();
const startedMs = systemClock.monotonicMs();
const steps = await measureSteps(cluster);
const takeoverMs = await measureTakeover(cluster);
const turn = new Semaphore(trialsAtOnce);
const rows: Row[] = [];
for (const kase of killCases) rows.push(...(await strikeAll(cluster, kase, turn)));
if (!isJson) showTable(rows);
const takeovers = rows.flatMap((row) => (row.takeoverMs === undefined ? [] : [row.takeoverMs]));
const summary = {
  kinds: new Set(rows.map((row) => row.kind)).size,
  strikes: rows.length,
  wrong: rows.filter((row) => row.outcome === "WRONG").length,
  takenOver: rows.filter((row) => row.outcome === "taken over").length,
  rolledBack: rows.filter((row) => row.outcome === "rolled back").length,
  hadEnded: rows.filter((row) => row.outcome === "had ended").length,
  orphans: rows.reduce((sum, row) => sum + row.orphans, 0),
  doubledEffects: rows.reduce((sum, row) => sum + row.doubledEffects, 0),
  takeoverToEnd: { leaseMs, ms: Math.round(takeoverMs) },
  takeover: { leaseMs: 700, medianMs: Math.round(median(takeovers)), maxMs: Math.round(Math.max(...takeovers)) },
  stepOverhead: { aloneMs: Number(steps.aloneMs.toFixed(2)), among64Ms: Number(steps.among64Ms.toFixed(2)) },
  seconds: Math.round((systemClock.monotonicMs() - startedMs) / 1000),
};
say(JSON.stringify(summary));
if (isJson) process.stdout.write(`${JSON.stringify({ summary, rows })}\n`);
if (summary.wrong > 0 || summary.orphans > 0 || summary.doubledEffects > 0) process.exitCode = 1;
