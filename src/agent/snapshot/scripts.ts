// Brings the guest's applications to rest around a point: runs the operator's scripts, each bounded in time and output, and always ends the rest.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { lstat, readdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Clock } from "../../base/clock.ts";
import type { ScriptRun } from "../../contract/agent-control.ts";
import { asFault, Fault } from "../../contract/errors.ts";
import type { ApplicationRest } from "../source.ts";

/** A program of the operator: called with --pre before the point and with --post after it. */
const scriptsFolder = "/etc/watari/agent/scripts.d";
/** In memory (tmpfs): there while a script was called with --pre and not yet with --post. */
const restMarker = "/run/watari-agent-resting";

const scriptsMax = 8;
/** How long one call of a script may take. */
const scriptMsMax = 60_000;
/** From the polite signal to the other one. */
const killAfterMs = 2000;
/** What a script has printed is there at its end, or in a moment; a program that it left behind may hold the pipe for ever. */
const drainMsMax = 250;
const outputCharactersMax = 1000;
const markerShape = z.array(z.string());

export interface ScriptPlace {
  readonly folder: string;
  readonly marker: string;
  /** Who must own the scripts: who runs them. */
  readonly ownerUid: number;
  readonly msMax?: number;
}

export const systemScripts: ScriptPlace = { folder: scriptsFolder, marker: restMarker, ownerUid: 0 };

/** Calls every script with --pre, in the order of their names. On a fault what had begun has been ended again on return. */
export async function restApplications(
  place: ScriptPlace,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<ApplicationRest> {
  const runs: ScriptRun[] = [];
  const begun: string[] = [];
  let isEnded = false;
  let fault: Fault | undefined;
  const note = async (script: string, phase: ScriptRun["phase"]): Promise<void> => {
    const run = await runScript(script, { phase, clock, msMax: place.msMax ?? scriptMsMax, ...(phase === "pre" ? { signal } : {}) });
    runs.push(run);
    if (run.exitCode !== 0) fault ??= faultOf(run, place);
  };
  const end = async (): Promise<void> => {
    if (isEnded) return;
    isEnded = true;
    for (const script of begun.toReversed()) await note(script, "post");
    await rm(place.marker, { force: true });
  };
  try {
    const scripts = await listScripts(place);
    // Whole or absent: an agent that was killed while it wrote must be able to start.
    await writeFileAtomic(place.marker, JSON.stringify(scripts), { mode: 0o600 });
    for (const script of scripts) {
      begun.push(script);
      await note(script, "pre");
      signal.throwIfAborted();
      if (fault !== undefined) break;
    }
  } catch (error) {
    await end();
    if (signal.aborted) throw error;
    fault = asFault(error, "bring the applications to rest");
  }
  const isResting = fault === undefined;
  if (!isResting) await end();
  return { isResting, runs, fault: () => fault, end };
}

/** Ends a rest that a killed agent has left: calls the scripts with --post. */
export async function endLeftRest(place: ScriptPlace, clock: Clock): Promise<void> {
  const text = await readFile(place.marker, "utf8").catch(() => undefined); // No marker: nothing was left.
  if (text === undefined) return;
  const left = markerShape.parse(JSON.parse(text));
  const present = await listScripts(place).catch((): string[] => []); // What may not be run now is not run either.
  for (const script of left.filter((path) => present.includes(path)).toReversed())
    await runScript(script, { phase: "post", clock, msMax: place.msMax ?? scriptMsMax });
  await rm(place.marker, { force: true });
}

/** The scripts' paths. Fault ScriptRefused when there are none, or when others than the owner could have written one. */
async function listScripts({ folder, ownerUid }: ScriptPlace): Promise<string[]> {
  const names = await readdir(folder).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  });
  const scripts = names
    .filter((name) => !name.startsWith("."))
    .sort()
    .map((name) => join(folder, name));
  if (scripts.length === 0) throw refused(folder, "there are no scripts in it");
  if (scripts.length > scriptsMax) throw refused(folder, `it holds more than ${scriptsMax} files`);
  for (let above = folder; ; above = dirname(above)) {
    await requireOwned(above, { ownerUid, kind: "folder" });
    if (above === dirname(above)) break;
  }
  for (const script of scripts) await requireOwned(script, { ownerUid, kind: "program" });
  return scripts;
}

