// LaneTimes: what lanes spend their time on, so that the slowest stage can be named.

import type { Clock } from "../../base/clock.ts";
import type { AgentState } from "../../contract/agent-control.ts";

export type LaneMs = NonNullable<AgentState["laneMs"]>;

/** read: the disk. work: digests and compression. wait: the line and the appliance. pause: the agent's own limits. */
export class LaneTimes {
  readonly #clock: Clock;
  readonly #spentMs: Record<keyof LaneMs, number> = { read: 0, work: 0, wait: 0, pause: 0 };

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Of the clock that it counts by. */
  get nowMs(): number {
    return this.#clock.monotonicMs();
  }

  /** Since the agent's start; grows by up to a second for each lane and second. */
  get spentMs(): LaneMs {
    const { read, work, wait, pause } = this.#spentMs;
    return { read: Math.round(read), work: Math.round(work), wait: Math.round(wait), pause: Math.round(pause) };
  }

  async spend<T>(on: keyof LaneMs, task: () => T | Promise<T>): Promise<T> {
    const startMs = this.#clock.monotonicMs();
    try {
      return await task();
    } finally {
      this.#spentMs[on] += this.#clock.monotonicMs() - startMs;
    }
  }
}
