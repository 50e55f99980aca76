// `watari machine migrate`, `commit`, `rollback` and `complete`: the cut-over, with its predicted downtime before and beside it.

import { confirm, isCancel } from "@clack/prompts";
import type { Command } from "commander";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import { askPrediction, comparisonShape, comparisonText, predictionText } from "./downtime.ts";
import type { Job } from "./job.ts";
import { act, findProtected, withLaunchOptions, wishOf, type LaunchOptions, type VaultOptions, type Verb } from "./machine-act.ts";
import { say } from "./output.ts";
import { openSession } from "./session.ts";

interface MigrateOptions extends LaunchOptions {
  readonly commit: keyof typeof commitModes;
  readonly commitMinutes?: number;
  readonly fenceByHand?: boolean;
  readonly yes?: boolean;
}

const commitModes = { "by-hand": "byHand", now: "now", "after-probes": "afterProbes" } as const;

export function registerMachineMigrate(verb: Verb): void {
  registerCutOver(
    verb("migrate <name>", "cut over: last delta, equal roots, source off, target on, probe; then `commit` or `rollback`"),
    "unplannedFailover",
  );
  registerCutOver(
    verb("promote <name>", "cut over a machine whose test stands: what was tested lands, with the final disks; the test machine goes last"),
    "promote",
  );
  registerEnds(verb);
}

function registerCutOver(command: Command, action: "unplannedFailover" | "promote"): void {
  const migrate = withLaunchOptions(command);
  migrate
    .requiredOption("--network <name>", "network of the landing zone that the machine joins")
    .addOption(
      migrate
        .createOption(
          "--commit <how>",
          "by-hand: by `commit`; now: as soon as it stands by itself; after-probes: when all that must pass has passed",
        )
        .choices(Object.keys(commitModes))
        .default("by-hand"),
    )
    .option("--commit-minutes <minutes>", "with by-hand: rolled back by itself when nobody has committed by then", Number)
    .option("--fence-by-hand", "a person switches the source off and says so: the job waits for it (`job resume`)")
    .option("--yes", "do not ask at a terminal")
    .action(async (name: string, options: MigrateOptions) => {
      if (!(await isConfirmed(name, options))) throw new Fault("JobCancelled", "stopped by you; nothing was changed");
      await act(name, options, {
        action,
        properties: {
          failoverDirection: "PrimaryToRecovery",
          sourceSiteOperations: "Required",
          providerSpecificDetails: {
            instanceType: "InMageAzureV2",
            network: options.network,
            ...(await wishOf(options)),
            commit: {
              mode: commitModes[options.commit],
              ...(options.commitMinutes === undefined ? {} : { minutesMax: options.commitMinutes }),
            },
            ...(options.fenceByHand === true ? { fence: "byHand" } : {}),
          },
        },
        moreText: comparisonOf,
      });
    });
}

function registerEnds(verb: Verb): void {
  verb("commit <name>", "keep the landed machine: there is no automatic way back after this").action(
    async (name: string, options: VaultOptions) => await act(name, options, { action: "failoverCommit" }),
  );
  verb(
    "rollback <name>",
    "before the commit: remove the landed machine, with what was written there, and switch the source on again",
  ).action(async (name: string, options: VaultOptions) => await act(name, options, { action: "failoverCancel" }));
  verb("complete <name>", "stop replication, remove the agent, give back what the vault holds of the machine").action(
    async (name: string, options: VaultOptions) => {
      const replicationProviderInput = { instanceType: "InMageAzureV2" };
      await act(name, options, {
        action: "remove",
        properties: { disableProtectionReason: "MigrationComplete", replicationProviderInput },
      });
    },
  );
}

/** The prediction is shown to everybody; only a person at a terminal is asked. */
async function isConfirmed(name: string, options: MigrateOptions): Promise<boolean> {
  await using session = await openSession(options);
  const item = await findProtected(session.arm, options.vault, name);
  for (const line of predictionText(await askPrediction(session.arm, item.id))) say(line);
  if (options.yes === true || options.json === true || !process.stdin.isTTY || !process.stderr.isTTY) return true;
  const answer = await confirm({
    output: process.stderr,
    message: `Cut over now? ${name} will be switched off and goes on at the target.`,
    initialValue: false,
  });
  return !isCancel(answer) && answer;
}

const evidenceShape = z.looseObject({
  watari: z.looseObject({ evidence: z.looseObject({ downtime: comparisonShape.optional() }) }).optional(),
});

function comparisonOf({ properties }: Job): string {
  const downtime = evidenceShape.safeParse(properties).data?.watari?.evidence.downtime;
  return downtime === undefined ? "" : comparisonText(downtime);
}
