// What is wrong at the moment: faults by their place, raised when they are seen and cleared when the place works again.

import { toReport, type Fault, type FaultReport } from "../contract/errors.ts";

const faultsMax = 100;

export class Health {
  readonly #faults = new Map<string, Fault>();
  readonly #judges: (() => Fault | undefined)[] = [];

  /** undefined clears the place. */
  set(place: string, fault: Fault | undefined): void {
    this.#faults.delete(place);
    if (fault === undefined) return;
    this.#faults.set(place, fault);
    const oldest = this.#faults.keys().next();
    if (this.#faults.size > faultsMax && oldest.done !== true) this.#faults.delete(oldest.value);
  }

  /** Clears every place whose name begins so. */
  clear(prefix: string): void {
    for (const place of [...this.#faults.keys()]) if (place.startsWith(prefix)) this.#faults.delete(place);
  }

  has(place: string): boolean {
    return this.#faults.has(place);
  }

  /** For what becomes wrong by the passing of time alone: asked with each report. */
  watch(judge: () => Fault | undefined): void {
    this.#judges.push(judge);
  }

  reports(): FaultReport[] {
    const judged = this.#judges.flatMap((judge) => judge() ?? []);
    return [...this.#faults.values(), ...judged].map(toReport);
  }
}
