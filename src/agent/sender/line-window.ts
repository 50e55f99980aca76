// LineWindow: how many lanes it takes to fill a line, from the bandwidth times the delay that are seen on it.

import type { Clock } from "../../base/clock.ts";
import { blocksPerUnit } from "./lanes.ts";
import { blockBytes } from "../../disk/geometry.ts";

const laneBytes = blocksPerUnit * blockBytes;
/** Answers that come faster than this need no more lanes. */
const roundTripMsMin = 5;
/** The rate is seen over at least so long, and over a round trip. */
const spanMsMin = 200;
/** More than the rate and the delay ask for, so that a line with room is found to have it. */
const growth = 1.5;

export class LineWindow {
  readonly #clock: Clock;
  #roundTripMs = Number.POSITIVE_INFINITY;
  #bytes = 0;
  #span: { readonly startMs: number; readonly bytes: number };
  #bytesPerMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#span = { startMs: clock.monotonicMs(), bytes: 0 };
  }

  /** An announcement of so many blocks that was sent then has been answered. */
  noteAnswer(blockCount: number, sentMs: number): void {
    const nowMs = this.#clock.monotonicMs();
    this.#roundTripMs = Math.min(this.#roundTripMs, nowMs - sentMs);
    this.#bytes += blockCount * blockBytes;
    const elapsedMs = nowMs - this.#span.startMs;
    if (elapsedMs < Math.max(spanMsMin, this.#roundTripMs)) return;
    this.#bytesPerMs = (this.#bytes - this.#span.bytes) / elapsedMs;
    this.#span = { startMs: nowMs, bytes: this.#bytes };
  }

  /** Lanes that hold what is announced and not yet answered, beside `lanesMin` that read, pack and send. */
  lanesWanted(lanesMin: number): number {
    if (this.#roundTripMs < roundTripMsMin || !Number.isFinite(this.#roundTripMs)) return lanesMin;
    return lanesMin + Math.ceil((this.#bytesPerMs * this.#roundTripMs * growth) / laneBytes);
  }
}
