// PackingChoice: how hard blocks are packed. Harder while lanes wait for the line and processors have nothing to do; never at the cost of speed.

import type { LaneTimes } from "./lane-times.ts";

/** Levels of zstd with what they cost beside the first. Of a system's files the second saves 3 % of the bytes, the third 6 %. */
const steps = [
  { level: 1, cost: 1 },
  { level: 4, cost: 1.3 },
  { level: 6, cost: 3.5 },
] as const;

/** It is looked at so often. */
const spanMs = 2000;
/** A harder step is tried when it is expected to keep the processors busy for at most this share of the time. */
const busyShareMax = 0.5;
/** An easier one is taken when they are busy for more than this. */
const tooBusyShare = 0.8;
/** A harder step is taken when so many looks in a row found room for it: a short copy has no time to win, and a disk that hiccups is no slow line. */
const looksMin = 3;
/** Lanes that wait for the line: so much of their time for a harder step, and to stay there. */
const [waitShareMin, waitShareKept] = [0.5, 0.25];
/** Pauses say that the machine's own programs want its processors. */
const pauseShareMax = 0.05;
/** After a step back no harder one is tried for so long; twice as long each time, so that it does not flap. */
const [holdMsMin, holdMsMax] = [60_000, 3_600_000];

export class PackingChoice {
  readonly #times: LaneTimes;
  readonly #processors: number;
  #step = 0;
  #seen: { readonly atMs: number; readonly spentMs: LaneTimes["spentMs"] };
  #holdMs = holdMsMin;
  #heldUntilMs = 0;
  #looksWithRoom = 0;

  /** `processors`: threads that do the work of the lanes. */
  constructor(times: LaneTimes, processors: number) {
    this.#times = times;
    this.#processors = processors;
    this.#seen = { atMs: times.nowMs, spentMs: times.spentMs };
  }

  /** Of zstd, for what is packed now. */
  get level(): number {
    const nowMs = this.#times.nowMs;
    if (nowMs - this.#seen.atMs >= spanMs) this.#look(nowMs);
    return steps[this.#step]?.level ?? 1;
  }

  #look(nowMs: number): void {
    const { atMs, spentMs: before } = this.#seen;
    const { spentMs } = this.#times;
    this.#seen = { atMs: nowMs, spentMs };
    const spent = (on: keyof typeof spentMs): number => spentMs[on] - before[on];
    const laneMs = spent("read") + spent("work") + spent("wait") + spent("pause");
    const elapsedMs = nowMs - atMs;
    if (laneMs < elapsedMs) return; // Between points, or nearly: it says nothing about a line.
    const busyShare = spent("work") / (elapsedMs * this.#processors);
    const [waitShare, pauseShare] = [spent("wait") / laneMs, spent("pause") / laneMs];
    const [now, next] = [steps[this.#step], steps[this.#step + 1]];
    if (this.#step > 0 && (busyShare > tooBusyShare || waitShare < waitShareKept || pauseShare > pauseShareMax)) {
      this.#step -= 1;
      this.#looksWithRoom = 0;
      this.#heldUntilMs = nowMs + this.#holdMs;
      this.#holdMs = Math.min(this.#holdMs * 2, holdMsMax);
      return;
    }
    if (now === undefined || next === undefined || nowMs < this.#heldUntilMs) return;
    const isRoom = (busyShare * next.cost) / now.cost <= busyShareMax;
    this.#looksWithRoom = isRoom && waitShare >= waitShareMin && pauseShare <= pauseShareMax ? this.#looksWithRoom + 1 : 0;
    if (this.#looksWithRoom < looksMin) return;
    this.#step += 1;
    this.#looksWithRoom = 0;
  }
}
