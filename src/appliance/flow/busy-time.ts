// BusyTime: for how long at least so many things were under way.

import type { Clock } from "../../base/clock.ts";

export class BusyTime {
  readonly #clock: Clock;
  readonly #levelMin: number;
  #level = 0;
  #totalMs = 0;
  #sinceMs = 0;

  constructor(clock: Clock, levelMin = 1) {
    this.#clock = clock;
    this.#levelMin = levelMin;
  }

  get isBusy(): boolean {
    return this.#level >= this.#levelMin;
  }

  get totalMs(): number {
    return this.#totalMs + (this.isBusy ? this.#clock.monotonicMs() - this.#sinceMs : 0);
  }

  begin(): void {
    this.#level += 1;
    if (this.#level === this.#levelMin) this.#sinceMs = this.#clock.monotonicMs();
  }

  end(): void {
    if (this.#level === this.#levelMin) this.#totalMs += this.#clock.monotonicMs() - this.#sinceMs;
    this.#level -= 1;
  }

  async during<T>(task: () => Promise<T>): Promise<T> {
    this.begin();
    try {
      return await task();
    } finally {
      this.end();
    }
  }
}
