// The disks of a point whose writes nobody sees: read whole once more while everything is frozen, if that is short enough.

import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ChangeTracker } from "../changes/tracker.ts";
import { sendWholeDisk, type PassContext, type PassDisk } from "../sender/whole-disk-pass.ts";

export interface BlindDisk {
  readonly pass: PassDisk;
  readonly tracker: ChangeTracker;
}

/** How long the last pass over such a disk took: known from then on before a machine is frozen for it. */
const passMsOf = new WeakMap<ChangeTracker, number>();

export class BlindDisks {
  readonly #context: PassContext & { readonly clock: Clock };
  readonly #disks: readonly BlindDisk[];
  readonly #frozenMsMax: number;

  constructor(context: PassContext & { readonly clock: Clock }, disks: readonly BlindDisk[], frozenMsMax: number) {
    this.#context = context;
    this.#disks = disks.filter(({ tracker }) => tracker.isBlind);
    this.#frozenMsMax = frozenMsMax;
  }

  /** Throws when the passes would keep the machine frozen for too long. What was not measured yet is not known to be. */
  requireShort(): void {
    const passMs = this.#disks.reduce((sum, { tracker }) => sum + (passMsOf.get(tracker) ?? 0), 0);
    const [first] = this.#disks;
    if (first === undefined || passMs <= this.#frozenMsMax) return;
    const { diskId } = first.pass.open.facts;
    const { reason } = first.tracker.tracking;
    throw new Fault(
      "TrackingRefused",
      `could not make a point of the running machine: the changes of the disk ${diskId} cannot be tracked, and to read it while frozen takes ${Math.ceil(passMs / 1000)} s, longer than the ${Math.round(this.#frozenMsMax / 1000)} s that are allowed`,
      { evidence: { diskId, reason, passMs: Math.round(passMs), frozenMsMax: this.#frozenMsMax }, retry: "never" },
    );
  }

  /** Reads the disk whole, sends what the appliance lacks, and measures. */
  async pass({ pass, tracker }: BlindDisk): Promise<Set<number>> {
    const startMs = this.#context.clock.monotonicMs();
    const differing = await sendWholeDisk(this.#context, pass);
    passMsOf.set(tracker, this.#context.clock.monotonicMs() - startMs);
    return differing;
  }

  /** While all is frozen: afterwards the replica is these disks as they stand. */
  async passAll(): Promise<void> {
    for (const disk of this.#disks) await this.pass(disk);
  }
}
