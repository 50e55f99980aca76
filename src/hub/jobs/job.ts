// What a durable job is: parameters and an ordered list of named, idempotent steps, each with an undo or a sentence why none is needed.

import type { Kysely } from "kysely";
import type { z } from "zod";
import type { LogFields } from "../../base/log.ts";
import type { FaultReport } from "../../contract/errors.ts";
import type { JsonObject } from "../db/resources.ts";
import type { Tables } from "../db/tables.ts";

/** Either the pool or a transaction of it. */
export type Queryable = Kysely<Tables>;

/** suspended: a step waits for a person; resume or cancel goes on. */
export type JobState = "notStarted" | "inProgress" | "suspended" | "undoing" | "succeeded" | "failed" | "cancelled";
export type StepState = "waiting" | "running" | "done" | "failed";
export type UndoState = "none" | "running" | "done" | "failed" | "notNeeded";

/**
 * What a step gets. A step may be started again after a crash at any line, by this hub or another, so everything it does
 * is safe to do twice, and everything it decides once is kept with `save` before it is acted on.
 */
export interface StepContext<Parameters extends object, State extends object> {
  readonly jobId: string;
  /**
   * Rises each time a hub takes any job, so the numbers of all jobs of a database can be compared. It goes with every command to
   * something outside the database; who gets a lower number than it saw before for the same thing must refuse it.
   */
  readonly fence: number;
  readonly parameters: Parameters;
  /** Evidence of all steps so far, merged in the order of the steps. */
  readonly state: Readonly<Partial<State>>;
  /** Aborted when the job is cancelled, the hub stops, or another hub has taken the job. */
  readonly signal: AbortSignal;
  /** Adds to this step's evidence; durable on return. */
  save(evidence: Partial<State>): Promise<void>;
  /** Tells how far this step is, 0 to 100; stored at most a few times a second. */
  progress(percent: number, text: string): Promise<void>;
  /** Adds a line to the job's log; durable on return, bounded per job. */
  log(text: string, fields?: LogFields): Promise<void>;
  /** One transaction that commits only while this run still owns the job. All writes of a step to the database go through it. */
  write<T>(task: (db: Queryable) => Promise<T>): Promise<T>;
  /**
   * Goes on once a person has resumed the job at this point; before that it rejects, the job is suspended and holds no hub. The step is
   * then run again from its start, where the same call answers. What it rejects with must be passed on. Not for undos.
   */
  hold(point: HoldPoint): Promise<HoldAnswer>;
  /** Rejects when another hub has taken the job. Called right before each command to something outside the database. */
  confirm(): Promise<void>;
}

export interface HoldPoint {
  /** Identity of the point in its job; never renamed. */
  readonly name: string;
  readonly title: string;
  /** What the person is to do before resuming. */
  readonly instructions: string;
}

export interface HoldAnswer {
  readonly by: string;
  readonly comments: string;
  readonly at: string;
}

export interface JobStep<Parameters extends object, State extends object> {
  /** Identity of the step in stored jobs; never renamed. */
  readonly name: string;
  /** For people. */
  readonly title: string;
  /** Share of the job's progress; 1 unless told. */
  readonly weight?: number;
  /** What it answers is stored as the step's evidence and merged into the state. */
  readonly run: (context: StepContext<Parameters, State>) => Promise<Partial<State>>;
  /** Takes back what `run` did or began, also when `run` failed or never ended; or why nothing has to be taken back. */
  readonly undo: ((context: StepContext<Parameters, State>) => Promise<void>) | string;
}

export type JobOutcome =
  | { readonly kind: "succeeded" }
  | { readonly kind: "failed" | "cancelled"; readonly fault: FaultReport; readonly undoFaults: readonly FaultReport[] };

