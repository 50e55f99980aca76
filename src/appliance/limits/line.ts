// Line: lets bytes pass at a rate that may change at any time, first come first served, and measures what passed and what waited.

import type { Clock } from "../../base/clock.ts";

export interface LineOptions {
  readonly clock: Clock;
  /** Bytes a second at this moment; undefined: unlimited. */
  readonly rate: () => number | undefined;
}

interface Waiting {
  readonly bytes: number;
  readonly pass: () => void;
}

/** Larger asks pass in pieces, so that those who wait get their share by bytes. */
const pieceBytes = 64 << 10;
/** What may pass at once after a rest. */
const burstMs = 250;
/** Longest wait before the rate is looked at again. */
const lookMsMax = 500;
/** Figures are of the last minute, second by second. */
const secondsKept = 60;

export class Line {
  readonly #options: LineOptions;
  readonly #waiting: Waiting[] = [];
  readonly #meter: LineMeter;
  /** Bytes that may pass now; below zero a piece passed on credit. */
  #tokens = 0;
  #filledMs: number;
  #wake = new AbortController();
  #isPumping = false;

  constructor(options: LineOptions) {
    this.#options = options;
    this.#filledMs = options.clock.monotonicMs();
    this.#meter = new LineMeter(options.clock);
  }

  get passedBytes(): number {
    return this.#meter.passedBytes;
  }

  /** Milliseconds in which somebody waited, since the start. */
  get waitedMs(): number {
    return this.#meter.waitedMs;
  }

  /** Over the last minute. */
  figures(): { readonly bytesPerSecond: number; readonly waitedShare: number } {
    return this.#meter.figures();
  }

  /** undefined: they passed at once. Else resolves when they may pass; rejects at the abort, and then they have not passed. */
  pass(bytes: number, signal?: AbortSignal): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#options.rate() === undefined) {
      this.#meter.count(bytes);
      return undefined;
    }
    return this.#passPieces(bytes, signal);
  }

  /** Called when the rate may have changed: who waits is judged anew. */
  look(): void {
    this.#wake.abort();
  }

  async #passPieces(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    for (let left = bytes; left > 0; left -= pieceBytes) await this.#passOne(Math.min(left, pieceBytes), signal);
  }

  async #passOne(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        this.#wake.abort();
        reject(signal?.reason instanceof Error ? signal.reason : new Error("the wait for the line was ended"));
      };
      const waiting: Waiting = {
        bytes,
        pass: () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(waiting);
      if (!this.#isPumping) void this.#pump();
    });
  }

  /** Runs for as long as somebody waits. */
  async #pump(): Promise<void> {
    const { clock } = this.#options;
    this.#isPumping = true;
    this.#meter.beginWait();
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      const waitMs = this.#fill();
      if (waitMs > 0) {
        this.#wake = new AbortController();
        await clock.sleep(Math.min(waitMs, lookMsMax), this.#wake.signal).catch(() => undefined); // Woken: looks again.
        continue;
      }
      this.#waiting.shift();
      this.#tokens -= next.bytes;
      this.#meter.count(next.bytes);
      next.pass();
      // Whoever passed asks for its next piece before the queue is looked at again.
      await Promise.resolve();
    }
    this.#meter.endWait();
    this.#isPumping = false;
  }

  /** Adds what time has brought; answers how long until the next piece may pass. */
  #fill(): number {
    const nowMs = this.#options.clock.monotonicMs();
    const elapsedMs = nowMs - this.#filledMs;
    this.#filledMs = nowMs;
    const rate = this.#options.rate();
    if (rate === undefined) {
      this.#tokens = 0;
      return 0;
    }
    const burst = (rate * burstMs) / 1000;
    this.#tokens = Math.min(this.#tokens + (rate * elapsedMs) / 1000, burst);
    return this.#tokens >= 0 ? 0 : Math.max(1, (-this.#tokens / rate) * 1000);
  }
}

interface Second {
  readonly atMs: number;
  readonly passedBytes: number;
  readonly waitedMs: number;
}

class LineMeter {
  readonly #clock: Clock;
  readonly #seconds: Second[] = [];
  #passedBytes = 0;
  #waitedMs = 0;
  #waitingSinceMs: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#mark();
  }

  get passedBytes(): number {
    return this.#passedBytes;
  }

  get waitedMs(): number {
    return this.#waitedMs + (this.#waitingSinceMs === undefined ? 0 : this.#clock.monotonicMs() - this.#waitingSinceMs);
  }

  count(bytes: number): void {
    this.#mark();
    this.#passedBytes += bytes;
  }

  beginWait(): void {
    this.#mark();
    this.#waitingSinceMs = this.#clock.monotonicMs();
  }

  endWait(): void {
    this.#waitedMs = this.waitedMs;
    this.#waitingSinceMs = undefined;
  }

  figures(): { readonly bytesPerSecond: number; readonly waitedShare: number } {
    this.#mark();
    const nowMs = this.#clock.monotonicMs();
    const oldest = this.#seconds[0] ?? { atMs: nowMs, passedBytes: this.#passedBytes, waitedMs: this.waitedMs };
    const spanMs = Math.max(1000, nowMs - oldest.atMs);
    return {
      bytesPerSecond: ((this.#passedBytes - oldest.passedBytes) / spanMs) * 1000,
      waitedShare: Math.min(1, Math.max(0, (this.waitedMs - oldest.waitedMs) / spanMs)),
    };
  }

  /** Notes how things stood, at most once a second. */
  #mark(): void {
    const atMs = this.#clock.monotonicMs();
    const last = this.#seconds.at(-1);
    if (last !== undefined && atMs - last.atMs < 1000) return;
    this.#seconds.push({ atMs, passedBytes: this.#passedBytes, waitedMs: this.waitedMs });
    // The newest that is a minute old stays, to count from.
    while (this.#seconds.length > 1 && atMs - (this.#seconds[1]?.atMs ?? atMs) >= secondsKept * 1000) this.#seconds.shift();
  }
}
