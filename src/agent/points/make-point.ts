// Makes one recovery point: rounds on the running machine until little is left, then a freeze, the last changes, and the seal.

import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import { agentProtocolVersion, type ApplicationOutcome, type Pause } from "../../contract/agent-control.ts";
import type { BeginPoint, EndPoint, MeetingOutcome, SealedPoint } from "../../contract/agent-frames.ts";
import { parseDigestHex, type DiskId, type PointId } from "../../contract/ids.ts";
import { granulesPerBlock } from "../../disk/geometry.ts";
import type { ChangeTracker } from "../changes/tracker.ts";
import { joinRuns, runsOfRanges, withoutExcluded, type ByteRange } from "../disks/ranges.ts";
import type { DigestTable } from "../sender/digest-table.ts";
import { refreshDigests, sendRuns, type DigestUse, type ReadBatch } from "../sender/granule-pass.ts";
import { BlindDisks } from "./blind-disks.ts";
import { bytesOfHeld, readBytesPerMsMin, Rounds } from "./rounds.ts";
import type { PassRecord } from "../sender/pass-record.ts";
import { sendWholeDisk, type PassContext, type PassDisk } from "../sender/whole-disk-pass.ts";
import type { ApplicationRest, ArmedFreeze, Freeze, OpenDisk, Source } from "../source.ts";

export interface PointDisk {
  readonly open: OpenDisk;
  readonly tracker: ChangeTracker;
  readonly mode: BeginPoint["disks"][number]["mode"];
  readonly reason: string;
  /** Ranges that are changed though nobody wrote them: what became or ceased to be excluded, a grown tail. */
  readonly alsoChanged: readonly ByteRange[];
  readonly digests: DigestTable | undefined;
  /** What a broken-off pass over the whole disk had read. */
  readonly record: PassRecord | undefined;
}

export interface PointPlan {
  readonly pointId: PointId;
  readonly bootId: string;
  readonly basePointId: PointId | undefined;
  /** application: a point without the applications' rest is made, and says so, when they cannot be brought to it. */
  readonly consistency: "crash" | "application" | "final";
  readonly disks: readonly PointDisk[];
  readonly freezeMsMax: number;
  /** For "final": how long the filesystems may stay frozen. */
  readonly holdMsMax: number;
  /** The point shall show the moment that the machines of a group agree upon. */
  readonly isInGroup: boolean;
}

export interface PointContext extends PassContext {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: Source;
  /** Bytes read from the disks for this point so far. */
  readonly readBytes: () => number;
  /** Resolves when nothing of the agent's own writes to a filesystem any more. */
  readonly goStill: () => Promise<void>;
  readonly endStill: () => void;
}

export interface MadePoint {
  readonly sealed: SealedPoint;
  readonly timeMs: number;
  readonly frozenMs: number;
  /** For "final": still held; the caller thaws. */
  readonly freeze: Freeze | undefined;
  readonly sourceRoots: SealedPoint["roots"];
  /** Of a point for which the applications were to rest. */
  readonly application: ApplicationOutcome | undefined;
  /** Blocks that differed from the base point although nobody was seen to write them; the first of them by name. */
  readonly unexplained: { readonly count: number; readonly sample: readonly { readonly diskId: DiskId; readonly block: number }[] };
  /** To be called once the point is remembered as the new base. */
  readonly acknowledge: () => void;
}

