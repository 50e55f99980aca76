// Replicator: keeps a machine's replica up to date, point after point, and carries out what the orders ask of it.

import type { Duplex } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { assert } from "../../base/assert.ts";
import type { Random } from "../../base/random.ts";
import { Semaphore } from "../../base/semaphore.ts";
import type { AgentState, OrderResult, ReplicationPolicy } from "../../contract/agent-control.ts";
import { unitsInFlightMin } from "../../contract/agent-frames.ts";
import { requireExcludable } from "../../contract/disk-choice.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import { parsePointId, type DiskId, type PointId } from "../../contract/ids.ts";
import { readState, replicationStateShape, stateFiles, writeState, type ReplicationState } from "../identity/state-folder.ts";
import type { AgentLog } from "../log.ts";
import { BlockWork, type BlockThreads } from "../sender/block-work.ts";
import type { ReadStall } from "../sender/guest-load.ts";
import { createLanePool, type LanePool } from "../sender/lanes.ts";
import { ApplianceLink } from "../sender/link.ts";
import { LaneTimes } from "../sender/lane-times.ts";
import { Pacer } from "../sender/pacer.ts";
import type { Source } from "../source.ts";
import type { Clock } from "../../base/clock.ts";
import { DiskSet } from "./disk-set.ts";
import { profileChurn } from "./churn-profile.ts";
import { Hold, type HoldEnd } from "./hold.ts";
import { makePoint, type MadePoint, type PointPlan } from "./make-point.ts";
import { newPointId } from "./new-point-id.ts";

export interface ReplicatorOptions {
  readonly source: Source;
  readonly stateFolder: string;
  /** Opens the transport to the appliance's data port. */
  readonly connect: (signal: AbortSignal) => Promise<Duplex>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly cpuSeconds: () => number;
  readonly residentBytes: () => number;
  readonly cpuShareMax?: number;
  /** What the machine's own programs wait; without it the agent does not give way to them. */
  readonly readStall?: ReadStall;
  /** Threads for the work on whole blocks; without them everything is done in this one. */
  readonly threads?: BlockThreads;
  readonly bytesPerSecondMax?: number;
  /** Resolves when what others write to files has been written: a write that a held machine stops halfway would stop its writer too. */
  readonly finishWrites?: () => Promise<void>;
}

type DoneResult = Extract<OrderResult, { outcome: "done" }>;
export type Doing = Omit<DoneResult, "outcome" | "orderId">;
interface PointKind {
  readonly kind: "crash" | "application" | "verify" | "final";
  readonly holdMsMax: number;
  /** With the other machines of its group, if it is in one. */
  readonly isInGroup?: boolean;
}

/** A pass over the whole disk is good for a quiesce for so long. */
const verifyAgeMsMax = 3_600_000;
const backOffMsMax = 60_000;

export class Replicator implements AsyncDisposable {
  readonly #options: ReplicatorOptions;
  readonly #disks: DiskSet;
  readonly #one = new Semaphore(1);
  readonly #pacer: Pacer;
  readonly #lanes: LanePool;
  readonly #work: BlockWork;
  readonly #times: LaneTimes;
  /** Set to what the appliance says. */
  unitsInFlightMax = unitsInFlightMin;
  #state: ReplicationState = {};
  #link: ApplianceLink | undefined;
  #interrupt = new AbortController();
  #wake = new AbortController();
  #isBusy = false;
  #phase: AgentState["phase"] = "idle";
  #fault: Fault | undefined;
  readonly #hold: Hold;
  #profiling: AbortController | undefined;
  #verifiedMs: number | undefined;
  #applicationMs: number | undefined;
  #readBytes = 0;
  #sentBytes = 0;
  #pointCount = 0;
  #lastPointId: PointId | undefined;
  #lastFrozenMs: number | undefined;
  /** How long the last point took. */
  #lastPointMs = 0;
  readonly #copiedBytes = new Map<number, number>();

