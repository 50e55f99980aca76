// For tests: a job of four steps whose effects are rows, which fails, stops or kills its process at a named moment.

import { sql } from "kysely";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { defineJob, stored, type JobKind, type JobStep, type Queryable } from "./job.ts";

const moments = ["before", "inside", "after", "undo"] as const;

const parametersShape = z.object({
  /** "two:inside": where something happens. */
  moment: z.string().optional(),
  does: z.enum(["kill", "wait", "undoFail", "hold"]).optional(),
  /** "three:inside": where the step fails. */
  failsAt: z.string().optional(),
  /** How long each step takes. */
  pauseMs: z.number().optional(),
});
type Parameters = z.infer<typeof parametersShape>;

interface State {
  one?: string;
  two?: string;
  three?: string;
  four?: string;
}
const names = ["one", "two", "three", "four"] as const;
type Name = (typeof names)[number];

export interface TrialWorld {
  /** Stands outside the database in these tests: what a machine would do. */
  readonly touch: (db: Queryable, jobId: string, name: string, act: "do" | "undo", fence: number) => Promise<void>;
  readonly kill: () => void;
}

export const trialMoments: readonly string[] = names.flatMap((name) => moments.map((moment) => `${name}:${moment}`));

/** `kind` keeps the hubs of one test to the jobs of that test. */
export function defineTrialJob(world: TrialWorld, db: Queryable, kind: string): JobKind {
  return defineJob<Parameters, State>({
    kind,
    title: "trial",
    parameters: parametersShape,
    steps: names.map((name) => trialStep(world, db, name)),
    settle: async (transaction, end) => {
      await sql`insert into trial_ends (job_id, outcome, evidence) values (${end.jobId}, ${end.outcome.kind}, ${JSON.stringify(end.state)}::jsonb)`.execute(
        transaction,
      );
      return { outcome: end.outcome.kind };
    },
    restart: async (transaction, { parameters, jobId }) => {
      if (parameters.does === "undoFail") throw new Fault("StateConflict", "the target is not in a state to begin again");
      await sql`insert into trial_acts (job_id, name, act, fence) values (${jobId}, 'restart', 'do', 0)`.execute(transaction);
    },
  });
}

function trialStep(world: TrialWorld, db: Queryable, name: Name): JobStep<Parameters, State> {
  const isNow = (parameters: Parameters, moment: string): boolean => parameters.moment === `${name}:${moment}`;
  const mustFail = (parameters: Parameters, moment: string): boolean => parameters.failsAt === `${name}:${moment}`;
  return {
    name,
    title: `trial step ${name}`,
    run: async (context) => {
      const { parameters, jobId, fence, signal } = context;
      const meet = async (moment: string): Promise<void> => {
        if (mustFail(parameters, moment)) throw new Fault("InputInvalid", `step ${name} failed as told`);
        if (!isNow(parameters, moment)) return;
        // A kill, and a wait, happen once: the hub that takes over goes on.
        if (parameters.does === "kill" && (await isFirstTime(db, jobId))) world.kill();
        if (parameters.does === "hold") {
          const answer = await context.hold({ name: moment, title: `hold at ${moment}`, instructions: "look, then resume" });
          await context.log(`went on for ${answer.by}: ${answer.comments}`);
        }
        if (parameters.does === "wait") await untilAborted(signal);
      };
      await meet("before");
      await context.save({ [name]: `began ${name}` });
      await context.confirm();
      await world.touch(db, jobId, name, "do", fence);
      if (parameters.pauseMs !== undefined) await systemClock.sleep(parameters.pauseMs, signal);
      await meet("inside");
      await context.log(`touched ${name}`);
      const before = names.slice(0, names.indexOf(name)).map((each) => stored(context.state, each));
      await meet("after");
      return { [name]: `${name} after ${before.length}` };
    },
    undo: async ({ parameters, jobId, fence, confirm }) => {
      await confirm();
      await world.touch(db, jobId, name, "undo", fence);
      if (isNow(parameters, "undo") && parameters.does === "kill" && (await isFirstTime(db, jobId))) world.kill();
      if (isNow(parameters, "undo") && parameters.does === "undoFail") throw new Fault("Internal", `undo of ${name} failed as told`);
    },
  };
}

async function isFirstTime(db: Queryable, jobId: string): Promise<boolean> {
  const first = await sql`insert into trial_kills (job_id) values (${jobId}) on conflict do nothing returning job_id`.execute(db);
  return first.rows.length === 1;
}

async function untilAborted(signal: AbortSignal): Promise<never> {
  signal.throwIfAborted();
  return await new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
}

export const trialStatements: readonly string[] = [
  `create table if not exists trial_effects (job_id uuid, name text, fence bigint, primary key (job_id, name))`,
  `create table if not exists trial_acts (serial bigserial, job_id uuid, name text, act text, fence bigint)`,
  `create table if not exists trial_kills (job_id uuid primary key)`,
  `create table if not exists trial_ends (job_id uuid primary key, outcome text, evidence jsonb)`,
];

/**
 * Effects as rows: doing twice is fine, a lower fence than one seen is refused. The check and the effect are one statement: between two, a
 * hub could be paused, and its effect would come late.
 */
export const touchRows: TrialWorld["touch"] = async (db, jobId, name, act, fence) => {
  const effect =
    act === "do"
      ? sql`insert into trial_effects (job_id, name, fence) select job_id, name, fence from act on conflict do nothing`
      : sql`delete from trial_effects where (job_id, name) in (select job_id, name from act)`;
  const acts = await sql<{ count: number }>`with act as (
      insert into trial_acts (job_id, name, act, fence) select ${jobId}::uuid, ${name}, ${act}, ${fence}::bigint
      where not exists (select 1 from trial_acts where job_id = ${jobId} and fence > ${fence}) returning job_id, name, fence),
    effect as (${effect})
    select count(*)::int as count from act`.execute(db);
  if (acts.rows[0]?.count !== 1) throw new Error("a stale hub gave a command");
};
