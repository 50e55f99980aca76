// Keeps durable jobs going: claims them under a lease, renews it, runs them, and takes over those whose hub fell silent.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import type { Database } from "../db/database.ts";
import { notify } from "../db/notifications.ts";
import type { JobKind, JobRecord, Queryable } from "./job.ts";
import { isConnectionFault } from "./connection-fault.ts";
import type { Traces } from "../telemetry/traces.ts";
import { runJob, type JobEndHook, type JobRunEnd } from "./job-run.ts";
import { cancelJob, restartJob, resumeJob } from "./job-control.ts";
import { claimJob, extendLeases, insertJob, readJob, releaseLease, type JobLease } from "./job-store.ts";

export interface JobEngineOptions {
  readonly database: Database;
  readonly kinds: readonly JobKind[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** A hub that is silent for this long loses its jobs to another; 15 000 unless told. */
  readonly leaseMs?: number;
  /** Longest time between looks for work that nobody told of; 1000 unless told. */
  readonly pollMs?: number;
  /** Jobs that this hub runs at once, coordinating ones counted apart; 256 unless told. A job that waits holds no database connection. */
  readonly jobsMax?: number;
  /** Where this hub lands machines. Jobs of a machine that landed elsewhere are left to the hubs of that place; absent: it takes all. */
  readonly place?: string | undefined;
  /** A span for each run of a job and of a step, below the request that ordered the job. */
  readonly traces?: Traces | undefined;
  /** For what follows from a job's end, in the same transaction. */
  readonly onEnd?: JobEndHook;
  /** For trials: told at each edge of a step, after what came before it is durable. */
  readonly onMoment?: (moment: string) => void;
}

export interface JobOrder {
  readonly kind: string;
  /** Lower-case resource id of the vault. */
  readonly scope: string;
  readonly targetId: string;
  readonly targetName: string;
  readonly lockKey: string;
  readonly actor: string;
  readonly parameters: object;
  /** Chosen by who may ask again after a crash: the same id again changes nothing. A new one unless told. */
  readonly jobId?: string;
}

interface Running {
  readonly isCoordinating: boolean;
  readonly lease: JobLease;
  readonly interrupt: AbortController;
  readonly cancel: AbortController;
  readonly ended: Promise<void>;
  leasedUntilMs: number;
}

const topic = "jobs";
const giveBackWaitMs = 1000;

/** Runs until disposed; disposing stops between two writes and gives the jobs back, unfinished. */
export class JobEngine implements AsyncDisposable {
  readonly #options: JobEngineOptions;
  readonly #owner: string;
  readonly #leaseMs: number;
  readonly #running = new Map<string, Running>();
  readonly #stopping = new AbortController();
  readonly #subscription: Disposable;
  readonly #loops: Promise<unknown>;
  #bell = new AbortController();

