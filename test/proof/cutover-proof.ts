// Ends each process at each step of a cut-over, and says of each trial whether it was resumed or rolled back, and that nothing ran twice or was lost.
// Run: npm run proof -- cutover [--quick] [--json] [--process hub,machine,…]

import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { systemClock } from "../../src/base/clock.ts";
import { Semaphore } from "../../src/base/semaphore.ts";
import { enableBody, runKillTrial, type KillCase, type Strike, type TrialOutcome } from "../../src/hub/replication/kill-trial.ts";
import { startTestCluster, type TestCluster } from "../../src/hub/test-hub.ts";

const processNames = ["hub", "appliance", "agent", "machine"] as const;
type Process = (typeof processNames)[number];

const meanings: Readonly<Record<Process, string>> = {
  hub: "SIGKILL of the hub's process; another takes the job over",
  appliance: "the appliance's process ends in the midst of an order, telling nobody, and starts again (simulated)",
  agent: "the source's agent ends in the midst of an order; the appliance hears nothing of it (simulated)",
  machine: "the landed machine's process ends (simulated target)",
};
const strikes: Readonly<Record<Process, Strike["how"]>> = { hub: "kill", appliance: "appliance", agent: "agent", machine: "machine" };
/** Orders that an agent carries out. The source is switched off by its vCenter. */
const agentEdge = /^(?:before|after) (?:point|verify|quiesce)$/;

/** A cut-over that nobody has to commit, with something asked that must pass, so that it has every step. */
const cutOver: KillCase = {
  ...{ kind: "UnplannedFailover", name: "commits after probes", ends: "succeeded" },
  prepare: async (trial) => await trial.run("PUT", trial.item, enableBody(trial)),
  begin: async (trial) =>
    await trial.begin("POST", `${trial.item}/unplannedFailover`, {
      properties: {
        sourceSiteOperations: "Required",
        providerSpecificDetails: {
          ...{ instanceType: "InMageAzureV2", network: "prod", commit: { mode: "afterProbes" } },
          actions: [{ kind: "ssh" }, { kind: "serial", text: "login:", timeoutSeconds: 1 }],
        },
      },
    }),
};

interface Row {
  readonly process: Process;
  readonly step: string;
  readonly moment: string;
  readonly became: "resumed" | "rolled back" | "neither";
  readonly isRight: boolean;
  readonly wrong: readonly string[];
}

const { values } = parseArgs({ options: { quick: { type: "boolean" }, json: { type: "boolean" }, process: { type: "string" } } });
const isQuick = values.quick === true;
const chosen = processNames.filter((name) => values.process === undefined || values.process.split(",").includes(name));
const say = (line: string): void => void process.stderr.write(`${line}\n`);

interface Place {
  readonly at: number;
  readonly step: string;
  readonly moment: string;
}

/** Where each process is ended: at every moment of the hub's job or edge of an order; in a quick proof once a step, or once a kind of order. */
function placesOf(whole: TrialOutcome, process: Process): readonly Place[] {
  const names = process === "appliance" || process === "agent" ? whole.edges : whole.moments;
  const steps = stepsOf(names);
  const all = names.map((moment, index) => ({ at: index + 1, step: steps[index] ?? "", moment }));
  const fitting = all.filter(({ moment, at }) => {
    if (process === "agent") return agentEdge.test(moment);
    // Before it there is no machine.
    return process !== "machine" || at > names.indexOf("after launch");
  });
  if (!isQuick) return fitting;
  return fitting.filter(({ step, moment }, index) =>
    process === "hub" || process === "machine"
      ? moment === `${step} ran` || (moment.endsWith(" ran") && fitting.findIndex((each) => each.step === step) === index)
      : fitting.findIndex((each) => each.moment === moment) === index,
  );
}

/** A moment belongs to the step that ends after it; an edge to its order. */
function stepsOf(names: readonly string[]): readonly string[] {
  const steps: string[] = [];
  let step = "end";
  for (const name of names.toReversed()) {
    step =
      /^(\w+) ran$/.exec(name)?.[1] ??
      (/^(?:before|after) (point|verify|quiesce|fence)$/.test(name) && !names.includes("prepare ran")
        ? (name.split(" ")[1] ?? step)
        : step);
    steps.unshift(step);
  }
  return steps;
}

async function strike(cluster: TestCluster, process: Process, { at, step, moment }: Place): Promise<Row> {
  const { end, isWhole, wasStruck } = await runKillTrial(cluster, cutOver, { how: strikes[process], at });
  const isMoved = end.landed.includes("web");
  const became =
    end.jobState === "succeeded" && isMoved ? "resumed" : end.jobState === "failed" && end.sourceIsOn ? "rolled back" : "neither";
  const wrong = [
    ...(wasStruck ? [] : ["nothing was ended"]),
    ...(became === "neither" ? [`the job is ${end.jobState}, ${JSON.stringify(end.item)}`] : []),
    ...(end.ranBoth ? ["both sides ran at once"] : []),
    ...(isWhole ? [] : ["writes were lost"]),
    ...(end.sourceIsOn === isMoved ? ["not exactly one side has the machine"] : []),
    ...(end.isFrozen && end.sourceIsOn ? ["the source is frozen"] : []),
    ...end.orphans.map((orphan) => `left over: ${orphan}`),
  ];
  return { process, step, moment, became, isRight: wrong.length === 0, wrong };
}

const startedMs = systemClock.monotonicMs();
await using cluster = await startTestCluster();
const whole = await runKillTrial(cluster, cutOver, { how: "none", at: 0 });
if (whole.end.jobState !== "succeeded" || !whole.isWhole) throw new Error(`the unharmed cut-over is ${JSON.stringify(whole.end)}`);
say(`a cut-over has ${whole.moments.length} moments and ${whole.edges.length} edges of orders`);
// A trial mostly waits: an order that was given to an appliance that ended is given again after half a minute.
const turn = new Semaphore(Math.max(2, availableParallelism()));
const wanted = chosen.flatMap((process) => placesOf(whole, process).map((place) => ({ process, place })));
const rows = await Promise.all(
  wanted.map(
    async ({ process, place }) =>
      await turn.run(async () => {
        const begunMs = systemClock.monotonicMs();
        const row = await strike(cluster, process, place);
        const seconds = ((systemClock.monotonicMs() - begunMs) / 1000).toFixed(1);
        say(
          `${row.process.padEnd(10)}${row.step.padEnd(10)}${row.moment.padEnd(24)}${row.became} after ${seconds} s${row.isRight ? "" : `  WRONG: ${row.wrong.join("; ")}`}`,
        );
        return row;
      }),
  ),
);

const count = (test: (row: Row) => boolean): number => rows.filter(test).length;
const summary = {
  ...{ trials: rows.length, wrong: count(({ isRight }) => !isRight), resumed: count(({ became }) => became === "resumed") },
  rolledBack: count(({ became }) => became === "rolled back"),
  byProcess: Object.fromEntries(
    chosen.map((process) => [
      process,
      {
        trials: count((row) => row.process === process),
        rolledBack: count((row) => row.process === process && row.became === "rolled back"),
      },
    ]),
  ),
  seconds: Math.round((systemClock.monotonicMs() - startedMs) / 1000),
};
say("");
for (const process of chosen) say(`${process.padEnd(10)}${meanings[process]}`);
say("in each: one side has the machine, the two never ran at once, all that the guest wrote is there, nothing is frozen or left over");
say(JSON.stringify(summary));
if (values.json === true) process.stdout.write(`${JSON.stringify({ summary, rows })}\n`);
if (rows.length === 0 || summary.wrong > 0) process.exitCode = 1;
