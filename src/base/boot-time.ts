// Seconds since this machine was started, sleep included: goes on through the restart of a program, and nobody can set it.

import { readFile } from "node:fs/promises";

export interface BootTime {
  /** Of the start of the machine; times of different starts cannot be compared. */
  readonly bootId: string;
  readonly seconds: number;
}

export async function readBootTime(): Promise<BootTime> {
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  return { bootId, seconds: Number((await readFile("/proc/uptime", "utf8")).split(" ", 1)[0]) };
}
