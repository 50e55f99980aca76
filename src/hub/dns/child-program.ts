// A child program with at most one life: a record of pid and start time lets the next hub end what a killed one left.

import { spawn, type ChildProcess } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { systemClock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";

export interface ChildProgram {
  /** Resolves when the program has ended, by itself or by stop(). */
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

const stopMsMax = 3_000;
const outputCharactersKept = 2000;

/** Ends the child of an earlier hub, if the record still names it; its start time proves that it is the same process. */
export async function endStaleChild(recordFile: string, log: Log): Promise<void> {
  const text = await readFile(recordFile, "utf8").catch(() => undefined); // No record: nothing was left.
  if (text === undefined) return;
  const [pidText = "", startTicks = ""] = text.trim().split(" ");
  const pid = Number(pidText);
  if (Number.isInteger(pid) && pid > 1 && startTicks !== "" && (await startTicksOf(pid)) === startTicks) {
    process.kill(pid, "SIGTERM");
    await waitGone(pid, startTicks);
    log.info("stale child ended", { childPid: pid, recordFile });
  }
  await rm(recordFile, { force: true });
}

/** Starts the program with its record written. Output goes to the log, a line each. */
export async function startChild(options: {
  readonly program: string;
  readonly args: readonly string[];
  readonly recordFile: string;
  readonly debianPackage: string;
  readonly log: Log;
}): Promise<ChildProgram> {
  const { program, args, log } = options;
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  await started(child, options);
  const pid = child.pid ?? 0;
  const startTicks = await startTicksOf(pid);
  if (startTicks !== undefined) await writeFileAtomic(options.recordFile, `${pid} ${startTicks}\n`);
  for (const stream of [child.stdout, child.stderr])
    stream
      .setEncoding("utf8")
      .on("data", (text: string) => log.debug("child said", { program, text: text.slice(0, outputCharactersKept) }));
  const ended = new Promise<void>((resolve) => {
    if (child.exitCode === null && child.signalCode === null) child.once("exit", () => resolve());
    else resolve();
  });
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    const isEnded = await Promise.race([ended.then(() => true), systemClock.sleep(stopMsMax).then(() => false)]);
    if (!isEnded) child.kill("SIGKILL");
    await ended;
    await rm(options.recordFile, { force: true });
  };
  return { ended, stop };
}

async function started(child: ChildProcess, options: { readonly program: string; readonly debianPackage: string }): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => {
      const evidence = { program: options.program, package: options.debianPackage };
      const action = `apt-get install ${options.debianPackage}`;
      reject(new Fault("MissingProgram", `could not start ${options.program}`, { evidence, action, cause: error }));
    });
  });
}

/** Field 22 of /proc/<pid>/stat (proc(5)); undefined when there is no such process, or only its remains. */
async function startTicksOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined); // Gone is an answer.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields?.[0] === "Z" ? undefined : fields?.[19];
}

async function waitGone(pid: number, startTicks: string): Promise<void> {
  const endMs = systemClock.monotonicMs() + stopMsMax;
  while ((await startTicksOf(pid)) === startTicks) {
    if (systemClock.monotonicMs() > endMs) process.kill(pid, "SIGKILL");
    await systemClock.sleep(20);
  }
}
