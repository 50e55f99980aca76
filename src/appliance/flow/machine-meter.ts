// MachineMeter: counts what one machine's data connection does, and remembers how its counts stood, for rates and shares.

import type { Clock } from "../../base/clock.ts";
import type { AgentState } from "../../contract/agent-control.ts";
import { BusyTime } from "./busy-time.ts";

interface Counts {
  readonly atMs: number;
  readonly activeMs: number;
  readonly answeringMs: number;
  readonly heldBackMs: number;
  readonly storageFullMs: number;
  /** Bytes of the source that were announced or came. */
  readonly sourceBytes: number;
  readonly wireBytes: number;
  /** Of these, pieces that had changed since a point before. */
  readonly changedBytes: number;
  readonly dirtyBytes: number;
  readonly laneMs: AgentState["laneMs"];
}

/** Stage shares are of the last minute, churn and throughput of the last quarter of an hour. */
const shortWindow = { everyMs: 5_000, keptMs: 60_000 };
const longWindow = { everyMs: 30_000, keptMs: 900_000 };

export class MachineMeter {
  readonly answering: BusyTime;
  readonly heldBack: BusyTime;
  readonly #active: BusyTime;
  readonly #clock: Clock;
  readonly #storageFullMs: () => number;
  readonly #short: Counts[] = [];
  readonly #long: Counts[] = [];
  #sourceBytes = 0;
  #wireBytes = 0;
  #changedBytes = 0;
  /** Of the point under way. */
  #point = { changedBytes: 0, sourceBytes: 0, endedMs: undefined as number | undefined };
  #state: AgentState | undefined;
  #dirtyBytes = 0;
  #endMs: number | undefined;
  #lastSealMs: number | undefined;
  /** Of the phase before; until more is known. */
  #lastThroughput: number | undefined;

  constructor(clock: Clock, storageFullMs: () => number) {
    this.#clock = clock;
    this.#storageFullMs = storageFullMs;
    this.answering = new BusyTime(clock);
    this.heldBack = new BusyTime(clock);
    this.#active = new BusyTime(clock);
  }

  get state(): AgentState | undefined {
    return this.#state;
  }

  /** When the end of the newest sealed point came, monotonic; undefined when none was sealed since the start. */
  get newestEndMs(): number | undefined {
    return this.#endMs;
  }

  get lastSealMs(): number | undefined {
    return this.#lastSealMs;
  }

