// `watari policy`: how often a vault's machines get a recovery point.

import type { Command } from "commander";
import { z } from "zod";
import { formatTable, printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";
import { vaultPath } from "./vault.ts";

interface VaultOptions {
  readonly vault: string;
  readonly json?: boolean;
  readonly profile?: string;
}

interface PolicyOptions {
  readonly interval: number;
  readonly freezeMsMax: number;
  readonly appMinutes: number;
  readonly rehearseHours?: number;
}

const policyShape = z.looseObject({ name: z.string(), properties: z.looseObject({ friendlyName: z.string().optional() }) });

export function registerPolicyCommand(program: Command): void {
  const noun = program.command("policy").description("replication policies of a vault");
  withHubOptions(noun.command("create").argument("<name>"))
    .description("create or change a policy; machines that use it follow at once")
    .requiredOption("--vault <name>", "vault of the policy")
    .option("--interval <seconds>", "seconds between recovery points", Number, 300)
    .option("--freeze-ms-max <milliseconds>", "longest time that a machine's filesystems may stay frozen for a point", Number, 1000)
    .option("--app-minutes <minutes>", "minutes between points made with the guest's own scripts; 0 makes none", Number, 0)
    .option("--rehearse-hours <hours>", "hours between rehearsals of each machine; none by the clock unless told", Number)
    .action(async (name: string, options: VaultOptions & PolicyOptions) => {
      await using session = await openSession(options);
      const created = await session.arm.change("PUT", `${vaultPath(session.arm.groupPath, options.vault)}/replicationPolicies/${name}`, {
        properties: {
          providerSpecificInput: {
            instanceType: "InMageAzureV2",
            pointIntervalSeconds: options.interval,
            freezeMsMax: options.freezeMsMax,
            appConsistentFrequencyInMinutes: options.appMinutes,
            ...(options.rehearseHours === undefined ? {} : { rehearsalIntervalHours: options.rehearseHours }),
          },
        },
      });
      printAnswer(session.style, created, () => `policy ${name}: a recovery point every ${options.interval} s`);
    });
  withHubOptions(noun.command("list"))
    .description("policies")
    .requiredOption("--vault <name>", "vault of the policies")
    .action(async (options: VaultOptions) => {
      await using session = await openSession(options);
      const policies = z
        .array(policyShape)
        .parse(await session.arm.list(`${vaultPath(session.arm.groupPath, options.vault)}/replicationPolicies`));
      printAnswer(session.style, policies, () =>
        formatTable(
          ["NAME"],
          policies.map((policy) => [policy.name]),
        ),
      );
    });
}
