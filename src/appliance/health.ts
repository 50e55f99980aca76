// What is wrong at the moment: faults by their place, raised when they are seen and cleared when the place works again.

import { toReport, type Fault, type FaultReport } from "../contract/errors.ts";

const faultsMax = 100;

export class Health {
  readonly #faults = new Map<string, Fault>();

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

  reports(): FaultReport[] {
    return [...this.#faults.values()].map(toReport);
  }
}
