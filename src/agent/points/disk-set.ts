// DiskSet: the machine's disks while they are replicated, each with its tracker, and what mode the next point needs for each.

import type { DiskId, PointId } from "../../contract/ids.ts";
import { granuleBytes } from "../../disk/geometry.ts";
import type { ChangeTracker } from "../changes/tracker.ts";
import { differingRanges } from "../disks/ranges.ts";
import type { ReplicationState } from "../identity/state-folder.ts";
import { canKeepDigests, DigestTable } from "../sender/digest-table.ts";
import type { OpenDisk, Source } from "../source.ts";
import type { PointDisk } from "./make-point.ts";

type Base = ReplicationState["base"];

interface Entry {
  open: OpenDisk;
  readonly tracker: ChangeTracker;
  readonly session: string;
  /** Why a delta would not be enough; undefined when it is. */
  doubt: string | undefined;
  digests: DigestTable | undefined;
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
  async open(base: Base, excludedDiskIds: readonly DiskId[] = []): Promise<string> {
    const facts = await this.#source.facts();
    const wanted = facts.disks.filter((disk) => !excludedDiskIds.includes(disk.diskId));
    const present = new Set<string>(wanted.map((disk) => disk.diskId));
    for (const [diskId, entry] of this.#entries) if (!present.has(diskId)) await this.#drop(diskId, entry);
    if (this.#entries.size === 0) await this.#source.removeTrackersExcept([...present]);
    for (const disk of wanted) {
      const known = this.#entries.get(disk.diskId);
      if (known !== undefined && known.open.facts.sizeBytes === disk.sizeBytes) {
        const open = await this.#source.openDisk(disk);
        await known.open[Symbol.asyncDispose]();
        known.open = open;
        continue;
      }
      if (known !== undefined) await this.#drop(disk.diskId, known);
      const open = await this.#source.openDisk(disk);
      const before = base?.disks.find((one) => one.diskId === disk.diskId);
      const isSame = base !== undefined && base.bootId === facts.bootId && before?.sizeBytes === disk.sizeBytes;
      const { tracker, session } = await this.#source.openTracker(open, {
        session: isSame ? before?.session : undefined,
        hasBase: before !== undefined,
      });
      const doubt = tracker.isContinuous && isSame ? undefined : doubtOf(tracker, { base, bootId: facts.bootId, isSame });
      this.#entries.set(disk.diskId, { open, tracker, session, doubt, digests: undefined, dirtyBytes: disk.sizeBytes });
    }
    return facts.bootId;
  }

  plan(options: { readonly base: Base; readonly isVerify: boolean }): PointDisk[] {
    return this.list().map((entry) => {
      const before = options.base?.disks.find((disk) => disk.diskId === entry.open.facts.diskId);
      const { open, tracker, digests } = entry;
      if (before === undefined)
        return { open, tracker, digests, mode: "full", reason: "the disk has no recovery point yet", alsoChanged: [] };
      const alsoChanged = differingRanges(before.excluded, open.facts.excluded);
      if (entry.doubt !== undefined) return { open, tracker, digests, alsoChanged, mode: "checksum", reason: entry.doubt };
      if (options.isVerify) return { open, tracker, digests, alsoChanged, mode: "checksum", reason: "verification was ordered" };
      return { open, tracker, digests, alsoChanged, mode: "delta", reason: tracker.tracking.reason };
    });
  }

  baseOf(pointId: PointId, bootId: string): NonNullable<Base> {
    const disks = this.list().map(({ open: { facts }, session }) => ({
      diskId: facts.diskId,
      sizeBytes: facts.sizeBytes,
      excluded: facts.excluded,
      session,
    }));
    return { pointId, bootId, disks };
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

  get hasDigests(): boolean {
    return this.list().every((entry) => entry.digests !== undefined);
  }

  /** Counts what has changed since the base, for the state that people see. Makes marks void: only between points. */
  async measure(): Promise<void> {
    for (const entry of this.#entries.values()) {
      const until = await entry.tracker.compact();
      let granules = 0;
      for (const run of entry.tracker.changed({ until })) granules += run.count;
      entry.dirtyBytes = Math.min(granules * granuleBytes, entry.open.facts.sizeBytes);
    }
  }

  /** Closes everything; the kernel goes on tracking where it can. */
  async close(): Promise<void> {
    for (const entry of this.#entries.values()) {
      await entry.tracker[Symbol.asyncDispose]();
      await entry.open[Symbol.asyncDispose]();
    }
    this.#entries.clear();
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
  }
}

function doubtOf(tracker: ChangeTracker, seen: { readonly base: Base; readonly bootId: string; readonly isSame: boolean }): string {
  if (seen.base === undefined) return "tracking starts now";
  if (seen.base.bootId !== seen.bootId) return "the machine was restarted; changes during shutdown and boot were not seen";
  return seen.isSame ? tracker.tracking.reason : "the disk's size has changed";
}
