// DiskSet: the machine's disks while they are replicated, each with its tracker, and what mode the next point needs for each.

import { isDeepStrictEqual } from "node:util";
import { Fault } from "../../contract/errors.ts";
import type { DiskId, PointId } from "../../contract/ids.ts";
import { granuleBytes } from "../../disk/geometry.ts";
import { countGranules, type ChangeTracker } from "../changes/tracker.ts";
import { differingRanges } from "../disks/ranges.ts";
import type { ReplicationState } from "../identity/state-folder.ts";
import { canKeepDigests, DigestTable } from "../sender/digest-table.ts";
import { PassRecord, removePassRecords } from "../sender/pass-record.ts";
import type { OpenDisk, Source } from "../source.ts";
import type { PointDisk } from "./make-point.ts";

type Base = ReplicationState["base"];
type Passing = ReplicationState["passing"];

interface OpenedState extends Pick<ReplicationState, "base" | "passing"> {
  readonly excludedDiskIds?: readonly DiskId[] | undefined;
}

interface Entry {
  open: OpenDisk;
  readonly tracker: ChangeTracker;
  readonly session: string;
  /** Why a delta would not be enough; undefined when it is. */
  doubt: string | undefined;
  digests: DigestTable | undefined;
  /** Whether the tracker goes on from the begin of a pass that was broken off. */
  goesOn: boolean;
  record: PassRecord | undefined;
  dirtyBytes: number;
}

export class DiskSet {
  readonly #source: Source;
  readonly #entries = new Map<string, Entry>();

  constructor(source: Source) {
    this.#source = source;
  }

  list(): readonly Entry[] {
    return [...this.#entries.values()];
  }

  /** Opens what is new, closes what is gone or left out, tells grown disks; answers the boot id. */
  async open(state: OpenedState): Promise<string> {
    const { base, passing, excludedDiskIds = [] } = state;
    const facts = await this.#source.facts();
    const wanted = facts.disks.filter((disk) => !excludedDiskIds.includes(disk.diskId));
    const present = new Set<string>(wanted.map((disk) => disk.diskId));
    for (const [diskId, entry] of this.#entries) if (!present.has(diskId)) await this.#drop(diskId, entry);
    if (this.#entries.size === 0) await this.#source.removeTrackersExcept([...present]);
    for (const disk of wanted) {
      const known = this.#entries.get(disk.diskId);
      const open = await this.#source.openDisk(disk);
      if (known !== undefined && known.open.facts.sizeBytes === disk.sizeBytes && known.open.attachment === open.attachment) {
        await known.open[Symbol.asyncDispose]();
        known.open = open;
        continue;
      }
      if (known !== undefined) await this.#drop(disk.diskId, known);
      this.#entries.set(disk.diskId, await this.#track(open, { base, passing, bootId: facts.bootId }));
    }
    return facts.bootId;
  }

  async #track(open: OpenDisk, known: { readonly base: Base; readonly passing: Passing; readonly bootId: string }): Promise<Entry> {
    const { facts, attachment } = open;
    const isSame = (state: Base | Passing): string | undefined => {
      const disk = state?.disks.find((one) => one.diskId === facts.diskId);
      const isIt = state?.bootId === known.bootId && disk?.sizeBytes === facts.sizeBytes && disk.attachment === attachment;
      return isIt ? disk.session : undefined;
    };
    const before = known.base?.disks.find((one) => one.diskId === facts.diskId);
    // While a pass is under way the tracker counts from its begin, not from the base.
    const passSession = isSame(known.passing);
    const baseSession = isSame(known.base);
    const { tracker, session } = await this.#source.openTracker(open, {
      session: passSession ?? baseSession,
      hasBase: before !== undefined,
    });
    const goesOn = tracker.isContinuous && passSession !== undefined;
    const isTrusted = tracker.isContinuous && passSession === undefined && baseSession !== undefined;
    const doubt = isTrusted ? undefined : doubtOf({ ...known, tracker, goesOn, isSame: baseSession !== undefined, before, facts });
    return { open, tracker, session, doubt, digests: undefined, goesOn, record: undefined, dirtyBytes: facts.sizeBytes };
  }

  plan(options: { readonly base: Base; readonly isVerify: boolean }): PointDisk[] {
    return this.list().map((entry) => {
      const before = options.base?.disks.find((disk) => disk.diskId === entry.open.facts.diskId);
      const { open, tracker, digests, record } = entry;
      if (before === undefined)
        return { open, tracker, digests, record, mode: "full", reason: "the disk has no recovery point yet", alsoChanged: [] };
      const alsoChanged = differingRanges(before.excluded, open.facts.excluded);
      if (entry.doubt !== undefined) return { open, tracker, digests, record, alsoChanged, mode: "checksum", reason: entry.doubt };
      if (options.isVerify) return { open, tracker, digests, record, alsoChanged, mode: "checksum", reason: "verification was ordered" };
      return { open, tracker, digests, record, alsoChanged, mode: "delta", reason: tracker.tracking.reason };
    });
  }

  baseOf(pointId: PointId, bootId: string): NonNullable<Base> {
    return { pointId, bootId, disks: this.list().map(trackedDiskOf) };
  }

