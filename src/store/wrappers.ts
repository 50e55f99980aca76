// Stores around stores: bounded parallel calls, retries, reading back what was written.

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { withRetry } from "../base/retry.ts";
import { Semaphore } from "../base/semaphore.ts";
import { Fault } from "../contract/errors.ts";
import type { Store } from "./store.ts";

export interface StoreRetryOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** 6 unless told: with the waits below about half a minute in all. */
  readonly attemptsMax?: number;
  readonly firstWaitMs?: number;
  readonly waitMaxMs?: number;
}

/** Repeats calls that fail with a Fault whose advice is to try later or now. A list is taken up again where it broke. */
export function withStoreRetry(store: Store, options: StoreRetryOptions): Store {
  const retry = async <T>(call: string, task: () => Promise<T>, signal?: AbortSignal): Promise<T> =>
    await withRetry(
      {
        clock: options.clock,
        attemptsMax: options.attemptsMax ?? 6,
        firstWaitMs: options.firstWaitMs ?? 500,
        waitMaxMs: options.waitMaxMs ?? 15_000,
        isTransient: (error) => error instanceof Fault && error.retry !== "never",
        onRetry: (error, attempt, waitMs) =>
          options.log.warn("store call failed and is tried again", { call, attempt, waitMs, fault: (error as Fault).message }), // isTransient proved it.
        ...(signal === undefined ? {} : { signal }),
      },
      task,
    );
  return {
    put: async (key, bytes, signal) => await retry("put", async () => await store.put(key, bytes, signal), signal),
    get: async (key, range, signal) => await retry("get", async () => await store.get(key, range, signal), signal),
    head: async (key, signal) => await retry("head", async () => await store.head(key, signal), signal),
    remove: async (key, signal) => await retry("remove", async () => await store.remove(key, signal), signal),
    async *list(prefix, signal) {
      let last = "";
      let source = store.list(prefix, signal)[Symbol.asyncIterator]();
      for (;;) {
        const next = await retry(
          "list",
          async () => {
            try {
              return await source.next();
            } catch (error) {
              source = store.list(prefix, signal)[Symbol.asyncIterator]();
              throw error;
            }
          },
          signal,
        );
        if (next.done === true) return;
        if (next.value.key <= last) continue; // Given before the list broke.
        last = next.value.key;
        yield next.value;
      }
    },
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
}

/** Lets at most `parallelMax` calls run at once; the others wait in order. Lists are not counted. */
export function withStoreLimit(store: Store, parallelMax: number): Store {
  const permits = new Semaphore(parallelMax);
  return {
    put: async (key, bytes, signal) => await permits.run(async () => await store.put(key, bytes, signal)),
    get: async (key, range, signal) => await permits.run(async () => await store.get(key, range, signal)),
    head: async (key, signal) => await permits.run(async () => await store.head(key, signal)),
    remove: async (key, signal) => await permits.run(async () => await store.remove(key, signal)),
    list: (prefix, signal) => store.list(prefix, signal),
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
}

/** Reads every object back after it was written and compares it. For stores that are not trusted; doubles the traffic. */
export function withReadBack(store: Store): Store {
  return {
    put: async (key, bytes, signal) => {
      await store.put(key, bytes, signal);
      const stored = await store.get(key, undefined, signal);
      if (stored === undefined || Buffer.compare(stored, bytes) !== 0)
        throw new Fault("DataDamaged", "could not store an object: what was read back differs from what was written", {
          evidence: { key },
        });
    },
    get: async (key, range, signal) => await store.get(key, range, signal),
    head: async (key, signal) => await store.head(key, signal),
    remove: async (key, signal) => await store.remove(key, signal),
    list: (prefix, signal) => store.list(prefix, signal),
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
}
