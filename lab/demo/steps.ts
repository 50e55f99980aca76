// Runs the demo's steps one after the other, shows each live with its time, and keeps the times for the report.

import { systemClock } from "../../src/base/clock.ts";
import type { DemoStep } from "./report.ts";

export interface StepTeller {
  /** A line of detail under the running step. */
  (text: string): void;
}

/** Times steps; a failing step ends the demo with its own fault. */
export class StepRunner {
  readonly #steps: DemoStep[] = [];
  readonly #startMs = systemClock.monotonicMs();
  readonly #write: (text: string) => void;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  get steps(): readonly DemoStep[] {
    return this.#steps;
  }

  get seconds(): number {
    return round((systemClock.monotonicMs() - this.#startMs) / 1000);
  }

  async run<T>(name: string, task: (tell: StepTeller) => Promise<T>): Promise<T> {
    const startMs = systemClock.monotonicMs();
    this.#write(`${clockText(this.seconds)}  ▶ ${name}\n`);
    try {
      return await task((text) => this.#write(`${clockText(this.seconds)}      ${text}\n`));
    } finally {
      const seconds = round((systemClock.monotonicMs() - startMs) / 1000);
      this.#steps.push({ name, seconds });
      this.#write(`${clockText(this.seconds)}    ${name}: ${seconds} s\n`);
    }
  }
}

function round(seconds: number): number {
  return Math.round(seconds * 100) / 100;
}

/** "mm:ss". */
function clockText(seconds: number): string {
  const whole = Math.floor(seconds);
  return `${String(Math.floor(whole / 60)).padStart(2, "0")}:${String(whole % 60).padStart(2, "0")}`;
}
