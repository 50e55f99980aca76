// Token buckets: how much one caller may ask for in a span. The table of callers is bounded; the longest unseen go first.

import type { Clock } from "../../base/clock.ts";

export interface Rate {
  readonly perSecond: number;
  /** What may come at once after a rest. */
  readonly burst: number;
}

export interface RateLimit {
  /** Takes one; what is left of the burst, or how long to wait. */
  take(key: string): Taken;
  /** Whether one could be taken, without taking it. */
  peek(key: string): Taken;
}

export type Taken = { readonly kind: "taken"; readonly remaining: number } | { readonly kind: "refused"; readonly waitSeconds: number };

/** Of the management API, by principal and by address. */
export interface CallLimits {
  readonly principal: RateLimit;
  readonly address: RateLimit;
}

const keysMax = 10_000;

interface Bucket {
  readonly tokens: number;
  readonly atMs: number;
}

export function createRateLimit({ rate, clock }: { readonly rate: Rate; readonly clock: Clock }): RateLimit {
  const buckets = new Map<string, Bucket>();
  const filled = (key: string): Bucket => {
    const atMs = clock.monotonicMs();
    const old = buckets.get(key) ?? { tokens: rate.burst, atMs };
    return { tokens: Math.min(rate.burst, old.tokens + ((atMs - old.atMs) * rate.perSecond) / 1000), atMs };
  };
  const judge = ({ tokens }: Bucket): Taken =>
    tokens >= 1
      ? { kind: "taken", remaining: Math.floor(tokens - 1) }
      : { kind: "refused", waitSeconds: Math.max(1, Math.ceil((1 - tokens) / rate.perSecond)) };
  return {
    peek: (key) => judge(filled(key)),
    take: (key) => {
      const bucket = filled(key);
      const taken = judge(bucket);
      // Set anew, the key stands last: the first of the map is the one unseen for longest.
      buckets.delete(key);
      buckets.set(key, taken.kind === "taken" ? { ...bucket, tokens: bucket.tokens - 1 } : bucket);
      for (const oldest of buckets.keys()) {
        if (buckets.size <= keysMax) break;
        buckets.delete(oldest);
      }
      return taken;
    },
  };
}
