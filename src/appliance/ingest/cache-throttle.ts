// CacheThrottle: slows all agents down while the cache of packs has little room left, and lets them go when room is back.

import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { cacheThrottle, pendingBytesSmall } from "../../contract/process-server-limits.ts";
import type { LineLimits } from "../limits/line-limits.ts";
import { checkSpool, lookAtSpool, type SeenSpool, type Spool } from "./spool.ts";

/** All agents together are never held below the first, so that each point still ends; nor told the second, which no line here reaches. */
const throttleBytesMin = 256 << 10;
const throttleBytesMax = 2 ** 30;
/** A first limit is not below this: what came in the last minute may have been little by chance. */
const firstBytesMin = 1 << 20;
/** Less than this is what files come and go anyway. */
const noiseBytes = 1 << 20;
/** Between two looks of its own; each point that begins looks too. */
const lookEveryMs = 5000;

export type Throttle =
  | { readonly kind: "open" }
  | {
      readonly kind: "throttled";
      readonly sinceMs: number;
      readonly freeShare: number;
      readonly bytesPerSecond: number;
      /** When the rate was set, and what was free then. */
      readonly setMs: number;
      readonly setFreeBytes: number;
    };

/** Closes in on a rate at which the cache drains: less while room goes on falling, more while it grows or nothing waits for its upload. */
export function nextThrottle(
  before: Throttle,
  seen: Pick<SeenSpool, "freeShare" | "freeBytes" | "spoolBytes"> & {
    readonly nowMs: number;
    /** From all agents, over the last minute. */
    readonly arrivingBytesPerSecond: number;
  },
): Throttle {
  const { freeShare, freeBytes, nowMs } = seen;
  const set = (sinceMs: number, rate: number): Throttle => ({
    ...{ kind: "throttled", sinceMs, freeShare, setMs: nowMs, setFreeBytes: freeBytes },
    bytesPerSecond: Math.round(Math.min(throttleBytesMax, Math.max(throttleBytesMin, rate))),
  });
  if (before.kind === "open") {
    if (freeShare >= cacheThrottle.belowShare) return before;
    return set(nowMs, Math.max(firstBytesMin, seen.arrivingBytesPerSecond / 2));
  }
  if (freeShare >= cacheThrottle.untilShare) return { kind: "open" };
  if (nowMs - before.setMs < lookEveryMs) return { ...before, freeShare };
  const wonBytes = freeBytes - before.setFreeBytes;
  const isDraining = wonBytes > noiseBytes || (seen.spoolBytes <= pendingBytesSmall && wonBytes >= -noiseBytes);
  const factor = wonBytes < -noiseBytes ? 0.7 : isDraining ? 1.25 : 1;
  return set(before.sinceMs, before.bytesPerSecond * factor);
}

export interface CacheThrottleParts {
  readonly spool: Spool;
  readonly limits: LineLimits;
  readonly clock: Clock;
  readonly log: Log;
}

export class CacheThrottle implements AsyncDisposable {
  readonly #parts: CacheThrottleParts;
  readonly #ending = new AbortController();
  readonly #running: Promise<void>;
  #throttle: Throttle = { kind: "open" };

  constructor(parts: CacheThrottleParts) {
    this.#parts = parts;
    this.#running = this.#run();
  }

  /** Before a point begins. Throws Fault SpoolFull when there is no room for any. */
  async checkSpace(): Promise<void> {
    checkSpool(this.#parts.spool, await this.#look());
  }

  fault(): Fault | undefined {
    const throttle = this.#throttle;
    if (throttle.kind === "open") return undefined;
    const { freeShare, sinceMs, bytesPerSecond } = throttle;
    const until = Math.round(100 * cacheThrottle.untilShare);
    return new Fault("CacheSpaceLow", `${percentText(freeShare)} of the cache is free: all agents are slowed down until ${until} % are`, {
      evidence: { folder: this.#parts.spool.folder, freeShare, sinceTime: toTimestamp(sinceMs), bytesPerSecond },
    });
  }

  async #look(): Promise<SeenSpool> {
    const { spool, limits, clock, log } = this.#parts;
    const seen = await lookAtSpool(spool);
    const before = this.#throttle;
    const { bytesPerSecond: arrivingBytesPerSecond } = limits.lineOf({ scope: "agents" }).figures();
    const next = nextThrottle(before, { ...seen, arrivingBytesPerSecond, nowMs: clock.nowMs() });
    this.#throttle = next;
    limits.throttleAgents(
      next.kind === "open"
        ? undefined
        : { bytesPerSecond: next.bytesPerSecond, reason: `${percentText(next.freeShare)} of the cache is free` },
    );
    if (before.kind === next.kind) return seen;
    const { freeShare, freeBytes, spoolBytes } = seen;
    if (next.kind === "open") log.info("agents were let go: the cache has room again", { freeShare, freeBytes, spoolBytes });
    else
      log.warn("agents were slowed down: the cache has little room", {
        freeShare,
        freeBytes,
        spoolBytes,
        bytesPerSecond: next.bytesPerSecond,
      });
    return seen;
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#parts;
    const { signal } = this.#ending;
    while (!signal.aborted) {
      await this.#look().catch((error: unknown) => {
        // What was decided holds until the folder can be looked at again.
        log.warn("cache could not be looked at", { reason: error instanceof Error ? error.message : String(error) });
      });
      await clock.sleep(lookEveryMs, signal).catch(() => undefined); // The loop's head sees the abort.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }
}

function percentText(share: number): string {
  return `${Math.floor(100 * share)} %`;
}