  /**
   * Lets the disks that have to be read whole keep what was read, across cuts and restarts of the agent. Answers what has to be
   * durable before the pass begins, so that its tracking is known again; undefined when no disk is to be read whole.
   */
  async keepPasses(stateFolder: string, state: { readonly base: Base; readonly bootId: string }): Promise<Passing> {
    const has = (entry: Entry): boolean => state.base?.disks.some((disk) => disk.diskId === entry.open.facts.diskId) === true;
    const whole = this.list().filter((entry) => !entry.tracker.isBlind && (entry.doubt !== undefined || !has(entry)));
    for (const entry of whole) {
      const { diskId, sizeBytes, excluded } = entry.open.facts;
      const subject = { diskId, sizeBytes, session: entry.session, excluded: JSON.stringify(excluded) };
      if (isDeepStrictEqual(entry.record?.subject, subject)) continue;
      await entry.record?.[Symbol.asyncDispose]();
      entry.record = await PassRecord.open(stateFolder, subject, entry.goesOn && entry.record === undefined ? "goOn" : "anew");
    }
    return whole.length === 0 ? undefined : { bootId: state.bootId, disks: whole.map(trackedDiskOf) };
  }

  /** After a sealed point: what passes had read is of no more use. */
  async forgetPasses(stateFolder: string): Promise<void> {
    for (const entry of this.#entries.values()) {
      await entry.record?.[Symbol.asyncDispose]();
      entry.record = undefined;
      entry.goesOn = false;
    }
    await removePassRecords(stateFolder);
  }

  /** The point that was just sealed is the base of what the trackers see. */
  trust(): void {
    for (const entry of this.#entries.values()) {
      entry.doubt = entry.tracker.isBlind ? entry.tracker.tracking.reason : undefined;
      entry.dirtyBytes = 0;
    }
  }

  distrust(why: string): void {
    for (const entry of this.#entries.values()) entry.doubt = why;
  }

  /** Gives each disk a table of digests, when the machine is small enough for it. */
  keepDigests(): void {
    const entries = this.list();
    if (!canKeepDigests(entries.map((entry) => entry.open.facts.sizeBytes))) return;
    for (const entry of entries) entry.digests ??= new DigestTable(entry.open.facts.sizeBytes);
  }

  dropDigests(why: string): void {
    for (const entry of this.#entries.values()) entry.digests = undefined;
    this.distrust(why);
  }

  /** Whether nobody sees what is written to some disk. */
  get isBlind(): boolean {
    return this.list().some((entry) => entry.tracker.isBlind);
  }

  /** Throws when what is written to some disk cannot be counted. */
  requireSeen(): void {
    for (const { open, tracker } of this.#entries.values())
      if (tracker.isBlind)
        throw new Fault("TrackingRefused", `could not count what is written to the disk ${open.facts.diskId}: nothing sees it`, {
          evidence: { diskId: open.facts.diskId, reason: tracker.tracking.reason },
          retry: "never",
        });
  }

  get hasDigests(): boolean {
    return this.list().every((entry) => entry.digests !== undefined);
  }

  /** Counts what has changed since the base, for the state that people see. Makes marks void: only between points. */
  async measure(): Promise<void> {
    for (const entry of this.#entries.values()) {
      const { sizeBytes } = entry.open.facts;
      // A tracker that lost events: all of the disk may have changed, and the next point deals with it.
      entry.dirtyBytes = await countChanged(entry).catch(() => sizeBytes);
    }
  }

  /** Closes everything; the kernel goes on tracking where it can. */
  async close(): Promise<void> {
    for (const entry of this.#entries.values()) {
      await entry.tracker[Symbol.asyncDispose]();
      await entry.open[Symbol.asyncDispose]();
      await entry.record?.[Symbol.asyncDispose]();
    }
    this.#entries.clear();
  }

  /** Ends the tracking of a disk that lost changes: it is tracked anew and compared whole, the others go on. All of it if none is named. */
  async untrack(diskId: unknown): Promise<void> {
    const entry = typeof diskId === "string" ? this.#entries.get(diskId) : undefined;
    if (typeof diskId !== "string" || entry === undefined) return await this.remove();
    await this.#drop(diskId, entry);
  }

  /** Ends all tracking. */
  async remove(): Promise<void> {
    for (const [diskId, entry] of this.#entries) await this.#drop(diskId, entry);
    await this.#source.removeTrackersExcept([]);
  }

  async #drop(diskId: string, entry: Entry): Promise<void> {
    this.#entries.delete(diskId);
    await entry.tracker.remove();
    await entry.open[Symbol.asyncDispose]();
    await entry.record?.[Symbol.asyncDispose]();
  }
}

async function countChanged({ tracker, open }: Entry): Promise<number> {
  const until = await tracker.compact();
  return Math.min(countGranules(tracker.changed({ until })) * granuleBytes, open.facts.sizeBytes);
}

function trackedDiskOf({ open: { facts, attachment }, session }: Entry): NonNullable<Base>["disks"][number] {
  return { diskId: facts.diskId, sizeBytes: facts.sizeBytes, excluded: facts.excluded, session, attachment };
}

function doubtOf(seen: {
  readonly tracker: ChangeTracker;
  readonly base: Base;
  readonly bootId: string;
  readonly before: { readonly sizeBytes: number } | undefined;
  readonly facts: { readonly sizeBytes: number };
  readonly isSame: boolean;
  readonly goesOn: boolean;
}): string {
  if (seen.goesOn) return "a pass over the whole disk was broken off and goes on";
  if (seen.base === undefined) return "tracking starts now";
  if (seen.base.bootId !== seen.bootId) return "the machine was restarted; changes during shutdown and boot were not seen";
  if (seen.isSame) return seen.tracker.tracking.reason;
  return seen.before?.sizeBytes === seen.facts.sizeBytes ? "the disk was taken off and put on again" : "the disk's size has changed";
}
