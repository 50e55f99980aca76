// Makes a freeze short in other ways than by doing less: for its time the kernel waits shorter for its own processors, and the agent waits for none.

import { open, readFile, rm, stat, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { ownGroup } from "../sender/guest-load.ts";

/**
 * "1": every wait for a grace period of RCU asks the processors at once, which takes one millisecond instead of ten to thirty (kernel
 * documentation, RCU, rcu_expedited); a freeze and a look at the trackers are made of little else. It costs each processor an interrupt a wait.
 */
export const expediteSwitch = "/sys/kernel/rcu_expedited";
/** "1": the machine is not to be interrupted so, a real-time one for instance. It goes before the other switch. */
const normalSwitch = "/sys/kernel/rcu_normal";
/** In memory (tmpfs): there while the kernel's switch may be on; what starts after a crash looks for it. */
const marker = "/run/watari-agent-short-waits";
/**
 * The agent's unit lets it have one processor and the least weight; what several calls use while they freeze counts as its own.
 * NOTE: a large limit, never "max". When the last limit of a machine goes, and when the first comes, the kernel rewrites its own code
 * (the static key of cfs_bandwidth_used), stopping every processor for it; under QEMU's emulation a guest was seen to hang in that for good.
 */
const groupLimits = { "cpu.max": "6400000 100000", "cpu.weight": "1000" } as const;

export interface ShortWaits {
  /** Whether the kernel's switch is turned: somebody has to turn it back if the agent dies. The agent's own limits die with it. */
  readonly turnsKernel: boolean;
  begin(): Promise<void>;
  close(): Promise<void>;
}

interface Switch {
  readonly file: FileHandle;
  readonly during: string;
  readonly before: string;
}

/** Whatever of it this machine allows. */
export async function prepareShortWaits(): Promise<ShortWaits> {
  const kernel = (await readSwitch(normalSwitch)) === "0" ? await openSwitch(expediteSwitch, { during: "1", onlyFrom: "0" }) : undefined;
  if (kernel !== undefined) await writeFile(marker, "");
  const switches = kernel === undefined ? [] : [kernel];
  const group = await ownGroup();
  for (const [name, during] of Object.entries(groupLimits)) {
    const found = group === undefined ? undefined : await openSwitch(join(group, name), { during });
    if (found !== undefined) switches.push(found);
  }
  return {
    turnsKernel: kernel !== undefined,
    begin: async () => {
      for (const { file, during } of switches) await file.write(during, 0);
    },
    close: async () => {
      for (const { file, before } of switches.splice(0)) {
        await file.write(before, 0);
        await file.close();
      }
      if (kernel !== undefined) await rm(marker, { force: true });
    },
  };
}

/** Puts back what a killed agent has left. */
export async function endShortWaitsLeft(): Promise<void> {
  if ((await stat(marker).catch(() => undefined)) === undefined) return; // No marker: nothing was left.
  await writeFile(expediteSwitch, "0");
  await rm(marker, { force: true });
}

async function readSwitch(path: string): Promise<string | undefined> {
  const text = await readFile(path, "latin1").catch(() => undefined); // A kernel without it.
  return text?.trim();
}

/** undefined where there is none, where it may not be turned, where it limits nothing, and where whoever runs the machine has turned it already. */
async function openSwitch(path: string, to: { readonly during: string; readonly onlyFrom?: string }): Promise<Switch | undefined> {
  const before = await readSwitch(path);
  if (before === undefined || before === to.during || (to.onlyFrom !== undefined && before !== to.onlyFrom)) return undefined;
  if (before.startsWith("max ")) return undefined;
  const file = await open(path, "r+").catch((): undefined => undefined);
  return file === undefined ? undefined : { file, during: to.during, before };
}
