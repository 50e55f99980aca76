// Makes the kernel's waits for its own processors short while filesystems are frozen: a freeze and a look at the trackers are made of little else.

import { open, readFile, rm, stat, writeFile, type FileHandle } from "node:fs/promises";

/**
 * "1": every wait for a grace period of RCU asks the processors at once, which takes one millisecond instead of ten to thirty (kernel
 * documentation, RCU, rcu_expedited). It costs each processor an interrupt a wait.
 */
export const expediteSwitch = "/sys/kernel/rcu_expedited";
/** "1": the machine is not to be interrupted so, a real-time one for instance. It goes before the other switch. */
const normalSwitch = "/sys/kernel/rcu_normal";
/** In memory (tmpfs): there while the switch may be on; what starts after a crash looks for it. */
const marker = "/run/watari-agent-short-waits";

export interface ShortWaits {
  begin(): Promise<void>;
  /** Twice is fine. */
  end(): Promise<void>;
  close(): Promise<void>;
}

/** undefined where the kernel has no such switch, or where whoever runs the machine has set it already. */
export async function prepareShortWaits(): Promise<ShortWaits | undefined> {
  const set = await Promise.all([expediteSwitch, normalSwitch].map(async (path) => await readFile(path, "latin1").catch(() => "")));
  if (set.some((value) => value.trim() !== "0")) return undefined;
  // A machine where root may not: then the waits stay long.
  const file = await open(expediteSwitch, "w").catch((): undefined => undefined);
  if (file === undefined) return undefined;
  await writeFile(marker, "");
  const put = async (to: FileHandle, value: string): Promise<void> => void (await to.write(value, 0));
  return {
    begin: async () => await put(file, "1"),
    end: async () => await put(file, "0"),
    close: async () => {
      await put(file, "0");
      await file.close();
      await rm(marker, { force: true });
    },
  };
}

/** Puts back what a killed agent has left. */
export async function endShortWaitsLeft(): Promise<void> {
  if ((await stat(marker).catch(() => undefined)) === undefined) return; // No marker: nothing was left.
  await writeFile(expediteSwitch, "0");
  await rm(marker, { force: true });
}
