// Rate and time left of a long copy, from what was copied at which moment. Pure.

import { formatBytes } from "../output.ts";
import { clockText } from "./live.ts";

const windowMs = 30_000;

/** Takes looks at a growing number; the rate is that of the last half minute. */
export class CopyMeter {
  readonly #looks: { readonly atMs: number; readonly bytes: number }[] = [];

  /** Answers a line for people: "1.2 GiB of 4.0 GiB, 52.0 MiB/s, 00:55 left". */
  look(atMs: number, copiedBytes: number, totalBytes: number): string {
    const last = this.#looks.at(-1);
    if (last !== undefined && copiedBytes < last.bytes) this.#looks.length = 0; // A new pass over the disks.
    this.#looks.push({ atMs, bytes: copiedBytes });
    while ((this.#looks[1]?.atMs ?? atMs) < atMs - windowMs) this.#looks.shift();
    const share = `${formatBytes(copiedBytes)} of ${formatBytes(totalBytes)}`;
    const first = this.#looks[0];
    if (first === undefined || first.atMs === atMs || copiedBytes === first.bytes) return share;
    const bytesPerSecond = (copiedBytes - first.bytes) / ((atMs - first.atMs) / 1000);
    const left = clockText((totalBytes - copiedBytes) / bytesPerSecond);
    return `${share}, ${formatBytes(Math.round(bytesPerSecond))}/s, ${left} left`;
  }
}
