// Hold: keeps the agent's own hands still while its machine's filesystems stand, and holds a quiesced machine until the decision or the end of its time.

import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import type { AgentLog } from "../log.ts";
import type { Freeze } from "../source.ts";
import type { MadePoint } from "./make-point.ts";

export interface HoldParts {
  readonly clock: Clock;
  readonly log: AgentLog;
  /** Resolves when what others write to files has been written: a write that a held machine stops halfway would stop its writer too. */
  readonly finishWrites?: () => Promise<void>;
}

interface Held {
  readonly freeze: Freeze;
  readonly made: MadePoint;
  readonly ending: AbortController;
}

export interface HoldEnd {
  readonly made: MadePoint;
  /** false: something had thawed the machine before, so what it wrote since is not in the point. */
  readonly isWhole: boolean;
  readonly frozenMs: number;
}

export class Hold {
  readonly #parts: HoldParts;
  #held: Held | undefined;
  /** From before the freeze of a final point until the thaw. */
  #isStill = false;

  constructor(parts: HoldParts) {
    this.#parts = parts;
  }

  /** A final point was made, and the machine stands. */
  get isOn(): boolean {
    return this.#held !== undefined;
  }

  /** Whether writing to a filesystem would block for long. */
  get isFrozen(): boolean {
    return this.#isStill && this.#held?.freeze.isHeld() !== false;
  }

  /** Nothing of the agent writes to a filesystem from here on. Under way may be what a short freeze only keeps waiting for as long. */
  async goStill(length: "short" | "long"): Promise<void> {
    this.#parts.log.hold();
    if (length === "short") return;
    this.#isStill = true;
    await this.#parts.finishWrites?.();
  }

  endStill(): void {
    this.#isStill = false;
    this.#parts.log.release();
  }

  /** To be called before anybody else has a turn to make a point. `onVoid` is called after msMax, unless it was ended by then. */
  begin(made: MadePoint, { msMax, onVoid }: { readonly msMax: number; readonly onVoid: () => Promise<void> }): void {
    const { freeze } = made;
    assert(freeze !== undefined && this.#held === undefined, "a final point stays frozen, and there is one at a time");
    const ending = new AbortController();
    this.#held = { freeze, made, ending };
    void this.#parts.clock.sleep(msMax, ending.signal).then(onVoid, () => undefined); // Ended before its time.
  }

  /** Thaws; undefined when nothing was held. */
  async end(): Promise<HoldEnd | undefined> {
    const held = this.#held;
    if (held === undefined) return undefined;
    this.#held = undefined;
    held.ending.abort();
    const outcome = await held.freeze.thaw();
    this.endStill();
    return { made: held.made, ...outcome };
  }
}
