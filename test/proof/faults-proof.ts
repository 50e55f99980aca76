// Harms the line, the storage, the spool and the appliance while machines replicate, and shows what became of every point.
// Run: npm run proof -- faults [--quick] [--json]

import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { formatTable, say } from "../../src/cli/output.ts";
import { systemClock } from "../../src/base/clock.ts";
import type { PointId } from "../../src/contract/ids.ts";
import { judge, until } from "./faults/judge.ts";
import { agentHaste, ProofMachine } from "./faults/machine.ts";
import { ProofSite, type ProofAppliance } from "./faults/site.ts";
import { mountSmallVolume, type SmallVolume } from "./small-volume.ts";

const { values } = parseArgs({ options: { quick: { type: "boolean" }, json: { type: "boolean" } } });
const isQuick = values.quick === true;

interface Stage {
  readonly site: ProofSite;
  readonly one: ProofAppliance;
  readonly two: ProofAppliance;
  readonly machines: readonly ProofMachine[];
  readonly volume: SmallVolume | undefined;
  /** Which appliance serves each machine, by its place. */
  readonly served: ProofAppliance[];
}

interface Harm {
  readonly name: string;
  readonly what: string;
  /** Answers what was seen on the way; resolves when the harm is over. */
  readonly strike: (stage: Stage) => Promise<readonly string[] | "skipped">;
}

interface Row {
  readonly harm: string;
  readonly what: string;
  readonly isSkipped: boolean;
  readonly lagSecondsMax: number;
  readonly lagSecondsAfter: number;
  readonly catchUpSeconds: number;
  readonly sealedPoints: number;
  readonly comparedPoints: number;
  readonly comparedBytes: number;
  readonly wrong: readonly string[];
}

/** An hour of the agents; two minutes of it for a quick look. */
const cutMs = (isQuick ? 120_000 : 3_600_000) / agentHaste;
const outageMs = isQuick ? 15_000 : 90_000;
const kills = isQuick ? 4 : 20;
const moves = isQuick ? 2 : 6;

const harms: readonly Harm[] = [
  { name: "none", what: "nothing is harmed", strike: async () => await wait(3000) },
  {
    name: "line cut",
    what: `agents cannot reach their appliance for ${(cutMs * agentHaste) / 60_000} minutes of their time`,
    strike: async ({ one }) => {
      one.pull(true);
      await systemClock.sleep(cutMs);
      one.pull(false);
      return [];
    },
  },
  {
    name: "line flaps",
    what: "the cable is pulled for a moment, again and again",
    strike: async ({ one }) => {
      for (let count = 0; count < (isQuick ? 6 : 40); count++) {
        one.pull(true);
        await systemClock.sleep(randomInt(20, 200));
        one.pull(false);
        await systemClock.sleep(randomInt(100, 1500));
      }
      return [];
    },
  },
  {
    name: "storage 503",
    what: `every call is answered 503 for ${outageMs / 1000} s`,
    strike: async (stage) => await during(stage, { kind: "unavailable" }),
  },
  {
    name: "storage slow",
    what: `each call waits 700 ms, bodies pass at 500 kB/s, for ${outageMs / 1000} s`,
    strike: async (stage) => await during(stage, { kind: "slow", waitMs: 700, bytesPerSecond: 500_000 }),
  },
  {
    name: "storage hangs up",
    what: `4 of 10 calls end without an answer, some after their work was done, for ${outageMs / 1000} s`,
    strike: async (stage) => await during(stage, { kind: "hangingUp", shareOfTen: 4 }),
  },
  { name: "spool full", what: `the spool's disk is full for ${outageMs / 1000} s`, strike: fillSpool },
  {
    name: "kill -9",
    what: `the appliance is killed ${kills} times at random moments`,
    strike: async (stage) => await killOften(stage, "well"),
  },
  {
    name: "kill -9, ill storage",
    what: `the same while 3 of 10 storage calls hang up`,
    strike: async (stage) => await killOften(stage, "hangingUp"),
  },
  { name: "moved", what: `a machine goes from one process server to the other and back, ${moves} moves`, strike: moveOften },
];

async function wait(ms: number): Promise<readonly string[]> {
  await systemClock.sleep(ms);
  return [];
}

async function during({ site }: Stage, mood: ProofSite["front"]["mood"]): Promise<readonly string[]> {
  const before = site.front.spoiledCount;
  site.front.mood = mood;
  await systemClock.sleep(outageMs);
  site.front.mood = { kind: "well" };
  return site.front.spoiledCount > before ? [] : ["the storage account was not called while it was ill: nothing was proved"];
}

async function fillSpool({ volume, one }: Stage): Promise<readonly string[] | "skipped"> {
  if (volume === undefined) return "skipped";
  await volume.fill();
  const isTold = await until(async () => (await one.status()).healthErrors.some(({ id }) => id === "SpoolFull"), outageMs);
  await systemClock.sleep(outageMs / 3);
  await volume.free();
  return isTold ? [] : ["the appliance did not say that its spool is full"];
}

async function killOften({ site, one }: Stage, storage: "well" | "hangingUp"): Promise<readonly string[]> {
  if (storage === "hangingUp") site.front.mood = { kind: "hangingUp", shareOfTen: 3 };
  for (let count = 0; count < kills; count++) {
    await systemClock.sleep(randomInt(200, 3500));
    await one.kill();
    await one.run();
  }
  site.front.mood = { kind: "well" };
  return [];
}

