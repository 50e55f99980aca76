// Time as an argument: the only place that reads the system's clocks and timers.

import { setTimeout as sleepTimer } from "node:timers/promises";

/** Source of time. Tests give their own. */
export interface Clock {
  /** Wall time in milliseconds since 1970, for records that people read. */
  nowMs(): number;
  /** Monotonic milliseconds, for durations. */
  monotonicMs(): number;
  /** Resolves after waitMs; rejects with the signal's reason when aborted. */
  sleep(waitMs: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: async (waitMs, signal) => {
    await sleepTimer(waitMs, undefined, signal === undefined ? {} : { signal });
  },
};

/** RFC 3339 text of a wall time in milliseconds, UTC. */
export function toTimestamp(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

/** Milliseconds since 1970 of an RFC 3339 text; NaN when it is none. */
export function fromTimestamp(text: string): number {
  return Date.parse(text);
}

/** Milliseconds since 1970 of an HTTP date (RFC 9110, section 5.6.7); NaN when it is none. */
export function fromHttpDate(text: string): number {
  return /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/.test(text) ? Date.parse(text) : Number.NaN;
}

/** For libraries that take Date objects. */
export function toDate(timeMs: number): Date {
  return new Date(timeMs);
}
