// One file of lines that several processes append to: who ran when. Two machines that run at once show in it.

import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";

export type Side = "source" | "target";

export class Journal {
  readonly #path: string;

  constructor(folder: string) {
    this.#path = join(folder, "journal");
    appendFileSync(this.#path, "");
  }

  /** "on" is written before a machine begins to run, "off" after it has ended: what the file shows is never milder than what was. */
  append(side: Side, machine: string, power: "on" | "off"): void {
    appendFileSync(this.#path, `${side} ${machine} ${power}\n`);
  }

  /** Lines, and whether a source ever ran together with its target (test machines, which have other names, do not count). */
  read(machine: string): { readonly lines: readonly string[]; readonly ranBoth: boolean } {
    const lines = readFileSync(this.#path, "utf8")
      .split("\n")
      .filter((line) => line.split(" ")[1] === machine);
    const running = { source: false, target: false };
    let ranBoth = false;
    for (const line of lines) {
      const [side, , power] = line.split(" ");
      running[side as Side] = power === "on"; // Only append writes the file.
      ranBoth ||= running.source && running.target;
    }
    return { lines, ranBoth };
  }
}
