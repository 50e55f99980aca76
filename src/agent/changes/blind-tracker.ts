// The lowest rungs: nothing sees the disk's writes, so everything counts as changed and only reading the disk tells what did.

import { granuleBytes } from "../../disk/geometry.ts";
import type { ChangeTracker, GranuleRun, Mark, Tracking } from "./tracker.ts";

/** Unknown means dirty: every span holds the whole disk. */
export class BlindTracker implements ChangeTracker {
  readonly isBlind = true;
  readonly isContinuous = false;
  readonly session: Uint8Array;
  readonly #granuleCount: number;
  readonly #reason: string;
  #hasBase: boolean;
  #mark = 0;

  constructor(options: {
    readonly sizeBytes: number;
    readonly newSession: Uint8Array;
    /** Whether there is a point that the disk can be compared with. */
    readonly hasBase: boolean;
    readonly whyNotBetter: string;
  }) {
    this.#reason = options.whyNotBetter.slice(0, 400);
    this.#hasBase = options.hasBase;
    this.session = options.newSession;
    this.#granuleCount = Math.ceil(options.sizeBytes / granuleBytes);
  }

  get tracking(): Tracking {
    return { rung: this.#hasBase ? "checksum" : "full", reason: this.#reason };
  }

  compact(): Promise<Mark> {
    return this.tick();
  }

  tick(): Promise<Mark> {
    this.#mark += 1;
    return Promise.resolve(this.#mark as Mark);
  }

  changed(): Iterable<GranuleRun> {
    return [{ first: 0, count: this.#granuleCount }];
  }

  acknowledge(): void {
    this.#hasBase = true; // Nothing was remembered, so nothing is forgotten.
  }

  remove(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}
