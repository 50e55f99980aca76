// A store that fails on order, for tests: before a call does anything, or after it did all of it.

import { Fault } from "../contract/errors.ts";
import type { Store } from "./store.ts";

export interface StoreCall {
  /** Counts all calls from 1. */
  readonly number: number;
  readonly kind: "put" | "get" | "head" | "list" | "remove";
  readonly key: string;
}

/** before: the call does nothing. after: the call is carried out, and its answer is lost. */
export type FaultMoment = "before" | "after";

/** Asks `decide` about each call and fails it with StoreUnavailable at the moment that it names. */
export function withFaults(store: Store, decide: (call: StoreCall) => FaultMoment | undefined): Store {
  let number = 0;
  const guard = async <T>(kind: StoreCall["kind"], key: string, task: () => Promise<T>): Promise<T> => {
    number += 1;
    const call = { number, kind, key };
    const moment = decide(call);
    if (moment === "before") throw orderedFault(call);
    const answer = await task();
    if (moment === "after") throw orderedFault(call);
    return answer;
  };
  return {
    put: async (key, bytes, signal) => await guard("put", key, async () => await store.put(key, bytes, signal)),
    get: async (key, range, signal) => await guard("get", key, async () => await store.get(key, range, signal)),
    head: async (key, signal) => await guard("head", key, async () => await store.head(key, signal)),
    remove: async (key, signal) => await guard("remove", key, async () => await store.remove(key, signal)),
    async *list(prefix, signal) {
      await guard("list", prefix, async () => undefined);
      yield* store.list(prefix, signal);
    },
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
}

function orderedFault(call: StoreCall): Fault {
  return new Fault("StoreUnavailable", `could not ${call.kind} an object: a fault was ordered`, {
    evidence: { key: call.key, number: call.number },
  });
}
