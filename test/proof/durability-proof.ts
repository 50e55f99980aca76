// Harms every kind of job in every way and at every moment, and shows what became of it: each trial must end exactly as one that nobody harmed.
// Run: npm run proof -- durability [--quick] [--json] [--how kill,outside,…]

import { availableParallelism } from "node:os";
import { isDeepStrictEqual, parseArgs } from "node:util";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { Semaphore } from "../../src/base/semaphore.ts";
import { keepCluster } from "../../src/hub/db/cluster-keeper.ts";
import { killCases } from "../../src/hub/replication/kill-cases.ts";
import {
  runFailTrial,
  runKillTrial,
  wrongAfterFailure,
  type KillCase,
  type Strike,
  type TrialEnd,
  type Volume,
} from "../../src/hub/replication/kill-trial.ts";
import { startTestCluster, type TestCluster } from "../../src/hub/test-hub.ts";
import { proveOutsideServer } from "./outside-server.ts";
import { mountSmallVolume } from "./small-volume.ts";

/** What is ended beside the hub is for the proof of the cut-over. */
type How = Exclude<Strike["how"], "none" | "machine" | "appliance" | "agent"> | "fail";

interface Row {
  readonly how: How;
  readonly kind: string;
  readonly case: string;
  readonly moment: string;
  readonly isRight: boolean;
  /** The job ended in another hub than the one that was struck. */
  readonly wasTakenOver: boolean;
  readonly orphans: number;
  readonly doubledEffects: number;
  readonly takeoverMs: number | undefined;
  readonly wrong?: object;
}

const harms: Readonly<Record<How, string>> = {
  fail: "a step fails after its work; its undo, and those before it, run",
  kill: "SIGKILL of the hub; another takes over; the step runs twice",
  pause: "SIGSTOP of the hub; another takes over; the first wakes late and is fenced off",
  cut: "the server ends the hub's sessions",
  server: "kill -9 of the database's server, which starts again",
  full: "the database's volume is full for 3 s",
  ahead: "the hub's clock jumps ahead by a day",
  back: "the hub's clock jumps back by a day",
};

const { values } = parseArgs({
  options: { quick: { type: "boolean" }, json: { type: "boolean" }, kinds: { type: "string" }, how: { type: "string" } },
});
const isQuick = values.quick === true;
/** An outage of a server outside is suffered by a hub, not by one job. */
const cases = killCases.filter(
  ({ kind }) => values.how !== "outside" && (values.kinds === undefined || values.kinds.split(",").includes(kind)),
);
const isChosen = (how: How): boolean => values.how === undefined || values.how.split(",").includes(how);
const isOutsideChosen = values.how === undefined || values.how.split(",").includes("outside");
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const secondsSince = (startedMs: number): number => Math.round((systemClock.monotonicMs() - startedMs) / 1000);

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

/** From the end of a step's or an undo's work to the record of it: where most can go wrong. */
const isInside = (moment: string): boolean => moment.endsWith(" ran");

/** Where each harm strikes a job of these moments. In a quick proof each job is struck once in each way, at another moment than the job before. */
function strikesOf(
  moments: readonly string[],
  turn: number,
): readonly { readonly how: Exclude<How, "fail" | "server" | "full">; readonly at: number }[] {
  const all = moments.map((_, index) => index + 1);
  const ran = all.filter((at) => isInside(moments[at - 1] ?? ""));
  const inside = ran.length > 0 ? ran : all; // A job that fails in its first step and has nothing to undo.
  const one = (step: number): readonly number[] => inside.slice((turn + step) % inside.length).slice(0, 1);
  const places = {
    kill: isQuick ? one(0) : all,
    pause: isQuick ? one(1) : all,
    cut: isQuick ? one(2) : inside,
    ahead: isQuick ? one(3) : inside.filter((_, index) => index % 2 === 0),
    back: isQuick ? one(4) : inside.filter((_, index) => index % 2 === 1 || inside.length === 1),
  };
  return (["kill", "pause", "cut", "ahead", "back"] as const).flatMap((how) => places[how].map((at) => ({ how, at })));
}