  constructor(options: ReplicatorOptions) {
    this.#options = options;
    this.#disks = new DiskSet(options.source);
    this.#hold = new Hold(options);
    this.#times = new LaneTimes(options.clock);
    this.#work = new BlockWork(options.threads, this.#times);
    this.#lanes = createLanePool(options.threads?.count ?? 0);
    this.#pacer = new Pacer({
      clock: options.clock,
      cpuSeconds: options.cpuSeconds,
      cpuShareMax: options.cpuShareMax ?? 0.9,
      ...(options.readStall === undefined ? {} : { readStall: options.readStall }),
      ...(options.bytesPerSecondMax === undefined ? {} : { bytesPerSecondMax: options.bytesPerSecondMax }),
    });
  }

  async load(): Promise<void> {
    this.#state = (await readState(this.#options.stateFolder, stateFiles.replication, replicationStateShape)) ?? {};
  }

  /** Makes points at the policy's interval until the signal ends. Faults show in state(); the loop goes on. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    signal.addEventListener("abort", () => this.#interruptNow("the agent stops"), { once: true });
    let failures = 0;
    while (!signal.aborted) {
      const startMs = clock.monotonicMs();
      let waitMs = (this.#state.policy?.pointIntervalSeconds ?? 86_400) * 1000;
      if (this.#state.policy !== undefined && !this.#hold.isOn) {
        try {
          await this.#makeExclusive({ kind: this.#applicationDueMs() <= 0 ? "application" : "crash", holdMsMax: 0, isInGroup: true });
          failures = 0;
          waitMs = Math.min(waitMs, Math.max(this.#applicationDueMs(), 0));
        } catch (error) {
          if (this.#hold.isOn) continue; // Its turn came after the machine was quiesced.
          const fault = this.#note(error, "make a recovery point");
          if (fault.code !== "OrderInterrupted") log.warn("point failed", { fault: toReport(fault) });
          waitMs = fault.retry === "never" ? Math.max(waitMs, 5000) : Math.min(backOffMsMax, 1000 * 2 ** failures);
          failures += 1;
        }
      }
      const leftMs = Math.max(waitMs - (clock.monotonicMs() - startMs), 0);
      this.#wake = new AbortController();
      await clock.sleep(leftMs, AbortSignal.any([signal, this.#wake.signal])).catch(() => undefined); // Woken: look again.
    }
    await this[Symbol.asyncDispose]();
  }

  /** Until the policy asks for a point with the applications at rest. */
  #applicationDueMs(): number {
    const intervalMs = (this.#state.policy?.applicationIntervalMinutes ?? 0) * 60_000;
    if (intervalMs === 0) return Number.POSITIVE_INFINITY;
    return this.#applicationMs === undefined ? 0 : this.#applicationMs + intervalMs - this.#options.clock.monotonicMs();
  }

  /** Drops the point under way and thaws; the kernel goes on tracking. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#interruptNow("the agent stops");
    await this.#thaw();
    await this.#one.run(() => Promise.resolve());
    await this.#disks.close();
    await this.#link?.[Symbol.asyncDispose]();
    this.#link = undefined;
    await this.#work[Symbol.asyncDispose]();
  }

  /** Replicates all disks but the excluded ones; without a list the one of before stands. */
  async replicate(policy: ReplicationPolicy, excludedDiskIds?: readonly DiskId[]): Promise<Doing> {
    this.#profiling?.abort(new Fault("OrderInterrupted", "the profile was ended: the machine is to be replicated"));
    await this.#one.run(async () => {
      if (excludedDiskIds !== undefined) requireExcludable(excludedDiskIds, (await this.#options.source.facts()).disks);
      const excluded = excludedDiskIds ?? this.#state.excludedDiskIds ?? [];
      await this.#disks.open({ ...this.#state, excludedDiskIds: excluded });
      this.#state = { ...this.#state, policy, excludedDiskIds: [...excluded] };
      await writeState(this.#options.stateFolder, stateFiles.replication, this.#state);
    });
    if (this.#phase === "idle" || this.#phase === "stopped") this.#phase = "initial";
    this.#wake.abort();
    return {};
  }

  /** Counts what is written; the disks are watched for as long, unless replication begins. */
  async profile(seconds: number): Promise<Doing> {
    const { clock } = this.#options;
    const profiling = new AbortController();
    return await this.#one.run(async () => {
      if (this.#state.policy !== undefined)
        throw new Fault("StateConflict", "could not profile the machine: it is replicated, and its churn is shown with it", {
          evidence: { phase: this.#phase },
        });
      this.#profiling = profiling;
      this.#isBusy = true;
      try {
        await this.#disks.open({});
        this.#disks.requireSeen();
        return { profile: await profileChurn(this.#disks.list(), { clock, seconds }, profiling.signal) };
      } catch (error) {
        throw profiling.signal.aborted ? interrupted(profiling.signal) : error;
      } finally {
        this.#isBusy = false;
        this.#profiling = undefined;
        await this.#disks.remove();
      }
    });
  }

  async point(): Promise<Doing> {
    return doingOf(await this.#makeExclusive({ kind: "crash", holdMsMax: 0 }));
  }

  /** The other machines of the group are making their points: the next one of the interval is made now. */
  join(): Doing {
    if (!this.#isBusy) this.#wake.abort();
    return {};
  }

  async verify(): Promise<Doing> {
    const made = await this.#makeExclusive({ kind: "verify", holdMsMax: 0 });
    const { count, sample } = made.unexplained;
    if (count > 0) this.#options.log.warn("blocks differed that nobody was seen to write", { count, sample });
    return { ...doingOf(made), repairedBlockCount: count, repairedBlocks: [...sample] };
  }

  async quiesce(holdMsMax: number): Promise<Doing> {
    const { clock } = this.#options;
    const isRecent = this.#verifiedMs !== undefined && clock.monotonicMs() - this.#verifiedMs < verifyAgeMsMax && this.#disks.hasDigests;
    // Disks that nobody watches are read whole for the final point itself; tables of the others are made on the way.
    if (!isRecent && !this.#disks.isBlind) await this.verify();
    const made = await this.#makeExclusive({ kind: "final", holdMsMax });
    return { ...doingOf(made), sourceRoots: made.sourceRoots };
  }

  /** Thaws after a quiesce. Without one there is nothing to do. */
  async release(): Promise<Doing> {
    this.#interruptNow("a release order came");
    if ((await this.#thaw())?.isWhole === false)
      throw new Fault("QuiesceVoid", "could not release the quiesced machine: its filesystems had been thawed before", { retry: "never" });
    return {};
  }

  async stop(): Promise<Doing> {
    this.#interruptNow("a stop order came");
    await this.#thaw();
    await this.#one.run(async () => {
      this.#state = {};
      await writeState(this.#options.stateFolder, stateFiles.replication, this.#state);
      await this.#disks.forgetPasses(this.#options.stateFolder);
      await this.#disks.remove();
      await this.#link?.[Symbol.asyncDispose]();
      this.#link = undefined;
    });
    this.#phase = "stopped";
    this.#fault = undefined;
    return {};
  }

  /** Counts anew what has changed since the base, when no point is under way. */
  async measure(): Promise<void> {
    if (this.#isBusy || this.#hold.isOn) return;
    await this.#one.run(() => this.#disks.measure());
  }

  /** Whether writing to a filesystem would block. */
  get isFrozen(): boolean {
    return this.#hold.isFrozen;
  }

  state(): AgentState {
    return {
      phase: this.#phase,
      disks: this.#disks.list().map((disk, index) => ({
        diskId: disk.open.facts.diskId,
        tracking: disk.tracker.tracking,
        dirtyBytes: disk.dirtyBytes,
        copiedBytes: Math.min(this.#copiedBytes.get(index) ?? 0, disk.open.facts.sizeBytes),
        sizeBytes: disk.open.facts.sizeBytes,
      })),
      readBytes: this.#readBytes,
      sentBytes: this.#sentBytes + (this.#link?.sentBytes ?? 0),
      residentBytes: this.#options.residentBytes(),
      cpuSeconds: this.#options.cpuSeconds(),
      laneMs: this.#times.spentMs,
      features: ["profile", "checkNetwork", "renewCertificate", "ways"],
      pointCount: this.#pointCount,
      ...(this.#lastPointId === undefined ? {} : { lastPointId: this.#lastPointId }),
      ...(this.#lastFrozenMs === undefined ? {} : { lastFrozenMs: this.#lastFrozenMs }),
      ...(this.#fault === undefined ? {} : { fault: toReport(this.#fault) }),
    };
  }

  async #makeExclusive(kind: PointKind): Promise<MadePoint> {
    return await this.#one.run(async () => {
      if (this.#state.policy === undefined)
        throw new Fault("StateConflict", "could not make a recovery point: replication has not been started", {
          evidence: { phase: this.#phase },
        });
      if (this.#hold.isOn)
        throw new Fault("StateConflict", "could not make a recovery point: the machine is quiesced", { evidence: { phase: this.#phase } });
      this.#interrupt = new AbortController();
      this.#isBusy = true;
      try {
        const made = await this.#makeOrRepair(kind);
        if (kind.kind === "final") this.#holdAfter(made, kind.holdMsMax);
        return made;
      } finally {
        this.#isBusy = false;
      }
    });
  }

  async #makeOrRepair(kind: PointKind): Promise<MadePoint> {
    try {
      return await this.#makeOnce(kind);
    } catch (error) {
      const fault = asFault(error, "make a recovery point");
      if (fault.retry !== "now" || this.#interrupt.signal.aborted) throw fault;
      await this.#adapt(fault);
      return await this.#makeOnce(kind);
    }
  }

  /** What a fault that may be repaired at once asks for: another base, or new tracking. */
  async #adapt(fault: Fault): Promise<void> {
    this.#options.log.warn("point is made again", { fault: toReport(fault) });
    if (fault.code === "BasePointUnknown") {
      const newest = fault.evidence["newestPointId"];
      const { base } = this.#state;
      const replacement = typeof newest === "string" && base !== undefined ? { ...base, pointId: parsePointId(newest) } : undefined;
      this.#state = {
        ...(this.#state.policy === undefined ? {} : { policy: this.#state.policy }),
        ...(this.#state.excludedDiskIds === undefined ? {} : { excludedDiskIds: this.#state.excludedDiskIds }),
        ...(replacement === undefined ? {} : { base: replacement }),
      };
      this.#disks.distrust("the appliance no longer has the point that changes were counted from");
    }
    if (fault.code === "TrackingRefused") await this.#disks.untrack(fault.evidence["diskId"]);
    if (fault.code === "RootsDiffer") this.#disks.dropDigests("source and replica differed, so everything is compared");
  }

  async #makeOnce(kind: PointKind): Promise<MadePoint> {
    const { clock, log, source } = this.#options;
    const { policy } = this.#state;
    assert(policy !== undefined, "a point is made while replication is on");
    const { signal } = this.#interrupt;
    const bootId = await this.#disks.open(this.#state);
    if (kind.kind === "verify" || kind.kind === "final") this.#disks.keepDigests();
    const startMs = clock.monotonicMs();
    await this.#rememberPasses(bootId);
    const plan = this.#planOf(kind, { bootId, freezeMsMax: policy.freezeMsMax });
    // Also what an agent that was just started does first: until then nobody can say what has changed.
    if (this.#phase === "idle" || plan.disks.some((disk) => disk.mode === "full")) this.#phase = "initial";
    this.#keepInterval(plan, startMs, policy.pointIntervalSeconds * 1000);
    this.#copiedBytes.clear();
    const link = await this.#openLink(signal);
    const onAbort = (): void => void link[Symbol.asyncDispose]();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      const readBefore = this.#readBytes;
      const made = await makePoint(
        {
          link,
          clock,
          log,
          source,
          signal,
          pacer: this.#pacer,
          ...this.#lanes,
          work: this.#work,
          times: this.#times,
          readBytes: () => this.#readBytes - readBefore,
          onRead: (disk, bytes) => this.#countRead(disk, bytes),
          onSkip: (disk, bytes) => this.#countCopied(disk, bytes),
          goStill: async () => await this.#hold.goStill(kind.kind === "final" ? "long" : "short"),
          endStill: () => this.#hold.endStill(),
        },
        plan,
      );
      this.#pointCount += 1;
      this.#lastPointId = made.sealed.pointId;
      this.#lastFrozenMs = made.frozenMs;
      this.#lastPointMs = clock.monotonicMs() - startMs;
      if (kind.kind === "verify") this.#verifiedMs = clock.monotonicMs();
      if (made.application !== undefined) this.#applicationMs = startMs;
      if (made.freeze === undefined) await this.#settle(made, bootId);
      const [{ pointId, storedBytes }, { level }] = [made.sealed, this.#work.packing];
      log.info("point sealed", { pointId, frozenMs: Math.round(made.frozenMs), storedBytes, compressionLevel: level });
      return made;
    } catch (error) {
      const fault = signal.aborted ? interrupted(signal) : asFault(error, "make a recovery point");
      await link.abandon(fault);
      throw fault;
    } finally {
      signal.removeEventListener("abort", onAbort);
      await setImmediate(); // Lets waiting control work run between points that follow each other closely.
    }
  }

  /** The later a point of changes is, the less the agent gives way to the machine's own programs. For whole disks it stays polite. */
  #keepInterval(plan: PointPlan, startMs: number, intervalMs: number): void {
    const beforeMs = plan.disks.every(({ mode }) => mode === "delta") ? this.#lastPointMs : undefined;
    const tookMs = (): number => Math.max(beforeMs ?? 0, this.#options.clock.monotonicMs() - startMs);
    this.#pacer.keepDuty(() => (beforeMs === undefined ? 0 : tookMs() / intervalMs));
  }

  /** Durable before a pass over whole disks begins: from then on its tracking counts, and what it has read can be used again. */
  async #rememberPasses(bootId: string): Promise<void> {
    const { stateFolder } = this.#options;
    const passing = await this.#disks.keepPasses(stateFolder, { base: this.#state.base, bootId });
    if (isDeepStrictEqual(passing, this.#state.passing)) return;
    const { passing: _, ...rest } = this.#state;
    this.#state = passing === undefined ? rest : { ...rest, passing };
    await writeState(stateFolder, stateFiles.replication, this.#state);
  }

  #planOf(kind: PointKind, limits: { readonly bootId: string; readonly freezeMsMax: number }): PointPlan {
    const { base } = this.#state;
    return {
      pointId: newPointId(this.#options.clock.nowMs(), this.#options.random),
      bootId: limits.bootId,
      basePointId: base?.pointId,
      consistency: kind.kind === "verify" ? "crash" : kind.kind,
      disks: this.#disks.plan({ base, isVerify: kind.kind === "verify" }),
      freezeMsMax: limits.freezeMsMax,
      holdMsMax: kind.holdMsMax,
      isInGroup: kind.isInGroup === true && this.#state.policy?.group !== undefined,
    };
  }

  /** Order matters: the new base is durable before the tracker forgets. */
  async #settle(made: MadePoint, bootId: string): Promise<void> {
    const { passing: _, ...rest } = this.#state;
    this.#state = { ...rest, base: this.#disks.baseOf(made.sealed.pointId, bootId) };
    await writeState(this.#options.stateFolder, stateFiles.replication, this.#state);
    await this.#disks.forgetPasses(this.#options.stateFolder);
    made.acknowledge();
    this.#disks.trust();
    this.#phase = "delta";
    this.#fault = undefined;
  }

  async #openLink(signal: AbortSignal): Promise<ApplianceLink> {
    if (this.#link !== undefined && !this.#link.isBroken) return this.#link;
    this.#sentBytes += this.#link?.sentBytes ?? 0;
    this.#link = new ApplianceLink({
      transport: await this.#options.connect(signal),
      clock: this.#options.clock,
      unitsInFlightMax: () => this.unitsInFlightMax,
    });
    return this.#link;
  }

  #countRead(disk: number, bytes: number): void {
    this.#readBytes += bytes;
    this.#countCopied(disk, bytes);
  }

  #countCopied(disk: number, bytes: number): void {
    this.#copiedBytes.set(disk, (this.#copiedBytes.get(disk) ?? 0) + bytes);
  }

  /** Before anybody else has a turn: a point of a machine that is held would find its filesystems frozen. */
  #holdAfter(made: MadePoint, msMax: number): void {
    this.#phase = "quiesced";
    const onVoid = async (): Promise<void> => {
      if ((await this.#thaw()) === undefined) return; // A decision came at the last moment.
      this.#fault = new Fault(
        "QuiesceVoid",
        `the machine was thawed: it was quiesced for ${Math.round(msMax / 1000)} s without a decision`,
      );
      this.#options.log.warn("quiesce became void", { holdMsMax: msMax });
    };
    this.#hold.begin(made, { msMax, onVoid });
  }

  async #thaw(): Promise<HoldEnd | undefined> {
    const ended = await this.#hold.end();
    if (ended === undefined) return undefined;
    this.#lastFrozenMs = ended.frozenMs;
    const { bootId } = await this.#options.source.facts();
    await this.#settle(ended.made, bootId);
    this.#wake.abort();
    return ended;
  }

  #interruptNow(why: string): void {
    this.#interrupt.abort(new Fault("OrderInterrupted", `the point under way was dropped: ${why}`));
    this.#profiling?.abort(new Fault("OrderInterrupted", `the profile was ended: ${why}`));
  }

  #note(error: unknown, doing: string): Fault {
    const fault = asFault(error, doing);
    if (fault.code !== "OrderInterrupted") this.#fault = fault;
    return fault;
  }
}

function doingOf(made: MadePoint): Doing {
  return { pointId: made.sealed.pointId, frozenMs: made.frozenMs };
}

function interrupted(signal: AbortSignal): Fault {
  return signal.reason instanceof Fault
    ? signal.reason
    : new Fault("OrderInterrupted", "the point under way was dropped", { cause: signal.reason });
}
