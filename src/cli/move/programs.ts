// The programs of a move: hub and appliance as processes that outlive this one, and calls of the same executable.

import { spawn } from "node:child_process";
import { open, readdir, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { systemClock } from "../../base/clock.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault, fromReport } from "../../contract/errors.ts";
import { faultReportShape } from "../../contract/shapes.ts";
import { z } from "zod";
import type { Site } from "./site.ts";

const executable = [process.execPath, "--disable-warning=ExperimentalWarning", fileURLToPath(new URL("../../main.ts", import.meta.url))];
const callMsMax = 3600_000;
const startMsMax = 120_000;
const endMsMax = 60_000;
const killAfterMs = 30_000;
const lookAgainMs = 100;
const logTailBytes = 2000;

/** Runs `watari …args --json` and answers what it prints. A fault of the command is thrown as it was told. */
export async function callWatari(site: Site, args: readonly string[], stdin?: string): Promise<unknown> {
  const [program = "", ...own] = executable;
  const result = await tryCommand(program, [...own, ...args, "--json"], {
    env: { ...process.env, WATARI_PROFILE: site.profile },
    timeoutMs: callMsMax,
    ...(stdin === undefined ? {} : { stdin }),
  });
  const answer = parseAnswer(result.stdout);
  if (result.exitCode === 0) return answer;
  const told = z.object({ error: faultReportShape }).safeParse(answer);
  if (told.success) throw fromReport(told.data.error);
  throw new Fault("Internal", `"watari ${args.slice(0, 2).join(" ")}" ended with ${result.exitCode}`, {
    evidence: { lastLines: result.stderr.trim().split("\n").slice(-8) },
  });
}

/** As callWatari, for a verb of this move's appliance. */
export async function callAppliance(site: Site, args: readonly string[], stdin?: string): Promise<unknown> {
  return await callWatari(site, ["appliance", ...args, "--state", site.applianceState], stdin);
}

function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The exit code and stderr tell.
  }
}

export interface Program {
  readonly name: "hub" | "appliance";
  /** Arguments that start it. They name a path in the site's folder, by which the process is known again. */
  readonly args: readonly string[];
  readonly isReady: () => Promise<boolean>;
}

/** Starts the program, unless it runs; ready on return. */
export async function startProgram(site: Site, program: Program, signal?: AbortSignal): Promise<void> {
  const { name, args, isReady } = program;
  let pid = await findProgram(site, name);
  const logFile = join(site.folder, `${name}.log`);
  if (pid === undefined) {
    const [command = "", ...own] = executable;
    const outputFile = join(site.folder, `${name}.out`);
    await using output = await open(outputFile, "w", 0o600);
    const child = spawn(command, [...own, ...args, "--log-file", logFile], {
      detached: true,
      stdio: ["ignore", output.fd, output.fd],
      cwd: "/",
    });
    pid = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("spawn", () => (child.pid === undefined ? reject(new Error(`the ${name} has no process id`)) : resolve(child.pid)));
    });
    child.unref();
    await writeFileAtomic(join(site.folder, `${name}.pid`), `${pid}\n`);
  }
  const endsAtMs = systemClock.monotonicMs() + startMsMax;
  while (!(await isReady())) {
    const isOver = !isAlive(pid);
    if (isOver || systemClock.monotonicMs() > endsAtMs) throw await notStarted(site, name, isOver);
    await systemClock.sleep(lookAgainMs, signal);
  }
}

async function notStarted(site: Site, name: string, isOver: boolean): Promise<Fault> {
  const output = await readFile(join(site.folder, `${name}.out`), "utf8").catch(() => ""); // Nothing was said.
  const logFile = join(site.folder, `${name}.log`);
  return new Fault("Internal", isOver ? `the ${name} ended at its start` : `the ${name} was not ready in time`, {
    evidence: { said: output.trim().slice(-logTailBytes), log: logFile },
    action: `read ${logFile}, then call again`,
  });
}

/** Ends the program and waits until it is gone. */
export async function stopProgram(site: Site, name: Program["name"]): Promise<void> {
  const pid = await findProgram(site, name);
  if (pid !== undefined) await endProcesses([pid]);
  await rm(join(site.folder, `${name}.pid`), { force: true });
}

/** The process of the pid file, when it still runs and names the site's folder. */
export async function findProgram(site: Site, name: Program["name"]): Promise<number | undefined> {
  const pid = Number(await readFile(join(site.folder, `${name}.pid`), "utf8").catch(() => "")); // No file: not started.
  if (!(pid > 1) || !isAlive(pid)) return undefined;
  return (await commandLineOf(pid)).includes(`${site.folder}/`) ? pid : undefined;
}

/** Everything that runs with a path of the site on its command line, apart from this program: database, emulators, networks. */
export async function findProcesses(site: Site): Promise<readonly number[]> {
  const found: number[] = [];
  for (const name of await readdir("/proc")) {
    const pid = Number(name);
    if (!(pid > 1) || pid === process.pid) continue;
    if ((await commandLineOf(pid)).includes(`${site.folder}/`)) found.push(pid);
  }
  return found;
}

/** Asks processes to end, kills what is left, and returns when all are gone. */
export async function endProcesses(pids: readonly number[]): Promise<void> {
  for (const pid of pids) tell(pid, "SIGTERM");
  const startMs = systemClock.monotonicMs();
  for (;;) {
    const left = pids.filter(isAlive);
    if (left.length === 0) return;
    const waitedMs = systemClock.monotonicMs() - startMs;
    if (waitedMs > endMsMax) throw new Fault("Internal", "could not end processes", { evidence: { processes: left.map(String) } });
    if (waitedMs > killAfterMs) for (const pid of left) tell(pid, "SIGKILL");
    await systemClock.sleep(lookAgainMs);
  }
}

/** Whether something accepts connections on a unix socket. */
export async function isListening(socketPath: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(socketPath);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

async function commandLineOf(pid: number): Promise<string> {
  return (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).replaceAll("\0", " "); // It ended while we looked.
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false; // No such process.
  }
}

function tell(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has gone already.
  }
}