  constructor(options: JobEngineOptions) {
    this.#options = options;
    this.#owner = options.random.uuid();
    this.#leaseMs = options.leaseMs ?? 15_000;
    this.#subscription = options.database.notifications.subscribe(topic, () => this.#ring());
    this.#loops = Promise.all([
      this.#loop("claim", options.pollMs ?? 1000, async () => await this.#claimAll()),
      this.#loop("renew", this.#leaseMs / 4, async () => await this.#renew()),
      this.#loop("watch", this.#leaseMs / 10, async () => this.#dropStale()),
    ]);
  }

  get kinds(): readonly string[] {
    return this.#options.kinds.map((kind) => kind.kind);
  }

  /** Stores a job, best in the transaction that changes the resource's state; it starts after the commit. Answers its id. */
  async submit(order: JobOrder, db: Queryable = this.#options.database.db): Promise<string> {
    const kind = this.#options.kinds.find((each) => each.kind === order.kind);
    if (kind === undefined) throw new Error(`assertion failed: job kind ${order.kind} is registered`);
    kind.parameters.parse(order.parameters);
    const jobId = order.jobId ?? this.#options.random.uuid();
    const { traceparent } = this.#options.traces?.current() ?? {};
    await insertJob(db, { ...order, jobId, title: kind.title, traceparent });
    await notify(db, topic);
    return jobId;
  }

  /** Asks a job to stop and undo what it did, also one that waits for a person. Refused once it has ended or is being undone. */
  async cancel(jobId: string, by: string): Promise<void> {
    const { db } = this.#options.database;
    await cancelJob(db, jobId, by);
    await notify(db, topic);
  }

  /** Lets a suspended job go on from its hold point. */
  async resume(jobId: string, by: string, comments: string): Promise<void> {
    const { db } = this.#options.database;
    await resumeJob(db, jobId, { by, comments });
    await notify(db, topic);
  }

  /** Begins a failed or cancelled job again as a new one; answers the id of the new job, which is also its operation's. */
  async restart(jobId: string, by: string): Promise<string> {
    const { database, kinds, random } = this.#options;
    const newJobId = await restartJob(database.db, jobId, { by, newJobId: random.uuid(), kinds });
    await notify(database.db, topic);
    return newJobId;
  }

  /** Whether jobs of this kind can be restarted, for those who list what a person may do. */
  canRestart(job: JobRecord): boolean {
    const hasEnded = job.state === "failed" || job.state === "cancelled";
    return hasEnded && job.restartedAs === undefined && this.#options.kinds.find((each) => each.kind === job.kind)?.restart !== undefined;
  }

  /** Waits until the job has ended, whoever runs it. */
  async wait(jobId: string, signal?: AbortSignal): Promise<JobRecord> {
    const { database, clock, pollMs } = this.#options;
    for (;;) {
      const bell = new AbortController();
      using _subscription = database.notifications.subscribe(topic, () => bell.abort());
      const job = await readJob(database.db, jobId);
      if (job === undefined) throw new Fault("NotFound", `could not wait for job ${jobId}: it does not exist`);
      if (job.endedAt !== undefined) return job;
      await clock.sleep(pollMs ?? 1000, AbortSignal.any([bell.signal, ...(signal === undefined ? [] : [signal])])).catch(ignoreAbort);
      signal?.throwIfAborted();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(new Error("the hub stops"));
    this.#ring();
    this.#subscription[Symbol.dispose]();
    await this.#loops;
    const running = [...this.#running.values()];
    for (const run of running) run.interrupt.abort(this.#stopping.signal.reason);
    await Promise.all(running.map((run) => run.ended));
  }

  /** Calls `task` again and again until the engine stops; a failure is told and tried again, because the lease limits its harm. */
  async #loop(name: string, waitMs: number, task: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const bell = name === "watch" ? signal : AbortSignal.any([signal, this.#bell.signal]);
      try {
        await task();
      } catch (error) {
        this.#options.log.warn("job loop failed", { loop: name, reason: error instanceof Error ? error.message : String(error) });
        await this.#options.clock.sleep(waitMs, signal).catch(ignoreAbort);
        continue;
      }
      await this.#options.clock.sleep(waitMs, bell).catch(ignoreAbort);
    }
  }

  async #claimAll(): Promise<void> {
    const { kinds } = this.#options;
    // Apart, so that jobs that wait for others never take the places in which those could run.
    for (const isCoordinating of [true, false]) {
      const names = kinds.filter((kind) => (kind.isCoordinating === true) === isCoordinating).map((kind) => kind.kind);
      if (names.length > 0) await this.#claimKinds(names, isCoordinating);
    }
  }

  async #claimKinds(kinds: readonly string[], isCoordinating: boolean): Promise<void> {
    const { database, place, jobsMax = 256 } = this.#options;
    const countRunning = (): number => [...this.#running.values()].filter((run) => run.isCoordinating === isCoordinating).length;
    while (countRunning() < jobsMax && !this.#stopping.signal.aborted) {
      const askedAtMs = this.#options.clock.monotonicMs();
      const claim = { owner: this.#owner, kinds, leaseMs: this.#leaseMs, ...(place === undefined ? {} : { place }) };
      const claimed = await claimJob(database.db, claim);
      if (claimed === undefined) return;
      this.#start(claimed.job, claimed.lease, askedAtMs + this.#leaseMs);
    }
  }

  #start(job: JobRecord, lease: JobLease, leasedUntilMs: number): void {
    const { database, clock, log, kinds, onMoment, onEnd, traces } = this.#options;
    const kind = kinds.find((each) => each.kind === job.kind);
    if (kind === undefined) throw new Error(`assertion failed: job kind ${job.kind} is registered`);
    const interrupt = new AbortController();
    const cancel = new AbortController();
    if (job.isCancelRequested) cancel.abort();
    const ended = this.#finish(
      lease,
      runJob({
        db: database.db,
        clock,
        log,
        kind,
        job,
        lease,
        interrupt: interrupt.signal,
        cancel: cancel.signal,
        onMoment,
        onEnd,
        traces,
      }),
    );
    this.#running.set(job.jobId, { isCoordinating: kind.isCoordinating === true, lease, interrupt, cancel, ended, leasedUntilMs });
  }

  async #finish(lease: JobLease, run: Promise<JobRunEnd>): Promise<void> {
    const { database, log } = this.#options;
    try {
      const end = await run;
      if (end === "interrupted") await this.#giveBack(lease);
      if (end !== "interrupted") await notify(database.db, topic);
    } catch (error) {
      // The lease lapses by itself, and the job is then taken again.
      log.error("job run broke off", {
        jobId: lease.jobId,
        reason: error instanceof Error ? (error.stack ?? error.message) : String(error),
      });
    } finally {
      this.#running.delete(lease.jobId);
      this.#ring();
    }
  }

  /** Refused by the row when another hub has the job. A database that is away is asked again until the lease has lapsed by itself. */
  async #giveBack(lease: JobLease): Promise<void> {
    const { database, clock } = this.#options;
    const endsAtMs = clock.monotonicMs() + this.#leaseMs;
    for (;;) {
      try {
        return await releaseLease(database.db, lease);
      } catch (error) {
        if (!isConnectionFault(error) || clock.monotonicMs() > endsAtMs || this.#stopping.signal.aborted) throw error;
        await clock.sleep(Math.min(giveBackWaitMs, this.#leaseMs / 4), this.#stopping.signal).catch(ignoreAbort);
      }
    }
  }

  async #renew(): Promise<void> {
    if (this.#running.size === 0) return;
    const { database, clock } = this.#options;
    const runs = [...this.#running.values()];
    const askedAtMs = clock.monotonicMs();
    const leases = runs.map((run) => run.lease);
    const kept = await extendLeases(database.db, this.#owner, leases, this.#leaseMs);
    for (const run of runs) {
      const held = kept.find((each) => each.jobId === run.lease.jobId && each.fence === run.lease.fence);
      if (held === undefined) run.interrupt.abort(new Error("the lease was taken or given back"));
      else run.leasedUntilMs = askedAtMs + this.#leaseMs;
      if (held?.isCancelRequested === true) run.cancel.abort(new Error("the job was cancelled"));
    }
  }

  /** A hub that could not renew stops before another may start. */
  #dropStale(): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const run of this.#running.values()) if (nowMs > run.leasedUntilMs) run.interrupt.abort(new Error("the lease ran out"));
  }

  #ring(): void {
    const bell = this.#bell;
    this.#bell = new AbortController();
    bell.abort();
  }
}

/** Only an abort rejects a sleep; the loop then looks at what woke it. */
function ignoreAbort(): void {}
