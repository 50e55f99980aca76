// Measuring of programs and parts: wall time, processor seconds of every process of the job, and how it is told.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, readdir } from "node:fs/promises";
import { performance } from "node:perf_hooks";

export interface Measured {
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
}

/** Clock ticks a second of /proc, the same on every Linux that Node runs on. */
const ticksPerSecond = 100;
/** Fields 16 and 17 of /proc/PID/stat: time of children that were waited for, and of theirs. Counted from the one after the name. */
const childTimeFields = [13, 14] as const;
/** Fields 14 and 15: its own time. */
const ownTimeFields = [11, 12] as const;

async function childCpuSeconds(): Promise<number> {
  const stat = await readFile("/proc/self/stat", "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return childTimeFields.reduce((sum, field) => sum + Number(fields[field]), 0) / ticksPerSecond;
}

/** Of a running process, its own time and that of children it has waited for. 0 once it is gone. */
export async function cpuSecondsOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return [...ownTimeFields, ...childTimeFields].reduce((sum, field) => sum + Number(fields[field] ?? 0), 0) / ticksPerSecond;
}

export async function residentMibOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024;
}

export async function childrenOf(pid: number): Promise<readonly number[]> {
  const names = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const parents = await Promise.all(
    names.map(async (name) => {
      const stat = await readFile(`/proc/${name}/stat`, "utf8").catch(() => "");
      return { pid: Number(name), parent: Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) };
    }),
  );
  return parents.filter(({ parent }) => parent === pid).map((each) => each.pid);
}

/** The value below which `share` of the numbers lie. */
export function quantile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Runs `job`, whose programs have all ended when it resolves; nobody else may end children of this process meanwhile. */
export async function measureChildren(job: () => Promise<void>): Promise<Measured> {
  const cpuBefore = await childCpuSeconds();
  const startedMs = performance.now();
  let wallSeconds = 0;
  await job().finally(() => (wallSeconds = (performance.now() - startedMs) / 1000));
  return { wallSeconds, cpuSeconds: (await childCpuSeconds()) - cpuBefore };
}

/** As measureChildren, plus the processor time of a process that runs before and after. */
export async function measureProcess(other: { cpuSeconds(): Promise<number> }, job: () => Promise<void>): Promise<Measured> {
  const before = await other.cpuSeconds();
  const { wallSeconds, cpuSeconds } = await measureChildren(job);
  return { wallSeconds, cpuSeconds: cpuSeconds + (await other.cpuSeconds()) - before };
}

export interface OneRun {
  readonly command: string;
  readonly args: readonly string[];
  readonly stdin?: number | "ignore";
  /** This process's unless told. */
  readonly env?: NodeJS.ProcessEnv;
}

/** Runs a program to its end, its output dropped. Throws its own words when it fails. */
export async function runToEnd({ command, args, stdin = "ignore", env = process.env }: OneRun): Promise<void> {
  const child = spawn(command, args, { stdio: [stdin, "ignore", "pipe"], env });
  let words = "";
  child.stderr?.on("data", (chunk: Buffer) => (words = (words + chunk.toString("utf8")).slice(-2000)));
  const ending: readonly unknown[] = await once(child, "close");
  if (ending[0] !== 0) throw new Error(`${command} ended with ${String(ending[0])}: ${words.trim()}`);
}

export async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill();
  await ended;
}

export function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

/** Columns as wide as their widest cell. */
export function formatRows(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
