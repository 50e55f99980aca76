// The disks of a point whose writes nobody sees: read whole once more while everything is frozen, if that is short enough.

import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ChangeTracker } from "../changes/tracker.ts";
import { sendWholeDisk, type PassContext, type PassDisk } from "../sender/whole-disk-pass.ts";

export interface BlindDisk {
  readonly pass: PassDisk;
  readonly tracker: ChangeTracker;
}

interface Passes {
  /** How long the last two took, the newest first. A pass is long also because the machine stood still meanwhile. */
  readonly tookMs: readonly number[];
  readonly endedMs: number;
}

/** Known from then on before a machine is frozen for such a disk. */
const passesOf = new WeakMap<ChangeTracker, Passes>();
/** What is older is measured again. */
const passAgeMsMax = 3_600_000;

export class BlindDisks {
  readonly #context: PassContext & { readonly clock: Clock };
  readonly #disks: readonly BlindDisk[];
  readonly #frozenMsMax: number;

  constructor(context: PassContext & { readonly clock: Clock }, disks: readonly BlindDisk[], frozenMsMax: number) {
    this.#context = context;
    this.#disks = disks.filter(({ tracker }) => tracker.isBlind);
    this.#frozenMsMax = frozenMsMax;
  }

  /** Before anything is read: throws when two passes of late have shown that the machine would be frozen for too long. */
  requireNotLong(): void {
    const sinceMs = this.#context.clock.monotonicMs() - passAgeMsMax;
    const isKnown = ({ endedMs, tookMs }: Passes): boolean => endedMs >= sinceMs && tookMs.length > 1;
    if (this.#disks.every(({ tracker }) => isKnown(passesOf.get(tracker) ?? { tookMs: [], endedMs: 0 }))) this.requireShort();
  }

  /** Throws when the passes would keep the machine frozen for too long, by the shorter ones of those that were measured. */
  requireShort(): void {
    const passMs = this.#disks.reduce((sum, { tracker }) => sum + Math.min(...(passesOf.get(tracker)?.tookMs ?? [0])), 0);
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
    const endedMs = this.#context.clock.monotonicMs();
    passesOf.set(tracker, { tookMs: [endedMs - startMs, ...(passesOf.get(tracker)?.tookMs ?? [])].slice(0, 2), endedMs });
    return differing;
  }

  /** While all is frozen: afterwards the replica is these disks as they stand. */
  async passAll(): Promise<void> {
    for (const disk of this.#disks) await this.pass(disk);
  }
}
