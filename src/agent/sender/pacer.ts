// Keeps the agent polite: under a share of one processor, under a bandwidth when one is set, and less of both while the machine's own programs wait.

import type { Clock } from "../../base/clock.ts";
import type { ReadStall } from "./guest-load.ts";

export interface PacerOptions {
  readonly clock: Clock;
  /** Processor seconds used by this process so far. */
  readonly cpuSeconds: () => number;
  /** Share of one processor, 0.05…4. */
  readonly cpuShareMax: number;
  /** Bytes a second; unlimited when undefined. */
  readonly bytesPerSecondMax?: number;
  /** Without it the agent does not give way. */
  readonly readStall?: ReadStall;
}

const windowMs = 250;
const pauseMsMax = 1000;
const lookMs = 1000;
/** Others may wait for so much of the time before the agent gives way, and for so little before it takes back. */
const stallHigh = 0.1;
const stallLow = 0.05;
/** It never stops: a replica that falls behind for ever is of no use. */
const dutyMin = 0.2;

/** The next share of the time in which the agent works: down fast, up slowly. */
export function nextDuty(duty: number, stall: number): number {
  if (stall > stallHigh) return Math.max(dutyMin, duty * 0.6);
  return stall < stallLow ? Math.min(1, duty + 0.1) : duty;
}

/** Called between units of work; waits as long as the limits ask. */
export class Pacer {
  readonly #options: PacerOptions;
  #windowStartMs: number;
  #windowCpu: number;
  #sentBytes = 0;
  #duty = 1;
  #dutyFloor: () => number = () => 0;
  #lookedMs: number;
  #isHurried = false;

  constructor(options: PacerOptions) {
    this.#options = options;
    this.#windowStartMs = options.clock.monotonicMs();
    this.#lookedMs = this.#windowStartMs;
    this.#windowCpu = options.cpuSeconds();
  }

  /** Share of the time in which the agent works at most, because of what others need. */
  get duty(): number {
    return Math.max(this.#duty, Math.min(1, this.#dutyFloor()));
  }

  /** From here on it gives way no further than to this share: a promise that would be broken goes before politeness. */
  keepDuty(floor: () => number): void {
    this.#dutyFloor = floor;
  }

  /** While others cannot go on before the work is done, slowness is no politeness. */
  async hurry<T>(work: () => Promise<T>): Promise<T> {
    this.#isHurried = true;
    try {
      return await work();
    } finally {
      this.#isHurried = false;
      this.#beginWindow(0);
    }
  }

  async pause(sentBytes: number, signal?: AbortSignal): Promise<void> {
    if (this.#isHurried) return;
    const { clock, cpuSeconds, cpuShareMax, bytesPerSecondMax } = this.#options;
    this.#sentBytes += sentBytes;
    await this.#look();
    const elapsedMs = clock.monotonicMs() - this.#windowStartMs;
    const cpuMs = (cpuSeconds() - this.#windowCpu) * 1000;
    const owedByCpuMs = cpuMs / (cpuShareMax * this.duty) - elapsedMs;
    const owedByBytesMs = bytesPerSecondMax === undefined ? 0 : (this.#sentBytes / bytesPerSecondMax) * 1000 - elapsedMs;
    // Reading costs little processor time and much of the disk's, so the work itself is spread too.
    const owedByDutyMs = elapsedMs < windowMs ? 0 : Math.min(elapsedMs, windowMs) / this.duty - elapsedMs;
    const owedMs = Math.max(owedByCpuMs, owedByBytesMs, owedByDutyMs);
    if (owedMs > 5) await clock.sleep(Math.min(owedMs, pauseMsMax), signal);
    if (clock.monotonicMs() - this.#windowStartMs < windowMs) return;
    // A new window starts with what could not be paid back yet, so that short bursts do not add up.
    this.#beginWindow(Math.max(0, owedByBytesMs - pauseMsMax));
  }

  #beginWindow(carriedMs: number): void {
    const { clock, cpuSeconds, bytesPerSecondMax } = this.#options;
    this.#windowStartMs = clock.monotonicMs();
    this.#windowCpu = cpuSeconds();
    this.#sentBytes = bytesPerSecondMax === undefined ? 0 : (carriedMs / 1000) * bytesPerSecondMax;
  }

  async #look(): Promise<void> {
    const nowMs = this.#options.clock.monotonicMs();
    if (this.#options.readStall === undefined || nowMs - this.#lookedMs < lookMs) return;
    this.#lookedMs = nowMs;
    const stall = await this.#options.readStall();
    if (stall !== undefined) this.#duty = nextDuty(this.#duty, stall);
  }
}
