// Retries with growing, jittered waits, a bounded number of times.

import type { Clock } from "./clock.ts";

export interface RetryOptions {
  readonly clock: Clock;
  readonly attemptsMax: number;
  readonly firstWaitMs: number;
  readonly waitMaxMs: number;
  /** Whether this failure may pass by itself. */
  readonly isTransient: (error: unknown) => boolean;
  readonly onRetry?: (error: unknown, attempt: number, waitMs: number) => void;
  readonly signal?: AbortSignal;
}

/** Calls `task` until it succeeds, fails for good, or attemptsMax is reached; then throws the last failure. */
export async function withRetry<T>(options: RetryOptions, task: (attempt: number) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    options.signal?.throwIfAborted();
    try {
      return await task(attempt);
    } catch (error) {
      if (attempt >= options.attemptsMax || !options.isTransient(error)) throw error;
      const waitMs = Math.min(options.waitMaxMs, options.firstWaitMs * 2 ** (attempt - 1));
      options.onRetry?.(error, attempt, waitMs);
      await options.clock.sleep(waitMs, options.signal);
    }
  }
}
