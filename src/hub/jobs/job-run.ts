// Runs one claimed job to its end: the steps forward, or their undos in reverse, each recorded before the next begins.

import type { Clock } from "../../base/clock.ts";
import type { Log, LogFields } from "../../base/log.ts";
import { asFault, Fault, toReport, type FaultReport } from "../../contract/errors.ts";
import { HoldRequested, readHoldAnswer, suspendJob } from "./job-control.ts";
import { inSpan, noTraces, type Traces } from "../telemetry/traces.ts";
import { isConnectionFault } from "./connection-fault.ts";
import {
  stepsOf,
  type JobKind,
  type JobOutcome,
  type JobRecord,
  type JobStep,
  type Queryable,
  type StepContext,
  type StepRecord,
} from "./job.ts";
import {
  appendLog,
  beginJob,
  beginStep,
  beginUndo,
  endJob,
  endStep,
  isCancelRequested,
  LeaseLost,
  readSteps,
  saveEvidence,
  setProgress,
  setUndo,
  underLease,
  type JobLease,
} from "./job-store.ts";

/** Times that a step may be begun; a step that kills its hub each time must end some day. */
const stepAttemptsMax = 20;
/** Times that an undo is tried before the job ends without it. */
export const undoAttemptsMax = 5;
const undoFirstWaitMs = 200;
const progressIntervalMs = 250;

export interface JobRunOptions {
  readonly db: Queryable;
  readonly clock: Clock;
  readonly log: Log;
  readonly kind: JobKind;
  readonly job: JobRecord;
  readonly lease: JobLease;
  /** Aborted when this hub stops or has lost the lease: change nothing more. */
  readonly interrupt: AbortSignal;
  /** Aborted when someone cancelled the job. */
  readonly cancel: AbortSignal;
  readonly onMoment?: ((moment: string) => void) | undefined;
  readonly onEnd?: JobEndHook | undefined;
  readonly traces?: Traces | undefined;
}

/** In the transaction that ends the job: what it writes is there exactly when the job has ended. */
export type JobEndHook = (db: Queryable, job: JobRecord, outcome: JobOutcome) => Promise<void>;

/** "interrupted": the job is unfinished and any hub may take it; nothing was decided here. "held": it waits for a person. */
export type JobRunEnd = "ended" | "interrupted" | "held";

export async function runJob(options: JobRunOptions): Promise<JobRunEnd> {
  const { job, lease, traces = noTraces } = options;
  const attributes = { "watari.job_id": job.jobId, "watari.job_kind": job.kind, "watari.fence": lease.fence };
  // Below the request that ordered it, in whichever hub; a job that another hub takes over has a span for each run.
  const from = job.traceparent === undefined ? {} : { traceparent: job.traceparent };
  try {
    await inSpan(traces, { name: `job ${job.kind}`, kind: "internal", from, attributes }, async () => await new JobRun(options).run());
    return "ended";
  } catch (error) {
    if (error instanceof HoldRequested) return "held";
    if (options.interrupt.aborted || error instanceof LeaseLost || isConnectionFault(error)) {
      options.log.warn("job interrupted", { jobId: options.job.jobId, reason: error instanceof Error ? error.message : String(error) });
      return "interrupted";
    }
    throw error;
  }
}

