// Rounds of a point: what changed on all disks since the last look, sent at once or read into memory first.

import type { Clock } from "../../base/clock.ts";
import { granuleBytes } from "../../disk/geometry.ts";
import { countGranules, type ChangeTracker, type GranuleRun, type Mark } from "../changes/tracker.ts";
import { withoutExcluded } from "../disks/ranges.ts";
import { readRuns, sendBatch, sendRuns, type DigestUse, type ReadBatch } from "../sender/granule-pass.ts";
import type { PassContext, PassDisk } from "../sender/whole-disk-pass.ts";

export interface RoundDisk {
  readonly pass: PassDisk;
  readonly tracker: ChangeTracker;
}

export interface Round {
  readonly since: readonly (Mark | undefined)[];
  readonly until: readonly Mark[];
}

/** What is assumed of a disk's speed before it was measured: 16 MiB/s. */
export const readBytesPerMsMin = 16_384;
const measuredBytesMin = 1 << 20;

export class Rounds {
  readonly #context: PassContext & { readonly clock: Clock };
  readonly #disks: readonly RoundDisk[];
  readonly #use: DigestUse;
  #marks: readonly Mark[] = [];
  #readBytesPerMs = readBytesPerMsMin;

  constructor(context: PassContext & { readonly clock: Clock }, disks: readonly RoundDisk[], use: DigestUse) {
    this.#context = context;
    this.#disks = disks;
    this.#use = use;
  }

  /** The first of all, which has everything since the base. Earlier marks become void. */
  async begin(): Promise<readonly Mark[]> {
    this.#marks = await Promise.all(this.#disks.map(({ tracker }) => tracker.compact()));
    return this.#marks;
  }

  /** What changed since the last round that was sent or read. */
  async next(): Promise<Round> {
    return { since: this.#marks, until: await Promise.all(this.#disks.map(({ tracker }) => tracker.tick())) };
  }

  async send(round: Round): Promise<void> {
    for (const [index, { pass }] of this.#disks.entries())
      await sendRuns(this.#context, pass, { runs: this.#runsOf(round, index), use: this.#use });
    await this.#context.link.roundEnd();
    this.#marks = round.until;
  }

  /** Reads into memory; to be sent with sendHeld in the order of the reads, before any later round. */
  async read(round: Round): Promise<ReadBatch[]> {
    const buffer = this.#context.lanes[0]?.raw;
    if (buffer === undefined) throw new Error("assertion failed: there is a lane");
    const batches: ReadBatch[] = [];
    const startMs = this.#context.clock.monotonicMs();
    for (const [index, { pass }] of this.#disks.entries())
      batches.push(...(await readRuns(this.#context, pass, { runs: this.#runsOf(round, index), buffer, use: this.#use })));
    this.#marks = round.until;
    const bytes = bytesOfHeld([batches]);
    if (bytes >= measuredBytesMin) this.#readBytesPerMs = bytes / Math.max(1, this.#context.clock.monotonicMs() - startMs);
    return batches;
  }

  async sendHeld(held: readonly (readonly ReadBatch[])[]): Promise<void> {
    for (const round of held) {
      for (const batch of round) await sendBatch(this.#context, batch);
      await this.#context.link.roundEnd();
    }
  }

  bytesOf(round: Round): number {
    return this.#disks.reduce((sum, _, index) => sum + countGranules(this.#runsOf(round, index)) * granuleBytes, 0);
  }

  /** How long it will take to read so much, by what reading took before. */
  readMsOf(bytes: number): number {
    return bytes / this.#readBytesPerMs;
  }

  /** Forgets everything up to the last round. */
  acknowledge(): void {
    for (const [index, { tracker }] of this.#disks.entries()) {
      const mark = this.#marks[index];
      if (mark !== undefined) tracker.acknowledge(mark);
    }
  }

  #runsOf(round: Round, index: number): Iterable<GranuleRun> {
    const disk = this.#disks[index];
    const until = round.until[index];
    if (disk === undefined || until === undefined || disk.tracker.isBlind) return [];
    const since = round.since[index];
    const { tracker, pass } = disk;
    return withoutExcluded(tracker.changed({ until, ...(since === undefined ? {} : { since }) }), pass.open.facts.excluded);
  }
}

export function bytesOfHeld(held: readonly (readonly ReadBatch[])[]): number {
  return held.flat().reduce((sum, batch) => sum + batch.raw.length, 0);
}