async function strikeOnce(
  cluster: TestCluster,
  kase: KillCase,
  whole: Awaited<ReturnType<typeof runKillTrial>>,
  strike: Strike & { readonly how: How },
): Promise<Row> {
  const struck = await runKillTrial(cluster, kase, strike);
  const isRight = struck.wasStruck && isDeepStrictEqual(struck.end, whole.end);
  return {
    ...{ how: strike.how, kind: kase.kind, case: kase.name, moment: whole.moments[strike.at - 1] ?? "", isRight },
    ...{ wasTakenOver: struck.takeCount > 1, orphans: struck.end.orphans.length },
    ...{ doubledEffects: doubledEffects(whole.end, struck.end), takeoverMs: struck.takeoverMs },
    ...(isRight ? {} : { wrong: { expected: whole.end, found: struck.end, wasStruck: struck.wasStruck } }),
  };
}

async function wholeTrial(cluster: TestCluster, kase: KillCase): Promise<Awaited<ReturnType<typeof runKillTrial>>> {
  const whole = await runKillTrial(cluster, kase, { how: "none", at: 0 });
  if (whole.end.jobState !== kase.ends || whole.moments.length < 3)
    throw new Error(`${kase.kind}, ${kase.name}: the unharmed job is ${whole.end.jobState}`);
  return whole;
}

async function strikeCase(cluster: TestCluster, kase: KillCase, turn: Semaphore, number: number): Promise<readonly Row[]> {
  const whole = await turn.run(async () => await wholeTrial(cluster, kase));
  const strikes = strikesOf(whole.moments, number).filter(({ how }) => isChosen(how));
  const rows = await Promise.all(strikes.map(async (strike) => await turn.run(async () => await strikeOnce(cluster, kase, whole, strike))));
  say(
    `${kase.kind}, ${kase.name}: ${whole.moments.length} moments, ${rows.length} strikes, ${rows.filter(({ isRight }) => !isRight).length} wrong`,
  );
  return rows;
}

async function failCase(cluster: TestCluster, kase: KillCase, turn: Semaphore): Promise<readonly Row[]> {
  const rows: Row[] = [];
  if (kase.ends === "failed" || !isChosen("fail")) return rows;
  for (let stepAt = 1; ; stepAt++) {
    const outcome = await turn.run(async () => await runFailTrial(cluster, kase, stepAt));
    if (outcome.failedStep === undefined) return rows;
    const wrong = wrongAfterFailure(kase, outcome);
    rows.push({
      ...{ how: "fail", kind: kase.kind, case: kase.name, moment: outcome.failedStep, isRight: wrong.length === 0, wasTakenOver: false },
      ...{ orphans: outcome.end.orphans.length, doubledEffects: outcome.end.ranBoth ? 1 : 0, takeoverMs: undefined },
      ...(wrong.length === 0 ? {} : { wrong }),
    });
  }
}

/** Harms of the server strike all its databases, so these trials have a server of their own and come one after the other. */
async function strikeServer(
  kase: KillCase,
  number: number,
  place: { readonly cluster: TestCluster; readonly how: "server" | "full"; readonly volume?: Volume },
): Promise<Row> {
  const { cluster, how, volume } = place;
  const whole = await wholeTrial(cluster, kase);
  const inside = whole.moments.flatMap((moment, index) => (isInside(moment) ? [index + 1] : []));
  const at = inside[number % inside.length] ?? 1;
  const row = await strikeOnce(cluster, kase, whole, { how, at, ...(volume === undefined ? {} : { volume }) });
  say(`${kase.kind}, ${kase.name}: ${how} at ${row.moment}, ${row.isRight ? "right" : "WRONG"}`);
  return row;
}

async function strikeServers(): Promise<readonly Row[]> {
  const rows: Row[] = [];
  const firsts = cases.filter(({ kind }, index) => cases.findIndex((each) => each.kind === kind) === index);
  const chosen = firsts.filter((_, index) => !isQuick || index % 6 === 0);
  if (isChosen("server")) {
    await using cluster = await startTestCluster();
    for (const [number, kase] of chosen.entries()) rows.push(await strikeServer(kase, number, { cluster, how: "server" }));
  }
  if (!isChosen("full")) return rows;
  await using volume = await mountSmallVolume();
  if (volume === undefined) {
    say("full: not tried, because this machine allows no mount");
    return rows;
  }
  await using cluster = await startTestCluster(volume.folder);
  await using _keeper = keepCluster({ cluster: cluster.cluster, clock: systemClock, log: silentLog });
  for (const [number, kase] of chosen.entries()) rows.push(await strikeServer(kase, number, { cluster, how: "full", volume }));
  return rows;
}

