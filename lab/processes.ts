// Programs of the lab: started in a zone, found again by pid file or by namespace, ended only when proved to be the lab's own.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { open, readdir, readFile, readlink, stat, writeFile } from "node:fs/promises";
import { systemClock } from "../src/base/clock.ts";
import { type CommandOptions, type CommandResult, tryCommand } from "../src/base/run-command.ts";
import { Fault } from "../src/contract/errors.ts";
import { type LabPlace, namespaceOf, type Zone } from "./place.ts";

/** Runs a program in a zone to its end, with the zone's own resolver (a private mount namespace shows its resolv.conf). */
export async function labExec(
  place: LabPlace,
  zone: Zone,
  argv: readonly [string, ...string[]],
  options: CommandOptions = {},
): Promise<CommandResult> {
  return await tryCommand("ip", ["netns", "exec", namespaceOf(place, zone), ...argv], options);
}

/**
 * The arguments that start `argv` in a zone's network and nothing else: for long-running programs, and for those that make
 * namespaces themselves. They see the host's /etc/resolv.conf, so give them the zone's resolver by their own settings.
 */
export function inZone(place: LabPlace, zone: Zone, argv: readonly string[]): readonly [string, ...string[]] {
  return ["nsenter", `--net=/run/netns/${namespaceOf(place, zone)}`, "--", ...argv];
}

export interface DaemonOptions {
  readonly place: LabPlace;
  readonly zone: Zone;
  readonly name: string;
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Starts a program that outlives this one; its output goes to <state>/<name>.log, its id to <state>/<name>.pid. */
export async function startDaemon(options: DaemonOptions): Promise<number> {
  const { place, name } = options;
  await using output = await open(`${place.stateFolder}/${name}.log`, "a", 0o600);
  const [program, ...args] = inZone(place, options.zone, options.argv);
  const child = spawn(program, args, {
    detached: true,
    stdio: ["ignore", output.fd, output.fd],
    cwd: "/",
    ...(options.env === undefined ? {} : { env: { ...process.env, ...options.env } }),
  });
  const id = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("spawn", () => (child.pid === undefined ? reject(new Error(`${name} has no process id`)) : resolve(child.pid)));
  });
  child.unref();
  await writeFile(`${place.stateFolder}/${name}.pid`, `${id}\n`);
  return id;
}

/** The process of a pid file, if it still runs and its command line names the lab's own state folder. */
export async function daemonProcess(place: LabPlace, pidFile: string): Promise<number | undefined> {
  const text = await readFile(pidFile, "utf8").catch(() => ""); // No file: not started, or already cleaned.
  const id = Number.parseInt(text, 10);
  if (!(id > 1)) return undefined;
  const commandLine = await readFile(`/proc/${id}/cmdline`, "utf8").catch(() => ""); // Gone.
  return commandLine.includes(`${place.stateFolder}/`) ? id : undefined;
}

/** Every process in a network namespace that has a name under /run/netns. */
export async function processesIn(namespaces: readonly string[]): Promise<readonly number[]> {
  const inodes = new Set<string>();
  for (const namespace of namespaces) {
    const found = await stat(`/run/netns/${namespace}`).catch(() => undefined); // Never made, or already removed.
    if (found !== undefined) inodes.add(`net:[${found.ino}]`);
  }
  if (inodes.size === 0) return [];
  const own = await readlink("/proc/self/ns/net");
  inodes.delete(own);
  const ids: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const link = await readlink(`/proc/${name}/ns/net`).catch(() => ""); // Ended while we looked.
    if (inodes.has(link)) ids.push(Number(name));
  }
  return ids;
}

/** Ends processes: asks first, kills what is left after graceMs, returns when all are gone. */
export async function endProcesses(ids: readonly number[], graceMs = 2_000): Promise<void> {
  for (const id of ids) signal(id, "SIGTERM");
  const killAtMs = systemClock.monotonicMs() + graceMs;
  const giveUpAtMs = killAtMs + 15_000;
  for (;;) {
    const alive = ids.filter(isAlive);
    if (alive.length === 0) return;
    const nowMs = systemClock.monotonicMs();
    if (nowMs > giveUpAtMs) throw new Fault("Internal", `could not end the processes ${alive.join(", ")}`);
    if (nowMs > killAtMs) for (const id of alive) signal(id, "SIGKILL");
    await systemClock.sleep(25);
  }
}

/** Polls `isReady` until it answers true; the fault names what was waited for. */
export async function waitUntil(what: string, waitMaxMs: number, isReady: () => Promise<boolean>, signal?: AbortSignal): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + waitMaxMs;
  while (!(await isReady())) {
    if (systemClock.monotonicMs() > deadlineMs) throw new Fault("Internal", `could not see ${what} within ${waitMaxMs} ms`);
    await systemClock.sleep(50, signal);
  }
}

export function isAlive(id: number): boolean {
  try {
    process.kill(id, 0);
    return !isZombie(id);
  } catch {
    return false; // No such process.
  }
}

/** A process that has ended and only waits for its parent to notice; its parent may be us. */
function isZombie(id: number): boolean {
  try {
    return /^State:\s+Z/m.test(readFileSync(`/proc/${id}/status`, "utf8"));
  } catch {
    return true; // Gone between two looks.
  }
}

function signal(id: number, name: NodeJS.Signals): void {
  try {
    process.kill(id, name);
  } catch {
    // Already gone.
  }
}