const unexplainedSampleMax = 16;
const liveRoundsMax = 12;
const freezeAttemptsMax = 4;
/** With those that were put off, which keep nobody waiting. */
const attemptsMax = 12;
const settleRoundsMax = 4;
const quietRoundsMax = 6;
const aheadPassesMax = 6;
/** Passes ahead of a freeze end when what is left can be read in so much of the time that it may take. */
const shortShare = 0.04;
/** Changes that are read into memory right before a freeze and in it. */
const heldBytesMax = 24 << 20;
/** Of it before the freeze. */
const aheadBytesMax = 18 << 20;
/** Kept for the thaw itself when others are waited for. */
const thawMs = 50;
export async function makePoint(context: PointContext, plan: PointPlan): Promise<MadePoint> {
  const passDisks = plan.disks.map(({ open, digests, record }, index): PassDisk => ({ index, open, digests, record }));
  const run = new PointRun(context, plan, passDisks);
  await context.link.begin(beginOf(plan));
  await run.sendFirstRound();
  await run.sendLiveRounds();
  if (plan.isInGroup) await run.gather();
  const instant = await run.freezeAtRest();
  try {
    await requireStillExcluded(context, plan);
    const sourceRoots = plan.consistency === "final" ? run.sourceRoots() : [];
    const sealed = await context.link.end({
      pointId: plan.pointId,
      timeMs: instant.timeMs,
      frozenMs: instant.frozenMs,
      pause: run.pause,
      readBytes: context.readBytes(),
      sourceRoots,
      ...(instant.application === undefined ? {} : { application: instant.application }),
      ...(run.group === undefined ? {} : { group: run.group }),
    });
    return { sealed, ...instant, sourceRoots, unexplained: run.unexplained, acknowledge: () => run.acknowledge() };
  } catch (error) {
    await instant.freeze?.thaw();
    context.endStill();
    throw error;
  }
}

/** What is not replicated must not have become something else before the moment of the point: a swap that was turned off. */
async function requireStillExcluded(context: PointContext, plan: PointPlan): Promise<void> {
  if (plan.disks.every(({ open }) => open.facts.excluded.length === 0)) return;
  const { disks } = await context.source.facts();
  for (const { open } of plan.disks) {
    const now = disks.find(({ diskId }) => diskId === open.facts.diskId)?.excluded ?? [];
    if (runsOfRanges(open.facts.excluded).every((run) => [...withoutExcluded([run], now)].length === 0)) continue;
    throw new Fault("StateConflict", "a swap was turned off while the point was made; the point is made again", {
      evidence: { diskId: open.facts.diskId },
      retry: "now",
    });
  }
}

function beginOf(plan: PointPlan): BeginPoint {
  return {
    protocolVersion: agentProtocolVersion,
    pointId: plan.pointId,
    bootId: plan.bootId,
    consistency: plan.consistency === "final" ? "final" : "crash", // Only its end can tell of the applications.
    features: ["alive"],
    disks: plan.disks.map((disk) => ({
      diskId: disk.open.facts.diskId,
      sizeBytes: disk.open.facts.sizeBytes,
      isBoot: disk.open.facts.isBoot,
      excluded: disk.open.facts.excluded,
      mode: disk.mode,
      reason: disk.reason,
      ...(disk.mode === "full" || plan.basePointId === undefined ? {} : { basePointId: plan.basePointId }),
    })),
  };
}

function groupPartOf(outcome: MeetingOutcome): GroupPart {
  return outcome.kind === "together" ? { kind: "together" } : outcome;
}

function aloneFor(reason: string): GroupPart {
  return { kind: "alone", reason };
}

interface Instant {
  readonly timeMs: number;
  readonly frozenMs: number;
  readonly freeze: Freeze | undefined;
  readonly application: ApplicationOutcome | undefined;
}

type GroupPart = NonNullable<EndPoint["group"]>;

class PointRun {
  readonly #context: PointContext;
  readonly #plan: PointPlan;
  readonly #disks: readonly PassDisk[];
  readonly #isFinal: boolean;
  readonly #use: DigestUse;
  readonly #rounds: Rounds;
  readonly #blind: BlindDisks;
  readonly #unexplained: { readonly diskId: DiskId; readonly block: number }[] = [];
  #unexplainedCount = 0;
  #pause: Pause = { freezeCount: 0, freezeMs: 0, readMs: 0, waitMs: 0, heldBytes: 0 };
  #rest: ApplicationRest | undefined;
  #isRestWanted: boolean;
  /** What was left to read at the last look. */
  #restBytes = 0;
  /** Whether the other machines of the group have come so far too; undefined without a group. */
  #group: GroupPart | undefined;

  constructor(context: PointContext, plan: PointPlan, disks: readonly PassDisk[]) {
    this.#context = context;
    this.#plan = plan;
    this.#disks = disks;
    this.#isFinal = plan.consistency === "final";
    this.#use = this.#isFinal ? "keep" : "forget";
    const entries = plan.disks.flatMap(({ tracker }, index) => (disks[index] === undefined ? [] : { pass: disks[index], tracker }));
    this.#rounds = new Rounds(context, entries, this.#use);
    this.#blind = new BlindDisks(context, entries, this.#isFinal ? plan.holdMsMax : plan.freezeMsMax);
    this.#isRestWanted = plan.consistency === "application";
  }

