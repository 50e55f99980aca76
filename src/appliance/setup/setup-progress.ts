// How far the set-up has come: what each step's last try found, kept in the appliance's database, and which step is next.

import { z } from "zod";
import type { NetworkCheck } from "../../contract/network-check.ts";
import type { SetupStepResult, SetupStepStatus } from "../../contract/appliance-setup.ts";
import { setupSteps, type SetupStep } from "../../contract/setup-steps.ts";
import { networkCheckShape } from "../../contract/network-check.ts";
import type { SealedFacts } from "../state/facts.ts";

const progressShape = z.object({
  results: z.partialRecord(z.enum(setupSteps), z.object({ at: z.string(), checks: z.array(networkCheckShape) })),
  hasNoVcenter: z.boolean(),
  areCredentialsConfirmed: z.boolean(),
});
export type SetupProgress = z.output<typeof progressShape>;

/** What is so, whoever did it: the page, the command line, or an order of the hub. */
export interface SetupFacts {
  readonly progress: SetupProgress;
  readonly hasKey: boolean;
  readonly isRegistered: boolean;
  readonly vcenterCount: number;
}

export function readProgress(facts: SealedFacts): SetupProgress {
  const text = facts.read("setupProgress");
  if (text === undefined) return { results: {}, hasNoVcenter: false, areCredentialsConfirmed: false };
  return progressShape.parse(JSON.parse(text));
}

export function writeProgress(facts: SealedFacts, progress: SetupProgress): void {
  facts.write("setupProgress", JSON.stringify(progress));
}

export function noteResult(
  facts: SealedFacts,
  step: SetupStep,
  result: { readonly at: string; readonly checks: readonly NetworkCheck[] },
): void {
  const progress = readProgress(facts);
  writeProgress(facts, { ...progress, results: { ...progress.results, [step]: { at: result.at, checks: [...result.checks] } } });
}

/** The first step that is not settled is the current one; those after it wait for it, whatever they found before. */
export function statusesOf(known: SetupFacts): Readonly<Record<SetupStep, SetupStepStatus>> {
  const current = setupSteps.find((step) => !isSettled(step, known));
  const place = current === undefined ? setupSteps.length : setupSteps.indexOf(current);
  const status = (index: number): SetupStepStatus => (index < place ? "done" : index === place ? "current" : "later");
  return Object.fromEntries(setupSteps.map((step, index) => [step, status(index)])) as Record<SetupStep, SetupStepStatus>; // All steps.
}

function isSettled(step: SetupStep, { progress, hasKey, isRegistered, vcenterCount }: SetupFacts): boolean {
  switch (step) {
    case "network":
    case "proxy":
    case "time":
    case "check":
      return hasPassed(progress.results[step]);
    case "names":
      return hasKey && hasPassed(progress.results.names);
    case "registration":
      return isRegistered;
    case "vcenter":
      return vcenterCount > 0 || progress.hasNoVcenter;
    case "credentials":
      return progress.areCredentialsConfirmed;
  }
}

function hasPassed(result: SetupStepResult | undefined): boolean {
  return result !== undefined && result.checks.every(({ verdict }) => verdict !== "fail");
}
