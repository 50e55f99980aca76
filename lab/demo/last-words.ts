// What everybody said last, for a demo that failed or got stuck: the jobs, the agent, and the ends of the programs' logs. Read before all is removed.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { tryCommand } from "../../src/base/run-command.ts";
import type { LabFacts } from "../lab.ts";
import { namespaceOf } from "../place.ts";
import { runOnDesk, type Stage } from "./stage.ts";

const linesMax = 40;
const lineCharactersMax = 600;
const askMsMax = 30_000;
const programs = ["hub", "appliance", "vcenter"];

export async function writeLastWords(stage: Stage, facts: LabFacts | undefined, write: (text: string) => void): Promise<void> {
  for (const name of programs) {
    const log = await readFile(join(stage.place.stateFolder, `${name}.log`), "utf8").catch(() => ""); // It was not started yet.
    if (log !== "") write(`\n── ${name}, last lines of its log\n${lastLines(log)}`);
  }
  const jobs = await runOnDesk(stage, ["job", "list", "--vault", "vault1"], askMsMax);
  write(`\n── jobs\n${lastLines(jobs.exitCode === 0 ? describeJobs(jobs.stdout) : jobs.stderr)}`);
  const [source] = facts?.machines ?? [];
  if (facts === undefined || source === undefined) return;
  const ssh = ["ssh", "-i", facts.guest.rootKeyFile, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
  ssh.push(
    "-o",
    "LogLevel=ERROR",
    "-o",
    "ConnectTimeout=10",
    `root@${source.address}`,
    "journalctl -u watari-agent -n 40 --no-pager -o cat",
  );
  const agent = await tryCommand("ip", ["netns", "exec", namespaceOf(stage.place, "onprem"), ...ssh], { timeoutMs: askMsMax });
  write(`\n── the source's agent${agent.exitCode === 0 ? `\n${lastLines(agent.stdout)}` : ` cannot be asked: ${lastLines(agent.stderr)}`}`);
}

function lastLines(text: string): string {
  const lines = text.trimEnd().split("\n").slice(-linesMax);
  return `${lines.map((line) => (line.length > lineCharactersMax ? `${line.slice(0, lineCharactersMax)}…` : line)).join("\n")}\n`;
}

const jobsShape = z.array(
  z.looseObject({
    properties: z.looseObject({
      friendlyName: z.string().optional(),
      state: z.string(),
      tasks: z.array(z.looseObject({ name: z.string(), state: z.string(), startTime: z.string().optional() })).default([]),
      watari: z.looseObject({ percent: z.number(), text: z.string() }).optional(),
    }),
  }),
);

/** Each job with its state, and of one that has not succeeded also its steps. */
function describeJobs(text: string): string {
  const jobs = jobsShape.safeParse(JSON.parse(text));
  if (!jobs.success) return text;
  return jobs.data
    .map(({ properties: { friendlyName, state, tasks, watari } }) => {
      const head = `${friendlyName ?? "job"}: ${state} ${watari?.percent ?? "?"} % ${watari?.text ?? ""}`;
      const steps = tasks.map((task) => `   ${task.name}: ${task.state}${task.startTime === undefined ? "" : ` since ${task.startTime}`}`);
      return [head, ...(state === "Succeeded" ? [] : steps)].join("\n");
    })
    .join("\n");
}
