// The demo: one whole migration in the lab, given as commands on the operator's desk, watched from outside, and reported.

import type { UpgradeTarget } from "../../src/contract/os-upgrade.ts";
import { Fault } from "../../src/contract/errors.ts";
import type { ForbiddenPackets } from "../firewall.ts";
import { type LabFacts, labDown, labStatus, labUp, leftovers } from "../lab.ts";
import { writeLastWords } from "./last-words.ts";
import { Migration } from "./migration.ts";
import { type DemoReport, toReport } from "./report.ts";
import { endStage, makeStage, removeStage, type Stage, stageOf } from "./stage.ts";
import { StepRunner } from "./steps.ts";

export interface DemoOptions {
  readonly prefix: string;
  readonly write: (text: string) => void;
  /** Leaves the lab, the hub, the appliance and the landed machine running. */
  readonly keep: boolean;
  /** Also tests the migration with an upgrade of the operating system to this release. */
  readonly upgrade?: UpgradeTarget;
}

export interface DemoOutcome {
  readonly report: DemoReport;
  readonly stage: Stage;
  readonly facts: LabFacts;
}

/** Runs the whole migration. Whatever an earlier demo left is removed first; on a failure everything is removed too, unless kept. */
export async function runDemo(options: DemoOptions): Promise<DemoOutcome> {
  const stage = stageOf(options.prefix);
  const runner = new StepRunner(options.write);
  let facts: LabFacts | undefined;
  await runner.run("remove what an earlier demo left", async () => await clear(stage));
  try {
    facts = await runner.run("build the closed network and start the source machine", async (tell) => {
      await makeStage(stage);
      return await labUp({ prefix: options.prefix, progress: tell });
    });
    const [source] = facts.machines;
    if (source === undefined) throw new Fault("Internal", "the lab came up without a source machine");
    const demo = new Migration(stage, facts, source, runner);
    await demo.prepare();
    await demo.replicate();
    await demo.test();
    if (options.upgrade !== undefined) await demo.testUpgrade(options.upgrade);
    await demo.migrate();
    const measured = await demo.complete({ keep: options.keep });
    const { forbidden } = await labStatus({ prefix: options.prefix });
    const left = options.keep ? [] : await runner.run("take everything down", async () => await clear(stage));
    const report = toReport({
      ...measured,
      seconds: runner.seconds,
      steps: runner.steps,
      forbiddenPackets: forbidden?.total ?? -1,
      forbiddenFlows: describeForbidden(forbidden),
      leftovers: [...measured.leftovers, ...left],
    });
    return { report, stage, facts };
  } catch (error) {
    await writeLastWords(stage, facts, options.write).catch(() => undefined); // The first failure is the one to tell.
    if (!options.keep) await clear(stage).catch(() => undefined);
    throw error;
  }
}

/** Ends and removes everything of a demo, also of one that was killed. Answers what could not be removed. */
export async function clear(stage: Stage): Promise<readonly string[]> {
  await endStage(stage);
  await labDown({ prefix: stage.place.prefix });
  await removeStage(stage);
  return await leftovers({ prefix: stage.place.prefix });
}

function describeForbidden(forbidden: ForbiddenPackets | undefined): readonly string[] {
  if (forbidden === undefined || forbidden.total === 0) return [];
  const rules = Object.entries(forbidden.byRule).flatMap(([rule, packets]) => (packets > 0 ? [`${rule}: ${packets}`] : []));
  return [
    ...rules,
    ...forbidden.flows.map(({ zone, from, to, protocol, port, packets }) => `${zone}: ${from} to ${to} ${protocol} ${port}: ${packets}`),
  ];
}
