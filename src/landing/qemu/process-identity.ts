// Tells whether a process from a pid file is still the one that was started, across restarts of this program.

import { readFile } from "node:fs/promises";
import type { Clock } from "../../base/clock.ts";

/** The pid in `pidFile` when that process lives and its command line holds `mark`; a reused pid does not. */
export async function findProcess(pidFile: string, mark: string): Promise<number | undefined> {
  const pid = Number((await readOrUndefined(pidFile))?.trim());
  if (!Number.isSafeInteger(pid) || pid <= 1) return undefined;
  const commandLine = await readOrUndefined(`/proc/${pid}/cmdline`);
  if (commandLine?.includes(mark) !== true) return undefined;
  const state = /\) (\S)/.exec((await readOrUndefined(`/proc/${pid}/stat`)) ?? "")?.[1];
  return state === undefined || state === "Z" || state === "X" ? undefined : pid;
}

const killPollMs = 10;

/** Kills it and returns when it is gone. */
export async function killProcess(pidFile: string, mark: string, clock: Clock): Promise<void> {
  for (let pid = await findProcess(pidFile, mark); pid !== undefined; pid = await findProcess(pidFile, mark)) {
    signalProcess(pid);
    await clock.sleep(killPollMs);
  }
}

function signalProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error; // It ended by itself just now.
  }
}

async function readOrUndefined(path: string): Promise<string | undefined> {
  return await readFile(path, "utf8").catch(() => undefined); // Gone is an answer here.
}
