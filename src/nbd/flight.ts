// Bounds what one connection has under way: a number of requests and a number of bytes.

import { bytesInFlightMax, requestsInFlightMax } from "./limits.ts";

/** Counts running requests. One caller at a time waits for room. */
export class Flight {
  #requests = 0;
  #bytes = 0;
  #wake: (() => void) | undefined;

  /** Starts `task` as soon as there is room for it; resolves at its start, not at its end. The task must not reject. */
  async launch(costBytes: number, task: () => Promise<void>): Promise<void> {
    while (!this.#hasRoom(costBytes)) await this.#change();
    this.#requests += 1;
    this.#bytes += costBytes;
    void task().finally(() => {
      this.#requests -= 1;
      this.#bytes -= costBytes;
      this.#wake?.();
    });
  }

  /** Resolves when nothing is under way. */
  async land(): Promise<void> {
    while (this.#requests > 0) await this.#change();
  }

  /** One request is always let through, however big. */
  #hasRoom(costBytes: number): boolean {
    if (this.#requests === 0) return true;
    return this.#requests < requestsInFlightMax && this.#bytes + costBytes <= bytesInFlightMax;
  }

  async #change(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}