async function moveOften({ one, two, machines, served }: Stage): Promise<readonly string[]> {
  const [machine] = machines;
  if (machine === undefined) return ["there is no machine to move"];
  for (let count = 0; count < moves; count++) {
    const [from, to] = served[0] === one ? [one, two] : [two, one];
    await to.adopt(machine, from);
    served[0] = to;
    await systemClock.sleep(2500);
  }
  return [];
}

/** The longest lag that an appliance shows until the signal; an appliance that is just killed shows nothing. */
async function watchLag({ machines, served }: Stage, signal: AbortSignal): Promise<number> {
  let most = 0;
  while (!signal.aborted) {
    for (const [index, machine] of machines.entries()) {
      const flow = await served[index]?.flowOf(machine).catch(() => undefined); // Killed at the moment.
      most = Math.max(most, flow?.lagSeconds ?? 0);
    }
    await systemClock.sleep(300, signal).catch(() => undefined); // The loop's head sees the abort.
  }
  return most;
}

async function strikeOnce(stage: Stage, harm: Harm, known: Set<PointId>): Promise<Row> {
  const over = new AbortController();
  const watching = watchLag(stage, over.signal);
  const seen = await harm.strike(stage).finally(() => over.abort());
  const lagSecondsMax = await watching;
  const served = stage.machines.flatMap((machine, index) => {
    const appliance = stage.served[index];
    return appliance === undefined ? [] : [{ machine, appliance }];
  });
  const { wrong, ...figures } = await judge(stage.site, served, known);
  const lags = await Promise.all(served.map(async ({ machine, appliance }) => (await appliance.flowOf(machine))?.lagSeconds ?? Infinity));
  const isSkipped = seen === "skipped";
  return {
    ...{ harm: harm.name, what: harm.what, isSkipped, lagSecondsMax, lagSecondsAfter: Math.max(...lags), ...figures },
    wrong: [...(isSkipped ? [] : seen), ...wrong],
  };
}

async function openStage(stack: AsyncDisposableStack): Promise<Stage> {
  const site = stack.use(await ProofSite.open());
  const volume = await mountSmallVolume();
  if (volume !== undefined) stack.use(volume);
  const one = await site.startAppliance("one", volume?.folder);
  const two = await site.startAppliance("two");
  const machines = [stack.use(await ProofMachine.open("ledger", site.folder)), stack.use(await ProofMachine.open("archive", site.folder))];
  for (const machine of machines) await one.adopt(machine);
  return { site, one, two, machines, volume, served: machines.map(() => one) };
}

function show(rows: readonly Row[], verified: Verified, seconds: number): void {
  const head = ["harm", "points sealed", "points compared", "bytes compared", "wrong", "lag at most", "lag after", "caught up in"];
  const cells = rows.map((row) => [
    row.harm,
    row.isSkipped ? "skipped: no mount allowed here" : String(row.sealedPoints),
    String(row.comparedPoints),
    String(row.comparedBytes),
    String(row.wrong.length),
    `${row.lagSecondsMax.toFixed(1)} s`,
    `${row.lagSecondsAfter.toFixed(1)} s`,
    `${row.catchUpSeconds.toFixed(1)} s`,
  ]);
  say(formatTable(head, cells));
  for (const row of rows) say(`${row.harm}: ${row.what}`);
  say(
    "Compared: every byte of points with the machine at the instants at which it was frozen; the newest point with the disk as it is; the hub's " +
      "points with the vault's; at the end everything that any point relies on, by its digests.",
  );
  say(`Verified at the end: ${verified.pointCount} points, ${verified.readBlocks} blocks read, ${verified.damagedCount} damaged ranges.`);
  for (const row of rows) for (const each of row.wrong) say(`WRONG ${row.harm}: ${each}`);
  say(`${rows.reduce((sum, row) => sum + row.wrong.length, 0)} wrong, in ${Math.round(seconds)} s`);
}

type Verified = Awaited<ReturnType<ProofAppliance["verify"]>>;

const startedMs = systemClock.monotonicMs();
const rows: Row[] = [];
let verified: Verified = { pointCount: 0, readBlocks: 0, damaged: [], damagedCount: 0 };
{
  await using stack = new AsyncDisposableStack();
  const stage = await openStage(stack);
  const known = new Set<PointId>();
  for (const harm of harms) {
    say(`${harm.name}: ${harm.what}`);
    rows.push(await strikeOnce(stage, harm, known));
  }
  for (const machine of stage.machines) await machine.rest();
  verified = await stage.one.verify();
}
const seconds = (systemClock.monotonicMs() - startedMs) / 1000;
show(rows, verified, seconds);
const summary = {
  harms: rows.length,
  skipped: rows.filter((row) => row.isSkipped).length,
  sealedPoints: rows.reduce((sum, row) => sum + row.sealedPoints, 0),
  comparedPoints: rows.reduce((sum, row) => sum + row.comparedPoints, 0),
  comparedBytes: rows.reduce((sum, row) => sum + row.comparedBytes, 0),
  verifiedPoints: verified.pointCount,
  wrong: rows.reduce((sum, row) => sum + row.wrong.length, 0) + verified.damagedCount,
  seconds: Math.round(seconds),
};
if (values.json === true) process.stdout.write(`${JSON.stringify({ summary, rows })}\n`);
if (summary.wrong > 0 || summary.comparedPoints === 0 || summary.verifiedPoints === 0) process.exitCode = 1;
