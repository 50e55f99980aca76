// Shows a move's steps as they happen, each with its time, and keeps the times for the report.

import { systemClock, type Clock } from "../../base/clock.ts";

export interface DoneStep {
  readonly name: string;
  readonly seconds: number;
}

/** Where the lines go: a terminal's last line may be rewritten. */
export interface Screen {
  readonly isTerminal: boolean;
  write(text: string): void;
}

/** Replaces the line under the running step. Elsewhere than at a terminal a line is printed, but not too often. */
export type Tell = (text: string) => void;

const quietMs = 5_000;

export class LiveSteps {
  readonly #screen: Screen;
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #done: DoneStep[] = [];
  #hasDetail = false;

  constructor(screen: Screen, clock: Clock = systemClock) {
    this.#screen = screen;
    this.#clock = clock;
    this.#startMs = clock.monotonicMs();
  }

  get done(): readonly DoneStep[] {
    return this.#done;
  }

  get seconds(): number {
    return toSeconds(this.#clock.monotonicMs() - this.#startMs);
  }

  async run<T>(name: string, task: (tell: Tell) => Promise<T>): Promise<T> {
    const startMs = this.#clock.monotonicMs();
    this.#line(`${this.#time()}  ▶ ${name}`);
    let told = "";
    let toldMs = -Infinity;
    const tell: Tell = (text) => {
      const nowMs = this.#clock.monotonicMs();
      if (text === told || (!this.#screen.isTerminal && nowMs - toldMs < quietMs)) return;
      told = text;
      toldMs = nowMs;
      if (this.#screen.isTerminal) this.#screen.write(`\r\u001B[K         ${text}`);
      else this.#screen.write(`${this.#time()}      ${text}\n`);
      this.#hasDetail = this.#screen.isTerminal;
    };
    let mark = "✖";
    try {
      const answer = await task(tell);
      mark = "✔";
      return answer;
    } finally {
      const seconds = toSeconds(this.#clock.monotonicMs() - startMs);
      if (mark === "✔") this.#done.push({ name, seconds });
      this.#line(`${this.#time()}  ${mark} ${name}: ${seconds.toFixed(1)} s`);
    }
  }

  /** A line of its own. */
  note(text: string): void {
    this.#line(`         ${text}`);
  }

  #line(text: string): void {
    this.#screen.write(`${this.#hasDetail ? "\r\u001B[K" : ""}${text}\n`);
    this.#hasDetail = false;
  }

  #time(): string {
    return clockText(this.seconds);
  }
}

/** "mm:ss", or hours before it. */
export function clockText(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number): string => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${two(minutes)}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

function toSeconds(ms: number): number {
  return Math.round(ms / 10) / 100;
}
