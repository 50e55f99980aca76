// Keeps the agent polite: under a share of one processor, and under a bandwidth when one is set.

import type { Clock } from "../../base/clock.ts";

export interface PacerOptions {
  readonly clock: Clock;
  /** Processor seconds used by this process so far. */
  readonly cpuSeconds: () => number;
  /** Share of one processor, 0.05…4. */
  readonly cpuShareMax: number;
  /** Bytes a second; unlimited when undefined. */
  readonly bytesPerSecondMax?: number;
}

const windowMs = 250;
const pauseMsMax = 1000;

/** Called between units of work; waits as long as the limits ask. */
export class Pacer {
  readonly #options: PacerOptions;
  #windowStartMs: number;
  #windowCpu: number;
  #sentBytes = 0;

  constructor(options: PacerOptions) {
    this.#options = options;
    this.#windowStartMs = options.clock.monotonicMs();
    this.#windowCpu = options.cpuSeconds();
  }

  async pause(sentBytes: number, signal?: AbortSignal): Promise<void> {
    const { clock, cpuSeconds, cpuShareMax, bytesPerSecondMax } = this.#options;
    this.#sentBytes += sentBytes;
    const elapsedMs = clock.monotonicMs() - this.#windowStartMs;
    const cpuMs = (cpuSeconds() - this.#windowCpu) * 1000;
    const owedByCpuMs = cpuMs / cpuShareMax - elapsedMs;
    const owedByBytesMs = bytesPerSecondMax === undefined ? 0 : (this.#sentBytes / bytesPerSecondMax) * 1000 - elapsedMs;
    const owedMs = Math.max(owedByCpuMs, owedByBytesMs);
    if (owedMs > 5) await clock.sleep(Math.min(owedMs, pauseMsMax), signal);
    if (clock.monotonicMs() - this.#windowStartMs < windowMs) return;
    // A new window starts with what could not be paid back yet, so that short bursts do not add up.
    const carriedMs = Math.max(0, owedByBytesMs - pauseMsMax);
    this.#windowStartMs = clock.monotonicMs();
    this.#windowCpu = cpuSeconds();
    this.#sentBytes = bytesPerSecondMax === undefined ? 0 : (carriedMs / 1000) * bytesPerSecondMax;
  }
}
