// `watari job`: the hub's durable jobs, their steps and errors, and how to cancel one.

import type { Command } from "commander";
import { z } from "zod";
import type { ArmClient } from "./arm-client.ts";
import { formatTable, printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";
import { vaultPath } from "./vault.ts";

const taskShape = z.looseObject({
  taskId: z.string().optional(),
  name: z.string(),
  friendlyName: z.string().optional(),
  state: z.string(),
  startTime: z.string().optional(),
  endTime: z.string().optional(),
});

const jobErrorShape = z.looseObject({
  serviceErrorDetails: z
    .looseObject({
      code: z.string().optional(),
      message: z.string().optional(),
      possibleCauses: z.string().optional(),
      recommendedAction: z.string().optional(),
    })
    .optional(),
});

export const jobShape = z.looseObject({
  id: z.string(),
  name: z.string(),
  properties: z.looseObject({
    scenarioName: z.string().optional(),
    friendlyName: z.string().optional(),
    state: z.string(),
    stateDescription: z.string().optional(),
    targetObjectName: z.string().optional(),
    startTime: z.string().optional(),
    endTime: z.string().optional(),
    tasks: z.array(taskShape).default([]),
    errors: z.array(jobErrorShape).default([]),
  }),
});
export type Job = z.infer<typeof jobShape>;

interface VaultOptions {
  readonly vault: string;
  readonly json?: boolean;
  readonly profile?: string;
}

export function registerJobCommand(program: Command): void {
  const noun = program.command("job").description("durable jobs of a vault");
  withHubOptions(noun.command("list"))
    .description("jobs, newest first")
    .requiredOption("--vault <name>", "vault of the jobs")
    .action(async (options: VaultOptions) => {
      await using session = await openSession(options);
      const jobs = await listJobs(session.arm, options.vault);
      printAnswer(session.style, jobs, () => formatTable(["JOB", "WHAT", "MACHINE", "STATE", "STARTED"], jobs.map(jobRow)));
    });
  withHubOptions(noun.command("show").argument("<job>"))
    .description("one job with its steps and errors")
    .requiredOption("--vault <name>", "vault of the job")
    .action(async (name: string, options: VaultOptions) => {
      await using session = await openSession(options);
      const job = jobShape.parse(await session.arm.get(`${jobsPath(session.arm, options.vault)}/${name}`));
      printAnswer(session.style, job, () => describeJob(job));
    });
  withHubOptions(noun.command("resume").argument("<job>"))
    .description("let a job go on that waits for a person")
    .requiredOption("--vault <name>", "vault of the job")
    .option("--comment <text>", "what was done or seen; some jobs ask for exact words", "")
    .action(async (name: string, options: VaultOptions & { readonly comment: string }) => {
      await using session = await openSession(options);
      const properties = { comments: options.comment };
      await session.arm.change("POST", `${jobsPath(session.arm, options.vault)}/${name}/resume`, { properties });
      printAnswer(session.style, { resumed: name }, () => `job ${name} goes on`);
    });
  withHubOptions(noun.command("cancel").argument("<job>"))
    .description("ask a job to stop at its next safe place and undo what it did")
    .requiredOption("--vault <name>", "vault of the job")
    .action(async (name: string, options: VaultOptions) => {
      await using session = await openSession(options);
      await session.arm.change("POST", `${jobsPath(session.arm, options.vault)}/${name}/cancel`, {});
      printAnswer(session.style, { cancelled: name }, () => `job ${name}: cancel asked for`);
    });
}

export async function listJobs(arm: ArmClient, vault: string): Promise<readonly Job[]> {
  return z.array(jobShape).parse(await arm.list(jobsPath(arm, vault)));
}

function jobsPath(arm: ArmClient, vault: string): string {
  return `${vaultPath(arm.groupPath, vault)}/replicationJobs`;
}

function jobRow({ name, properties }: Job): readonly string[] {
  return [
    name,
    properties.scenarioName ?? properties.friendlyName ?? "",
    properties.targetObjectName ?? "",
    properties.state,
    properties.startTime ?? "",
  ];
}

function describeJob(job: Job): string {
  const lines = [jobRow(job).join("  ")];
  for (const task of job.properties.tasks) lines.push(`  ${task.state.padEnd(12)} ${task.friendlyName ?? task.name}`);
  for (const { serviceErrorDetails } of job.properties.errors) {
    if (serviceErrorDetails === undefined) continue;
    const { code, message, possibleCauses, recommendedAction } = serviceErrorDetails;
    lines.push(`  error ${code ?? ""}: ${message ?? ""}`, `    causes: ${possibleCauses ?? ""}`, `    action: ${recommendedAction ?? ""}`);
  }
  return lines.join("\n");
}