/** Links are refused too: what they lead to could be anybody's. */
async function requireOwned(path: string, { ownerUid, kind }: { readonly ownerUid: number; readonly kind: "folder" | "program" }) {
  const seen = await lstat(path);
  if (kind === "folder" ? !seen.isDirectory() : !seen.isFile()) throw refused(path, `it is no ${kind}`);
  if (seen.uid !== ownerUid && seen.uid !== 0) throw refused(path, `it belongs to user ${seen.uid}`);
  // In a sticky folder nobody can rename what is another's.
  const isSticky = kind === "folder" && (seen.mode & 0o1000) !== 0;
  if ((seen.mode & 0o022) !== 0 && !isSticky) throw refused(path, "others than its owner may write to it");
  if (kind === "program" && (seen.mode & 0o100) === 0) throw refused(path, "its owner may not execute it");
}

function refused(path: string, why: string): Fault {
  return new Fault("ScriptRefused", `could not bring the applications to rest: ${path}: ${why}`, { evidence: { path, why } });
}

function faultOf(run: ScriptRun, place: ScriptPlace): Fault {
  const { script, phase, exitCode, output } = run;
  const how = run.hasTimedOut
    ? `took longer than ${(place.msMax ?? scriptMsMax) / 1000} s and was killed`
    : exitCode === undefined
      ? "was killed or could not be started"
      : `ended with ${exitCode}`;
  return new Fault(
    "ScriptFailed",
    `could not ${phase === "pre" ? "bring the applications to rest" : "end the rest of the applications"}: ${script} --${phase} ${how}`,
    {
      evidence: { script, phase, ...(exitCode === undefined ? {} : { exitCode }), hasTimedOut: run.hasTimedOut, output },
    },
  );
}

interface Call {
  readonly phase: ScriptRun["phase"];
  readonly clock: Clock;
  readonly msMax: number;
  readonly signal?: AbortSignal;
}

/** Never throws: how it went is in the answer. The whole group of a script that takes too long is killed. */
async function runScript(path: string, { phase, clock, msMax, signal }: Call): Promise<ScriptRun> {
  const startMs = clock.monotonicMs();
  const child = spawn(path, [`--${phase}`], {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    cwd: "/",
    env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", WATARI_PHASE: phase },
  });
  let output = "";
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString("utf8")).slice(-outputCharactersMax);
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  const ended = new Promise<number | undefined>((resolve) => {
    child.once("error", (error) => {
      keep(Buffer.from(error.message));
      resolve(undefined);
    });
    child.once("exit", (code) => resolve(code ?? undefined));
  });
  const closed = once(child, "close").catch(() => undefined); // A program that could not be started.
  const timer = new AbortController();
  const timeUp = clock.sleep(msMax, signal === undefined ? timer.signal : AbortSignal.any([timer.signal, signal])).then(
    () => "timeout" as const,
    () => (signal?.aborted === true ? ("aborted" as const) : new Promise<never>(() => undefined)),
  );
  const first = await Promise.race([ended.then((exitCode) => ({ exitCode })), timeUp]);
  timer.abort();
  if (typeof first === "string") await killGroup(child, { clock, ended });
  const drained = new AbortController();
  await Promise.race([closed, clock.sleep(drainMsMax, drained.signal).catch(() => undefined)]); // The timer only bounds the wait.
  drained.abort();
  child.stdout.destroy();
  child.stderr.destroy();
  return {
    script: path.slice(-255),
    phase,
    ...(typeof first === "string" || first.exitCode === undefined ? {} : { exitCode: first.exitCode }),
    hasTimedOut: first === "timeout",
    tookMs: clock.monotonicMs() - startMs,
    output: printable(output),
  };
}

async function killGroup(
  child: ChildProcess,
  { clock, ended }: { readonly clock: Clock; readonly ended: Promise<unknown> },
): Promise<void> {
  const done = new AbortController();
  signalGroup(child, "SIGTERM");
  await Promise.race([ended, clock.sleep(killAfterMs, done.signal).catch(() => undefined)]); // The timer only bounds the wait.
  done.abort();
  signalGroup(child, "SIGKILL");
  await ended;
}

function signalGroup(child: ChildProcess, name: "SIGTERM" | "SIGKILL"): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, name);
  } catch {
    // The group has ended by itself.
  }
}

/** Without what could steer a terminal. */
function printable(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is taken out
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "?").slice(-outputCharactersMax);
}