export interface JobDefinition<Parameters extends object, State extends object> {
  /** ARM scenario name: "EnableProtection". */
  readonly kind: string;
  readonly title: string;
  readonly parameters: z.ZodType<Parameters>;
  /** The same for all jobs of the kind, or a pure function of a job's parameters. */
  readonly steps: readonly JobStep<Parameters, State>[] | ((parameters: Parameters) => readonly JobStep<Parameters, State>[]);
  /** Its steps mostly wait for jobs that they submit. Such jobs have places of their own, and none waits for another such job. */
  readonly isCoordinating?: boolean;
  /** Settles the resource in the transaction that ends the job; answers the body that ends the ARM operation, if any. */
  readonly settle: (db: Queryable, end: JobEnd<Parameters, State>) => Promise<JsonObject | undefined>;
  /**
   * Makes a failed or cancelled job restartable: checks that the resource is in a state from which it may begin (throws a Fault if not)
   * and sets the state of the beginning, in the transaction that stores the new job. Absent: the job cannot be restarted.
   */
  readonly restart?: (db: Queryable, begin: { readonly jobId: string; readonly parameters: Parameters }) => Promise<void>;
}

export interface JobEnd<Parameters extends object, State extends object> {
  readonly jobId: string;
  readonly parameters: Parameters;
  readonly state: Readonly<Partial<State>>;
  readonly outcome: JobOutcome;
}

/** A definition whose types are erased, as the engine keeps it; parameters are proved by the schema on each load. */
export type JobKind = JobDefinition<object, object>;

/** Checks a definition and erases its types. */
export function defineJob<Parameters extends object, State extends object>(definition: JobDefinition<Parameters, State>): JobKind {
  if (typeof definition.steps !== "function") checkStepNames(definition.kind, definition.steps);
  return definition as unknown as JobKind; // The engine gives back only what this definition's schema and steps made.
}

/** The steps of one job. */
export function stepsOf(kind: JobKind, parameters: object): readonly JobStep<object, object>[] {
  if (typeof kind.steps !== "function") return kind.steps;
  const steps = kind.steps(parameters);
  checkStepNames(kind.kind, steps);
  return steps;
}

function checkStepNames(kind: string, steps: readonly { readonly name: string }[]): void {
  const names = new Set(steps.map((step) => step.name));
  if (names.size !== steps.length) throw new Error(`assertion failed: step names of ${kind} are distinct`);
}

/** A value that an earlier step has stored; its absence is a fault of the program. */
export function stored<State extends object, Key extends keyof State>(
  state: Readonly<Partial<State>>,
  key: Key,
): Exclude<State[Key], undefined> {
  const value = state[key];
  if (value === undefined) throw new Error(`assertion failed: an earlier step stored ${String(key)}`);
  return value as Exclude<State[Key], undefined>; // Proved by the check above.
}

export interface StepRecord {
  readonly name: string;
  readonly title: string;
  readonly position: number;
  readonly state: StepState;
  readonly undoState: UndoState;
  readonly attemptCount: number;
  readonly undoAttemptCount: number;
  readonly evidence: object;
  readonly fault?: FaultReport;
  readonly undoFault?: FaultReport;
  readonly startedAt?: string;
  readonly endedAt?: string;
}

export interface JobRecord {
  readonly jobId: string;
  readonly kind: string;
  readonly title: string;
  /** Lower-case resource id of the vault that the job belongs to. */
  readonly scope: string;
  readonly targetId: string;
  readonly targetName: string;
  readonly actor: string;
  readonly parameters: object;
  readonly state: JobState;
  readonly percent: number;
  readonly text: string;
  readonly fault?: FaultReport;
  readonly isCancelRequested: boolean;
  /** The job that this one begins again. */
  readonly restartOf?: string;
  /** The job that began this one again. */
  readonly restartedAs?: string;
  /** W3C trace context of the request that ordered it. */
  readonly traceparent?: string;
  readonly createdAt: string;
  readonly startedAt?: string;
  readonly endedAt?: string;
}

export interface JobHold extends HoldPoint {
  readonly step: string;
  readonly heldAt: string;
  readonly answer?: HoldAnswer;
}

export interface JobLogLine {
  readonly serial: number;
  readonly at: string;
  readonly step: string;
  readonly text: string;
  readonly fields: LogFields;
}