class JobRun {
  readonly #options: JobRunOptions;
  readonly #parameters: object;
  readonly #kindSteps: readonly JobStep<object, object>[];
  #steps: readonly StepRecord[] = [];
  #state: object = {};
  #progressAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: JobRunOptions) {
    this.#options = options;
    this.#parameters = options.kind.parameters.parse(options.job.parameters);
    this.#kindSteps = stepsOf(options.kind, this.#parameters);
  }

  async run(): Promise<void> {
    const { job } = this.#options;
    this.#steps = await this.#write(async (db) => {
      await beginJob(db, job.jobId, this.#kindSteps);
      return await readSteps(db, job.jobId);
    });
    const fault = job.state === "undoing" ? job.fault : await this.#forward();
    if (fault === undefined) return await this.#end({ kind: "succeeded" });
    const undoFaults = await this.#backward();
    await this.#end({ kind: job.isCancelRequested || fault.id === "JobCancelled" ? "cancelled" : "failed", fault, undoFaults });
  }

  /** Runs what is not yet done; answers the fault that stopped it. */
  async #forward(): Promise<FaultReport | undefined> {
    for (const step of this.#kindSteps) {
      const record = this.#record(step.name);
      this.#state = { ...this.#state, ...record?.evidence };
      if (record?.state === "done") continue;
      const fault = await this.#attempt(step, record?.attemptCount ?? 0);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }

  async #attempt(step: JobStep<object, object>, attemptCount: number): Promise<FaultReport | undefined> {
    const { job, db, interrupt, cancel, log, onMoment } = this.#options;
    const fail = async (fault: FaultReport): Promise<FaultReport> => {
      await this.#write(async (transaction) => {
        await endStep(transaction, job.jobId, step.name, fault);
        await beginUndo(transaction, job.jobId, fault);
        await appendLog(transaction, job.jobId, step.name, `failed: ${fault.message}`, {});
      });
      return fault;
    };
    if (cancel.aborted || (await isCancelRequested(db, job.jobId))) {
      const fault = cancelledFault(job, step);
      await this.#write(async (transaction) => await beginUndo(transaction, job.jobId, fault));
      return fault;
    }
    if (attemptCount >= stepAttemptsMax)
      return await fail(
        toReport(new Fault("StepAttemptsExhausted", `could not ${step.title}: it was begun ${attemptCount} times and never ended`)),
      );
    await this.#write(async (transaction) => await beginStep(transaction, job.jobId, step.name));
    await this.#progress(step, 0, step.title);
    onMoment?.(`${step.name} begun`);
    try {
      const evidence = await this.#traced(
        step,
        "step",
        async () => await step.run(this.#context(step, AbortSignal.any([interrupt, cancel]))),
      );
      onMoment?.(`${step.name} ran`);
      await this.#write(async (transaction) => {
        await saveEvidence(transaction, job.jobId, step.name, evidence);
        await endStep(transaction, job.jobId, step.name);
      });
      this.#state = { ...this.#state, ...evidence };
      log.info("job step done", { jobId: job.jobId, step: step.name });
      onMoment?.(`${step.name} done`);
      return undefined;
    } catch (error) {
      if (interrupt.aborted || error instanceof LeaseLost || isConnectionFault(error)) throw error;
      if (error instanceof HoldRequested) await this.#suspend(step, error);
      const fault = cancel.aborted ? cancelledFault(job, step) : toReport(asFault(error, step.title));
      log.warn("job step failed", {
        jobId: job.jobId,
        step: step.name,
        fault: fault.id,
        reason: fault.message,
        cause: describeCause(error),
      });
      return await fail(fault);
    }
  }

  async #suspend(step: JobStep<object, object>, request: HoldRequested): Promise<never> {
    const { job, log } = this.#options;
    await this.#write(async (db) => await suspendJob(db, job.jobId, step.name, request.point));
    log.info("job held", { jobId: job.jobId, step: step.name, hold: request.point.name });
    throw request;
  }

  /** Undoes every step that was begun, the last first; answers the faults of undos that never succeeded. */
  async #backward(): Promise<readonly FaultReport[]> {
    const { job, db } = this.#options;
    this.#steps = await readSteps(db, job.jobId);
    this.#state = Object.assign({}, ...this.#kindSteps.map((step) => this.#record(step.name)?.evidence ?? {}));
    const faults: FaultReport[] = [];
    for (const step of this.#kindSteps.toReversed()) {
      const record = this.#record(step.name);
      if (record === undefined || record.state === "waiting" || record.undoState === "done" || record.undoState === "notNeeded") continue;
      const fault = record.undoState === "failed" ? record.undoFault : await this.#undo(step, record.undoAttemptCount);
      if (fault !== undefined) faults.push(fault);
    }
    return faults;
  }

  async #undo(step: JobStep<object, object>, attemptsBefore: number): Promise<FaultReport | undefined> {
    const { job, clock, interrupt, log, onMoment } = this.#options;
    const { undo } = step;
    if (typeof undo === "string") {
      await this.#write(async (db) => await setUndo(db, job.jobId, step.name, "notNeeded"));
      return undefined;
    }
    for (let attempt = attemptsBefore + 1; ; attempt++) {
      await this.#write(async (db) => await setUndo(db, job.jobId, step.name, "running"));
      try {
        onMoment?.(`${step.name} undo begun`);
        await this.#traced(step, "undo", async () => await undo({ ...this.#context(step, interrupt), hold: refuseHold }));
        onMoment?.(`${step.name} undo ran`);
        await this.#write(async (db) => {
          await setUndo(db, job.jobId, step.name, "done");
          await appendLog(db, job.jobId, step.name, "undone", {});
        });
        return undefined;
      } catch (error) {
        if (interrupt.aborted || error instanceof LeaseLost || isConnectionFault(error)) throw error;
        const fault = toReport(asFault(error, `undo: ${step.title}`));
        log.error("job undo failed", { jobId: job.jobId, step: step.name, fault: fault.id, reason: fault.message, attempt });
        if (attempt >= undoAttemptsMax) {
          await this.#write(async (db) => await setUndo(db, job.jobId, step.name, "failed", fault));
          return fault;
        }
        await clock.sleep(undoFirstWaitMs * 2 ** (attempt - 1), interrupt);
      }
    }
  }

  async #end(outcome: JobOutcome): Promise<void> {
    const { kind, job, log, onEnd } = this.#options;
    await this.#write(async (db) => {
      const result = await kind.settle(db, { jobId: job.jobId, parameters: this.#parameters, state: this.#state, outcome });
      await endJob(db, job.jobId, outcome, result);
      await onEnd?.(db, job, outcome);
    });
    this.#options.traces?.current()?.end(outcome.kind === "succeeded" ? undefined : outcome.fault.id);
    log.info("job ended", { jobId: job.jobId, kind: kind.kind, outcome: outcome.kind });
  }

  #context(step: JobStep<object, object>, signal: AbortSignal): StepContext<object, object> {
    const { job, lease, db } = this.#options;
    const readState = (): object => this.#state;
    return {
      jobId: job.jobId,
      fence: lease.fence,
      parameters: this.#parameters,
      get state() {
        return readState();
      },
      signal,
      save: async (evidence) => {
        await this.#write(async (transaction) => await saveEvidence(transaction, job.jobId, step.name, evidence));
        this.#state = { ...this.#state, ...evidence };
      },
      progress: async (percent, text) => await this.#progress(step, percent, text),
      log: async (text: string, fields: LogFields = {}) =>
        await this.#write(async (transaction) => await appendLog(transaction, job.jobId, step.name, text, fields)),
      write: async (task) => await this.#write(task),
      hold: async (point) => {
        const answer = await readHoldAnswer(db, job.jobId, point.name);
        if (answer === undefined) throw new HoldRequested(point);
        return answer;
      },
      confirm: async () => await underLease(db, lease, async () => undefined),
    };
  }

  async #traced<T>(step: JobStep<object, object>, what: "step" | "undo", task: () => Promise<T>): Promise<T> {
    const { traces = noTraces, job, kind } = this.#options;
    const attributes = { "watari.job_id": job.jobId, "watari.job_kind": kind.kind, "watari.step": step.name };
    return await inSpan(traces, { name: `${what} ${step.name}`, kind: "internal", attributes }, task);
  }

  async #progress(step: JobStep<object, object>, percent: number, text: string): Promise<void> {
    const { clock, db, lease } = this.#options;
    const nowMs = clock.monotonicMs();
    if (nowMs - this.#progressAtMs < progressIntervalMs) return;
    this.#progressAtMs = nowMs;
    const weights = this.#kindSteps.map((each) => each.weight ?? 1);
    const position = this.#kindSteps.indexOf(step);
    const before = weights.slice(0, position).reduce((sum, weight) => sum + weight, 0);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const share = (weights[position] ?? 1) * (Math.min(100, Math.max(0, percent)) / 100);
    await setProgress(db, lease, Math.min(99, (100 * (before + share)) / total), text);
  }

  async #write<T>(task: (db: Queryable) => Promise<T>): Promise<T> {
    this.#options.interrupt.throwIfAborted();
    return await underLease(this.#options.db, this.#options.lease, task);
  }

  #record(name: string): StepRecord | undefined {
    return this.#steps.find((record) => record.name === name);
  }
}

async function refuseHold(): Promise<never> {
  throw new Error("assertion failed: an undo holds for nobody");
}

function cancelledFault(job: JobRecord, step: JobStep<object, object>): FaultReport {
  return toReport(new Fault("JobCancelled", `${job.title} of ${job.targetName} was cancelled`, { evidence: { step: step.name } }));
}

/** For the log only: the private cause of a fault. */
function describeCause(error: unknown): string | undefined {
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  return cause instanceof Error ? (cause.stack ?? cause.message).slice(0, 2000) : undefined;
}
