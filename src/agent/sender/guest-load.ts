// How much the machine's own programs have to wait while the agent works: what its politeness follows.

import { readFile } from "node:fs/promises";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";

/** Share of the last moments, 0…1, in which others waited and the agent did not; undefined when the machine does not tell. */
export type ReadStall = () => Promise<number | undefined>;

const resources = ["cpu", "io"] as const;
const pressureFolder = "/proc/pressure";

/** Microseconds for which some task had waited, of a file of pressure stall information (kernel documentation, accounting/psi). */
export function parseStallMicroseconds(text: string): number | undefined {
  const total = /^some .*total=(\d+)$/m.exec(text)?.[1];
  return total === undefined ? undefined : Number(total);
}

interface Stalls {
  readonly atMs: number;
  readonly othersMicroseconds: readonly number[];
}

/**
 * By pressure stall information: all waiting less the agent's own, which its cgroup tells. Without it by the load average,
 * which knows less: more tasks than processors.
 */
export function createReadStall(clock: Clock): ReadStall {
  let before: Stalls | undefined;
  return async () => {
    const others = await readOthers();
    if (others === undefined) return stallOfLoad(loadavg()[0] ?? 0, availableParallelism());
    const now: Stalls = { atMs: clock.monotonicMs(), othersMicroseconds: others };
    const last = before;
    before = now;
    return last === undefined ? undefined : stallBetween(last, now);
  };
}

/** The resource that others waited for most. */
export function stallBetween(last: Stalls, now: Stalls): number | undefined {
  const elapsed = (now.atMs - last.atMs) * 1000;
  if (elapsed <= 0) return undefined;
  const shares = now.othersMicroseconds.map((total, index) => (total - (last.othersMicroseconds[index] ?? total)) / elapsed);
  return Math.min(1, Math.max(0, ...shares));
}

/** The agent is one of the tasks that the load counts. */
export function stallOfLoad(load: number, cpuCount: number): number {
  return Math.min(1, Math.max(0, (load - 1 - cpuCount) / cpuCount));
}

async function readOthers(): Promise<readonly number[] | undefined> {
  const own = await ownGroup();
  const others: number[] = [];
  for (const resource of resources) {
    const all = await readStallOf(join(pressureFolder, resource));
    if (all === undefined) return undefined;
    const ours = own === undefined ? undefined : await readStallOf(join(own, `${resource}.pressure`));
    others.push(all - (ours ?? 0));
  }
  return others;
}

async function readStallOf(path: string): Promise<number | undefined> {
  const text = await readFile(path, "latin1").catch(() => undefined); // Kernels without it, or with it switched off.
  return text === undefined ? undefined : parseStallMicroseconds(text);
}

/** The folder of the agent's own control group (cgroup v2). */
export async function ownGroup(): Promise<string | undefined> {
  const text = await readFile("/proc/self/cgroup", "latin1").catch(() => "");
  const path = /^0::(\/.+)$/m.exec(text)?.[1];
  return path === undefined ? undefined : join("/sys/fs/cgroup", path);
}
