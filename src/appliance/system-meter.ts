// Figures of the machine that the appliance runs on: processors, memory, disk, upload, clock.

import { readFile, statfs } from "node:fs/promises";
import { availableParallelism, cpus, freemem, loadavg, totalmem } from "node:os";
import { fromTimestamp, type Clock } from "../base/clock.ts";
import type { SystemFigures } from "../contract/appliance-protocol.ts";

interface Sample {
  readonly atMs: number;
  readonly busyMs: number;
  readonly totalMs: number;
}

/** The window in which the documentation judges a process server. */
const windowMs = 15 * 60_000;
const samplesMax = 64;

export interface SystemMeterOptions {
  readonly clock: Clock;
  /** The spool's, which must be there. */
  readonly folder: string;
  readonly address: string;
}

export class SystemMeter {
  readonly #options: SystemMeterOptions;
  readonly #samples: Sample[] = [];
  #uploadedBytes = 0;
  #toldAtMs: number;
  #clockOffsetMs: number | undefined;
  #osVersion: string | undefined;

  constructor(options: SystemMeterOptions) {
    this.#options = options;
    this.#toldAtMs = options.clock.monotonicMs();
    this.#sample();
  }

  addUploaded(bytes: number): void {
    this.#uploadedBytes += bytes;
  }

  /** What the hub said between two readings of the own clock: half the way there is taken as the way. */
  noteHubTime(hubTime: string, asked: { readonly fromMs: number; readonly untilMs: number }): void {
    this.#clockOffsetMs = Math.round(fromTimestamp(hubTime) - (asked.fromMs + asked.untilMs) / 2);
  }

  /** Upload counts from the call before. */
  async read(): Promise<SystemFigures> {
    const figures = await this.glance();
    this.#uploadedBytes = 0;
    this.#toldAtMs = this.#options.clock.monotonicMs();
    return figures;
  }

  /** The same, without beginning a new count. */
  async glance(): Promise<SystemFigures> {
    const { clock, folder, address } = this.#options;
    const { bsize, blocks, bavail } = await statfs(folder);
    const seconds = Math.max(1, clock.monotonicMs() - this.#toldAtMs) / 1000;
    const uploadedBytesPerSecond = this.#uploadedBytes / seconds;
    this.#osVersion ??= await readOsVersion();
    return {
      cpuShare: this.#cpuShare(),
      loadShare: (loadavg()[2] ?? 0) / availableParallelism(),
      memoryBytes: totalmem(),
      memoryAvailableBytes: freemem(),
      diskBytes: blocks * bsize,
      diskAvailableBytes: bavail * bsize,
      uploadedBytesPerSecond,
      ...(this.#clockOffsetMs === undefined ? {} : { clockOffsetMs: this.#clockOffsetMs }),
      osVersion: this.#osVersion,
      address,
    };
  }

  #cpuShare(): number {
    const newest = this.#sample();
    const oldest = this.#samples[0] ?? newest;
    const totalMs = newest.totalMs - oldest.totalMs;
    return totalMs <= 0 ? 0 : Math.min(1, Math.max(0, (newest.busyMs - oldest.busyMs) / totalMs));
  }

  #sample(): Sample {
    const times = cpus().map(({ times: each }) => each);
    const idleMs = times.reduce((sum, { idle }) => sum + idle, 0);
    const totalMs = times.reduce((sum, { user, nice, sys, idle, irq }) => sum + user + nice + sys + idle + irq, 0);
    const sample = { atMs: this.#options.clock.monotonicMs(), busyMs: totalMs - idleMs, totalMs };
    this.#samples.push(sample);
    while (this.#samples.length > samplesMax || (this.#samples[1]?.atMs ?? Infinity) < sample.atMs - windowMs) this.#samples.shift();
    return sample;
  }
}

async function readOsVersion(): Promise<string> {
  const text = await readFile("/etc/os-release", "utf8").catch(() => ""); // A system without the file is told without its name.
  return (/^PRETTY_NAME="?([^"\n]*)"?$/m.exec(text)?.[1] ?? "Linux").slice(0, 200);
}