  /** What the agent last said has changed and no point has. */
  get dirtyBytes(): number {
    return Math.max(0, this.#dirtyBytes - this.#point.changedBytes);
  }

  /** What of the changes of so many seconds is still to come; undefined while no point is under way, when the agent counts by itself. */
  leftOf(changedBytes: number): number | undefined {
    return this.#active.isBusy ? Math.max(0, changedBytes - this.#point.changedBytes) : undefined;
  }

  noteState(state: AgentState): void {
    // Another way of finding changes: what was counted before says nothing of what comes.
    if (this.#state !== undefined && this.#state.phase !== state.phase) {
      this.#lastThroughput = this.rates().throughput;
      this.#long.splice(0);
    }
    this.#state = state;
    // While a point is under way the agent does not count anew.
    if (!this.#active.isBusy) this.#dirtyBytes = state.disks.reduce((sum, disk) => sum + disk.dirtyBytes, 0);
    this.#sample();
  }

  pointBegan(): void {
    this.#point = { changedBytes: 0, sourceBytes: 0, endedMs: undefined };
    this.#active.begin();
    this.#sample();
  }

  tookIds(bytes: number): void {
    this.#sourceBytes += bytes;
    this.#point.sourceBytes += bytes;
  }

  tookChanges(bytes: number): void {
    this.tookIds(bytes);
    this.#changedBytes += bytes;
    this.#point.changedBytes += bytes;
  }

  received(bytes: number): void {
    this.#wireBytes += bytes;
  }

  /** Every byte of the point is here; what follows is the seal. */
  pointEnded(): void {
    this.#point.endedMs = this.#clock.monotonicMs();
  }

  /** A point that was not sealed is sent again: its changes are not to be counted twice. */
  pointClosed(outcome: "sealed" | "dropped"): void {
    const { endedMs, changedBytes } = this.#point;
    if (outcome === "sealed") {
      this.#endMs = endedMs;
      if (endedMs !== undefined) this.#lastSealMs = this.#clock.monotonicMs() - endedMs;
      this.#dirtyBytes = 0;
    } else this.#changedBytes -= changedBytes;
    this.#point = { changedBytes: 0, sourceBytes: 0, endedMs: undefined };
    this.#active.end();
    this.#sample();
  }

  /** What came to the counts in the last minute. */
  lastMinute(): Counts {
    return differenceOf(this.#counts(), this.#short[0]);
  }

  /** Bytes a second that change and that are moved, and wire bytes for each source byte; undefined: not known yet. */
  rates(): { readonly churn: number | undefined; readonly throughput: number | undefined; readonly wireShare: number } {
    const now = this.#counts();
    const since = differenceOf(now, this.#long[0]);
    const isTracked = this.#state?.phase === "delta" && this.#long.length > 0;
    return {
      churn: isTracked && since.atMs >= churnMsMin ? (Math.max(0, since.changedBytes + since.dirtyBytes) / since.atMs) * 1000 : undefined,
      throughput:
        since.activeMs > 0 && since.sourceBytes >= throughputBytesMin ? (since.sourceBytes / since.activeMs) * 1000 : this.#lastThroughput,
      wireShare: now.sourceBytes === 0 ? 1 : now.wireBytes / now.sourceBytes,
    };
  }

  #sample(): void {
    const counts = this.#counts();
    keep(this.#short, counts, shortWindow);
    // Between points only: inside one it is not clear what of the dirty bytes was moved.
    if (!this.#active.isBusy || this.#long.length === 0) keep(this.#long, counts, longWindow);
  }

  #counts(): Counts {
    return {
      atMs: this.#clock.monotonicMs(),
      activeMs: this.#active.totalMs,
      answeringMs: this.answering.totalMs,
      heldBackMs: this.heldBack.totalMs,
      storageFullMs: this.#storageFullMs(),
      sourceBytes: this.#sourceBytes,
      wireBytes: this.#wireBytes,
      changedBytes: this.#changedBytes,
      dirtyBytes: this.dirtyBytes,
      laneMs: this.#state?.laneMs,
    };
  }
}

/** Less says little. */
const churnMsMin = 5_000;
const throughputBytesMin = 1 << 20;

function keep(kept: Counts[], counts: Counts, window: { readonly everyMs: number; readonly keptMs: number }): void {
  const last = kept.at(-1);
  if (last !== undefined && counts.atMs - last.atMs < window.everyMs) return;
  kept.push(counts);
  while (kept.length > 1 && counts.atMs - (kept[1]?.atMs ?? counts.atMs) >= window.keptMs) kept.shift();
}

function differenceOf(now: Counts, before: Counts | undefined): Counts {
  const of = (pick: (counts: Counts) => number): number => pick(now) - (before === undefined ? 0 : pick(before));
  const lane = (name: keyof NonNullable<Counts["laneMs"]>): number => {
    const end = now.laneMs?.[name] ?? 0;
    const start = before?.laneMs?.[name] ?? 0;
    return end >= start ? end - start : end; // The agent was restarted in between.
  };
  return {
    atMs: before === undefined ? 0 : of(({ atMs }) => atMs),
    activeMs: of(({ activeMs }) => activeMs),
    answeringMs: of(({ answeringMs }) => answeringMs),
    heldBackMs: of(({ heldBackMs }) => heldBackMs),
    storageFullMs: of(({ storageFullMs }) => storageFullMs),
    sourceBytes: of(({ sourceBytes }) => sourceBytes),
    wireBytes: of(({ wireBytes }) => wireBytes),
    changedBytes: of(({ changedBytes }) => changedBytes),
    dirtyBytes: of(({ dirtyBytes }) => dirtyBytes),
    laneMs: now.laneMs === undefined ? undefined : { read: lane("read"), work: lane("work"), wait: lane("wait"), pause: lane("pause") },
  };
}