  get pause(): Pause {
    return this.#pause;
  }

  get group(): GroupPart | undefined {
    return this.#group;
  }

  /** Everything that changed since the base, or everything there is. */
  async sendFirstRound(): Promise<void> {
    this.#blind.requireNotLong();
    const marks = await this.#rounds.begin();
    for (const [index, disk] of this.#plan.disks.entries()) {
      const [pass, until] = [this.#disks[index], marks[index]];
      assert(pass !== undefined && until !== undefined, "every disk has a pass and a mark");
      if (disk.mode !== "delta") {
        const { tracker } = disk;
        const changed = tracker.changed({ until });
        const differing = await (tracker.isBlind ? this.#blind.pass({ pass, tracker }) : sendWholeDisk(this.#context, pass, changed));
        await this.#findUnexplained(disk, differing);
        continue;
      }
      const changed = withoutExcluded(disk.tracker.changed({ until }), disk.open.facts.excluded);
      const runs = disk.alsoChanged.length === 0 ? changed : joinRuns([[...changed], runsOfRanges(disk.alsoChanged)]);
      await sendRuns(this.#context, pass, { runs, use: this.#use });
    }
    await this.#context.link.roundEnd();
    if (this.#use === "keep") for (const pass of this.#disks) await refreshDigests(this.#context, pass);
    this.#blind.requireShort();
  }

  async sendLiveRounds(): Promise<void> {
    for (let round = 0; round < liveRoundsMax; round++) {
      const next = await this.#rounds.next();
      if (this.#rounds.bytesOf(next) <= this.#restBytesMax() / 4) return;
      await this.#rounds.send(next);
    }
  }

  /** Waits until the other machines of the group have little left to send as well. */
  async gather(): Promise<void> {
    const outcome = await this.#context.link.meet({ stage: "ready", wantsApplication: this.#isRestWanted });
    this.#group = groupPartOf(outcome);
    if (outcome.kind === "alone") return this.#context.log.warn("point is made without the group", { reason: outcome.reason });
    this.#isRestWanted ||= outcome.isApplication;
    await this.sendLiveRounds(); // What was written while others were waited for.
  }

  /** The moment of the point, with the applications at rest if that was asked for; they go on as soon as the filesystems do. */
  async freezeAtRest(): Promise<Instant> {
    if (!this.#isRestWanted) return await this.#freezeAndRead();
    const rest = await this.#context.source.restApplications(this.#context.signal ?? new AbortController().signal);
    this.#rest = rest;
    try {
      const instant = await this.#freezeAndRead();
      await rest.end();
      const fault = rest.fault();
      const application = {
        isConsistent: rest.isResting,
        scripts: [...rest.runs],
        ...(fault === undefined ? {} : { fault: toReport(fault) }),
      };
      if (fault !== undefined) this.#context.log.warn("applications did not rest as they should", { fault: toReport(fault) });
      return { ...instant, application };
    } finally {
      await rest.end();
    }
  }

  async #freezeAndRead(): Promise<Instant> {
    for (let attempt = 1; this.#pause.freezeCount < freezeAttemptsMax && attempt <= attemptsMax; attempt++) {
      await this.#settle();
      const instant = await this.#tryFreeze();
      if (this.#group?.kind === "together" && instant === undefined) this.#group = aloneFor("its own freeze did not work out at once");
      if (instant !== undefined && instant !== "put off") return instant;
      const what = instant === undefined ? "point needs another freeze" : "freeze was put off";
      this.#context.log.warn(what, { pointId: this.#plan.pointId, attempt, restBytes: this.#restBytes });
    }
    const { freezeMsMax } = this.#plan;
    throw new Fault("FreezeFailed", `could not read the last changes within ${freezeMsMax} ms of freeze, again and again`, {
      evidence: { freezeMsMax, freezeCount: this.#pause.freezeCount, restBytes: this.#restBytes },
    });
  }

  /** Writes out and sends until little comes while that is done. */
  async #settle(): Promise<void> {
    for (let round = 0; round < settleRoundsMax; round++) {
      await this.#context.source.sync();
      const next = await this.#rounds.next();
      const bytes = this.#rounds.bytesOf(next);
      if (bytes > 0) await this.#rounds.send(next);
      if (bytes <= this.#restBytesMax() / 4) break;
    }
  }

  sourceRoots(): SealedPoint["roots"] {
    const roots: SealedPoint["roots"] = [];
    for (const disk of this.#plan.disks)
      if (disk.digests !== undefined) roots.push({ diskId: disk.open.facts.diskId, root: parseDigestHex(disk.digests.root()) });
    return roots;
  }

  /**
   * What differed without having been written. Right after the pass: a cell tells of its last write only, and what is written
   * after the point's moment would hide that a block was written before it.
   */
  async #findUnexplained(disk: PointDisk, differing: ReadonlySet<number>): Promise<void> {
    const unexplained = new Set(differing);
    const until = await disk.tracker.tick();
    for (const run of joinRuns([[...disk.tracker.changed({ until })], runsOfRanges(disk.alsoChanged)]))
      for (let block = Math.floor(run.first / granulesPerBlock); block * granulesPerBlock < run.first + run.count; block++)
        unexplained.delete(block);
    this.#unexplainedCount += unexplained.size;
    const { diskId } = disk.open.facts;
    for (const block of [...unexplained].slice(0, unexplainedSampleMax - this.#unexplained.length))
      this.#unexplained.push({ diskId, block });
  }

  get unexplained(): MadePoint["unexplained"] {
    return { count: this.#unexplainedCount, sample: this.#unexplained };
  }

  acknowledge(): void {
    this.#rounds.acknowledge();
  }

  /** undefined: it did not work out within the limits; "put off": that was known before. Nothing is frozen then, and what was read has been sent. */
  async #tryFreeze(): Promise<Instant | "put off" | undefined> {
    const { source, pacer, log, goStill, endStill } = this.#context;
    const ahead: ReadBatch[][] = [];
    let armed: ArmedFreeze | undefined;
    let freeze: Freeze | undefined;
    try {
      const ready = await source.armFreeze({ msMax: this.#isFinal ? this.#plan.holdMsMax : this.#plan.freezeMsMax });
      armed = ready;
      await pacer.hurry(async () => await this.#readAhead(ready, { held: ahead, passesMax: aheadPassesMax }));
      if (!this.#isShort(ahead)) {
        // Known before: such a freeze would only keep writers waiting for nothing.
        await armed.cancel();
        await this.#rounds.sendHeld(ahead);
        return "put off";
      }
      if (this.#group?.kind === "together") {
        this.#group = groupPartOf(await this.#context.link.meet({ stage: "prepared" }));
        // What was written while others were waited for; they do not wait for more than that.
        await pacer.hurry(async () => await this.#readAhead(ready, { held: ahead, passesMax: 1 }));
      }
      await goStill();
      freeze = await armed.freeze();
      const held = freeze;
      const instant = await pacer.hurry(async () => await this.#readWhileFrozen(held, ahead));
      if (instant?.freeze === undefined) endStill();
      if (held.tookMs > this.#plan.freezeMsMax / 2) log.warn("filesystems froze slowly", { filesystems: held.filesystems });
      return instant;
    } catch (error) {
      await freeze?.thaw();
      await armed?.cancel();
      endStill();
      // A filesystem that is just being thawed, by a watchdog or another program, is free again in a moment.
      if (freeze !== undefined || !(error instanceof Fault) || error.code !== "FreezeFailed" || error.retry !== "later") throw error;
      await this.#rounds.sendHeld(ahead);
      return undefined;
    }
  }

  /**
   * Writes out and reads into memory, again and again, while writers go on: each pass leaves what came during it, which is less each
   * time, and so much less is to be written out and read while they stand still. Nothing is sent in between, for that takes longer.
   */
  async #readAhead(armed: ArmedFreeze, { held, passesMax }: { readonly held: ReadBatch[][]; readonly passesMax: number }): Promise<void> {
    for (let pass = 0; pass < passesMax; pass++) {
      await armed.writeOut();
      const next = await this.#rounds.next();
      // What a pass brings is about what the freeze itself will bring.
      this.#restBytes = this.#rounds.bytesOf(next);
      if (bytesOfHeld(held) + this.#restBytes > aheadBytesMax) return;
      held.push(await this.#rounds.read(next));
      if (this.#rounds.readMsOf(this.#restBytes) <= this.#plan.freezeMsMax * shortShare) return;
    }
  }

  /** Whether what is left can be read while everything stands still, beside what the kernel takes. */
  #isShort(held: readonly (readonly ReadBatch[])[]): boolean {
    if (this.#isFinal) return true;
    return bytesOfHeld(held) + this.#restBytes <= heldBytesMax && this.#rounds.readMsOf(this.#restBytes) <= this.#plan.freezeMsMax / 2;
  }

  /** Reads rounds into memory until nothing changes any more, thaws unless the point is final, then sends what was read. */
  async #readWhileFrozen(freeze: Freeze, held: ReadBatch[][]): Promise<Instant | undefined> {
    const { clock } = this.#context;
    const startMs = clock.monotonicMs();
    const timeMs = clock.nowMs();
    const frozen = this.#group?.kind === "together" ? this.#context.link.meet({ stage: "frozen" }) : undefined;
    frozen?.catch(() => undefined); // Awaited below, unless the last changes did not fit.
    const aheadBytes = bytesOfHeld(held);
    let isQuiet = false;
    await this.#blind.passAll();
    for (let round = 0; round < quietRoundsMax; round++) {
      const next = await this.#rounds.next();
      this.#restBytes = this.#rounds.bytesOf(next);
      isQuiet = this.#restBytes === 0;
      const leftMs = this.#plan.freezeMsMax - freeze.tookMs - (clock.monotonicMs() - startMs);
      if (isQuiet || !this.#fits(this.#restBytes, { held, leftMs })) break;
      held.push(await this.#rounds.read(next));
    }
    const isKept = this.#isFinal && isQuiet;
    const readEndMs = clock.monotonicMs();
    if (isQuiet && frozen !== undefined) this.#group = await this.#untilAllFrozen(frozen, startMs);
    const heldBytes = bytesOfHeld(held) - aheadBytes;
    this.#pause = {
      ...{ freezeCount: this.#pause.freezeCount + 1, freezeMs: freeze.tookMs, readMs: readEndMs - startMs, heldBytes },
      waitMs: clock.monotonicMs() - readEndMs,
    };
    const outcome = isKept ? undefined : await freeze.thaw();
    if (isQuiet && outcome?.isWhole === true) await this.#rest?.end();
    await this.#rounds.sendHeld(held);
    const application = undefined;
    if (isKept) return { timeMs, frozenMs: clock.monotonicMs() - startMs, freeze, application };
    return isQuiet && outcome?.isWhole === true ? { timeMs, frozenMs: outcome.frozenMs, freeze: undefined, application } : undefined;
  }

  /** Frozen no longer than it may be: whoever is not frozen by then is not waited for. */
  async #untilAllFrozen(frozen: Promise<MeetingOutcome>, startMs: number): Promise<GroupPart> {
    const { clock } = this.#context;
    const leftMs = Math.max(0, this.#plan.freezeMsMax - (clock.monotonicMs() - startMs) - thawMs);
    const timer = new AbortController();
    const timeUp = clock.sleep(leftMs, timer.signal).then(
      () => aloneFor("not every machine of the group was frozen within the time of a freeze"),
      () => aloneFor("the wait was ended"), // Only when all were frozen first; then nobody reads this.
    );
    const part = await Promise.race([frozen.then(groupPartOf), timeUp]);
    timer.abort();
    return part;
  }

  #fits(bytes: number, state: { readonly held: readonly (readonly ReadBatch[])[]; readonly leftMs: number }): boolean {
    if (bytesOfHeld(state.held) + bytes > heldBytesMax) return false;
    return this.#isFinal || this.#rounds.readMsOf(bytes) <= state.leftMs;
  }

  #restBytesMax(): number {
    return Math.min(heldBytesMax, this.#plan.freezeMsMax * readBytesPerMsMin);
  }
}