function summarise(rows: readonly Row[], seconds: number) {
  const takeovers = rows
    .flatMap(({ takeoverMs }) => (takeoverMs === undefined ? [] : [takeoverMs]))
    .toSorted((left, right) => left - right);
  const count = (test: (row: Row) => boolean): number => rows.filter(test).length;
  return {
    ...{
      kinds: new Set(rows.map(({ kind }) => kind)).size,
      cases: cases.length,
      trials: rows.length,
      wrong: count(({ isRight }) => !isRight),
    },
    byHarm: Object.fromEntries(
      (Object.keys(harms) as How[]).map((how) => [
        how,
        { trials: count((row) => row.how === how), wrong: count((row) => row.how === how && !row.isRight) },
      ]),
    ), // Its own keys.
    takenOver: count(({ wasTakenOver }) => wasTakenOver),
    orphans: rows.reduce((sum, row) => sum + row.orphans, 0),
    doubledEffects: rows.reduce((sum, row) => sum + row.doubledEffects, 0),
    takeover: {
      leaseMs: 700,
      medianMs: Math.round(takeovers[Math.floor(takeovers.length / 2)] ?? 0),
      maxMs: Math.round(takeovers.at(-1) ?? 0),
    },
    seconds,
  };
}

function show(rows: readonly Row[], summary: ReturnType<typeof summarise>): void {
  say(`\n${"harm".padEnd(8)}${"trials".padStart(8)}${"differed".padStart(10)}  what it is`);
  for (const [how, { trials, wrong }] of Object.entries(summary.byHarm))
    say(`${how.padEnd(8)}${String(trials).padStart(8)}${String(wrong).padStart(10)}  ${harms[how as How]}`); // Made of its keys.
  say(
    "compared in each: the job's state, the item's states, power and freeze of the source, both sides at once, landed machines, exports,",
  );
  say(
    "orders carried out, and what the collector finds left over. After a failed step: undone, thawed, exactly one side, nothing left over.",
  );
  for (const row of rows.filter(({ isRight }) => !isRight))
    say(`${row.how} ${row.kind}, ${row.case}, ${row.moment}: ${JSON.stringify(row.wrong)}`);
  say(JSON.stringify(summary));
}

const startedMs = systemClock.monotonicMs();
await using cluster = await startTestCluster();
const turn = new Semaphore(Math.max(2, availableParallelism()));
const rows: Row[] = [];
// Few at once, so that trials of one case, which differ only in the moment, share what its unharmed trial told.
const casesAtOnce = new Semaphore(2);
const parallel = cases.map(
  async (kase, number) =>
    await casesAtOnce.run(async () => [...(await strikeCase(cluster, kase, turn, number)), ...(await failCase(cluster, kase, turn))]),
);
for (const found of await Promise.all(parallel)) rows.push(...found);
rows.push(...(await strikeServers()));
const summary = summarise(rows, secondsSince(startedMs));
show(rows, summary);
const outside = isOutsideChosen ? await proveOutsideServer({ rounds: isQuick ? 2 : 6, say }) : [];
for (const { mode, awayMs, acknowledged, refused, lost, otherAnswers, backMs } of outside)
  say(
    `a server of the site stopped (${mode}) for ${awayMs} ms: ${acknowledged} writes acknowledged, ${lost} lost, ${refused} refused with 503, ${otherAnswers} answered otherwise; writes go on ${backMs} ms after its start`,
  );
const isOutsideWrong = outside.some(({ lost, otherAnswers, isAuditWhole }) => lost > 0 || otherAnswers > 0 || !isAuditWhole);
if (values.json === true) process.stdout.write(`${JSON.stringify({ summary, rows, outside })}\n`);
if (isOutsideWrong) process.exitCode = 1;
if ((rows.length === 0 && outside.length === 0) || summary.wrong > 0 || summary.orphans > 0 || summary.doubledEffects > 0)
  process.exitCode = 1;
