// Jobs of recovery plans: groups one after the other, the machines of a group at once as jobs of their own, people's actions between.

import { createHash } from "node:crypto";
import { sql } from "kysely";
import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault, toReport, type FaultReport } from "../../contract/errors.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { JsonObject } from "../db/resources.ts";
import { isConnectionFault } from "../jobs/connection-fault.ts";
import { defineJob, type JobKind, type JobState, type JobStep, type Queryable, type StepContext } from "../jobs/job.ts";
import { recoveryPointTypes } from "./choose-point.ts";
import { operateItem, type ItemWish } from "./item-actions.ts";
import { probeShape } from "./launch-steps.ts";
import { provider } from "./names.ts";
import { answerPlan, groupMachinesAtOnceMax, patchPlan, planOperations, type PlanOperation } from "./plan.ts";
import { isOpen, nextOpening, timeWindowShape } from "./time-window.ts";
import type { ReplicationFront } from "./world.ts";

const stopShape = z.object({ actionName: z.string(), instructions: z.string() });
const runShape = z.object({
  planId: z.string(),
  actor: z.string(),
  input: z.object({
    networkType: z.enum(["NoNetworkAttachAsInput", "VmNetworkAsInput"]).optional(),
    networkId: z.string().optional(),
    recoveryPointType: z.enum(recoveryPointTypes).optional(),
    useMultiVmSyncPoint: z.enum(["Enable", "Disable"]).optional(),
    sourceSiteOperations: z.enum(["Required", "NotRequired"]).optional(),
    probe: probeShape.optional(),
    comments: z.string().optional(),
  }),
  /** As the plan was when it was called: a change of the plan is for the next run. */
  groups: z.array(
    z.object({
      groupType: z.string(),
      starts: z.array(stopShape),
      /** With a point where the plan has chosen one for all of a group. */
      machines: z.array(z.object({ itemId: z.string(), name: z.string(), pointId: z.string().optional() })),
      ends: z.array(stopShape),
      machinesAtOnceMax: z.number().default(groupMachinesAtOnceMax),
      /** Of a run that migrates. */
      window: timeWindowShape.optional(),
    }),
  ),
});
export type PlanRun = z.infer<typeof runShape>;
type RunGroup = PlanRun["groups"][number];

interface MachineEnd extends JsonObject {
  readonly itemId: string;
  readonly name: string;
  readonly jobId: string;
  readonly state: JobState | "waiting" | "refused";
  readonly error?: FaultReport;
}

/** Evidence by the name of its step. */
interface RunState {
  readonly [step: string]: JsonObject;
}
type Context = StepContext<PlanRun, RunState>;
type Step = JobStep<PlanRun, RunState>;

/** The scenario names of jobs. */
export const planJobKinds: Readonly<Record<PlanOperation, string>> = {
  TestFailover: "RecoveryPlanTestFailover",
  TestFailoverCleanup: "RecoveryPlanTestFailoverCleanup",
  UnplannedFailover: "RecoveryPlanUnplannedFailover",
  Commit: "RecoveryPlanCommitFailover",
  CancelFailover: "RecoveryPlanCancelFailover",
};

const titles: Readonly<Record<PlanOperation, string>> = {
  TestFailover: "test the recovery plan",
  TestFailoverCleanup: "clean up the test of the recovery plan",
  UnplannedFailover: "run the recovery plan",
  Commit: "commit the recovery plan",
  CancelFailover: "cancel the recovery plan's migration",
};

export function planJobs(front: ReplicationFront): readonly JobKind[] {
  return planOperations.map((operation) =>
    defineJob<PlanRun, RunState>({
      kind: planJobKinds[operation],
      title: titles[operation],
      isCoordinating: true,
      parameters: runShape,
      steps: ({ groups }) => groups.flatMap((group, index) => groupSteps(front, operation, group, index + 1)),
      settle: async (db, { parameters, outcome }) => {
        const id = parseResourceId(parameters.planId);
        const scenarioStatus = { succeeded: "Succeeded", failed: "Failed", cancelled: "Cancelled" }[outcome.kind];
        await patchPlan(db, id, { scenarioStatus, scenarioDescription: outcome.kind === "succeeded" ? "" : outcome.fault.message });
        return await answerPlan(front.services, db, id);
      },
    }),
  );
}

function groupSteps(front: ReplicationFront, operation: PlanOperation, group: RunGroup, number: number): readonly Step[] {
  const { groupType, starts, ends, ...machinesOfGroup } = group;
  const title = `group ${number} (${groupType})`;
  return [
    ...starts.map((stop, index) => stopStep(`group${number}Start${index + 1}`, title, stop)),
    ...(group.machines.length === 0 ? [] : [machinesStep(front, operation, { name: `group${number}Machines`, title, ...machinesOfGroup })]),
    ...ends.map((stop, index) => stopStep(`group${number}End${index + 1}`, title, stop)),
  ];
}

function stopStep(name: string, groupTitle: string, { actionName, instructions }: RunGroup["starts"][number]): Step {
  const title = `${groupTitle}: ${actionName}`;
  return {
    name,
    title,
    run: async (context) => ({ [name]: { actionName, ...(await context.hold({ name, title, instructions })) } }),
    undo: "what a person did is not taken back",
  };
}

interface Wave extends Pick<RunGroup, "machines" | "machinesAtOnceMax" | "window"> {
  readonly name: string;
  readonly title: string;
}

function machinesStep(front: ReplicationFront, operation: PlanOperation, wave: Wave): Step {
  const { name, title, machines } = wave;
  return {
    name,
    title: `${title}: ${machines.length} machines`,
    weight: machines.length,
    run: async (context) => {
      const ends = await runMachines(front, context, operation, wave);
      const failed = ends.filter((end) => end.state !== "succeeded");
      if (failed.length === 0) return { [name]: { machines: ends } };
      throw new Fault("PlanMachinesFailed", `${failed.length} of ${machines.length} machines of ${title} failed`, {
        evidence: { machines: failed.map(describeEnd) },
      });
    },
    // A cancel begins no further machine; the plan ends when those under way have ended, each as its own job has it.
    undo: async (context) => {
      await endMachines(front, context, operation, wave);
    },
  };
}

function describeEnd({ name, state, error, jobId }: MachineEnd): string {
  return `${name}: ${error === undefined ? state : `${error.id}: ${error.message}`} (job ${jobId})`;
}

interface Child {
  readonly itemId: string;
  readonly name: string;
  readonly jobId: string;
  readonly pointId?: string | undefined;
}

/** Begins what has not begun and waits until all have ended. A run that took over finds the jobs that the one before began. */
async function runMachines(
  front: ReplicationFront,
  context: Context,
  operation: PlanOperation,
  wave: Wave,
): Promise<readonly MachineEnd[]> {
  const { services, limits } = front;
  const children = childrenOf(context.jobId, operation, wave);
  const refused = new Map<string, FaultReport>();
  for (;;) {
    const ends = await readEnds(services.database.db, children, refused);
    const running = ends.filter((end) => isUnderWay(end.state)).length;
    const waiting = ends.filter((end) => end.state === "waiting");
    await context.save({ [wave.name]: { machines: ends } });
    if (running === 0 && waiting.length === 0) return ends;
    const nowMs = services.clock.nowMs();
    const isClosed = wave.window !== undefined && !isOpen(wave.window, nowMs);
    const next = isClosed ? [] : waiting.slice(0, Math.max(0, wave.machinesAtOnceMax - running));
    for (const child of next) {
      context.signal.throwIfAborted();
      const fault = await beginMachine(front, context, operation, child);
      if (fault !== undefined) refused.set(child.jobId, fault);
    }
    const endedCount = children.length - running - waiting.length;
    const until =
      wave.window !== undefined && isClosed && waiting.length > 0
        ? `; ${waiting.length} wait for the window, which opens at ${toTimestamp(nextOpening(wave.window, nowMs))}`
        : "";
    await context.progress((100 * endedCount) / children.length, `${wave.title}: ${endedCount} of ${children.length} machines${until}`);
    await services.clock.sleep(limits.pollMs, context.signal);
  }
}

/** Undefined once the machine's job is stored; the fault when it was refused, for which the plan fails at the group's end. */
async function beginMachine(
  front: ReplicationFront,
  context: Context,
  operation: PlanOperation,
  child: Child,
): Promise<FaultReport | undefined> {
  const { actor, input } = context.parameters;
  try {
    const resource = await front.services.resources.get(child.itemId);
    const call = { id: resource.id, caller: { name: actor }, jobId: child.jobId, write: context.write };
    await operateItem(front, call, resource, wishOf(operation, input, child.pointId));
    await context.log(`began ${child.name}`, { jobId: child.jobId });
    return undefined;
  } catch (error) {
    if (!(error instanceof Fault) || isConnectionFault(error)) throw error;
    return toReport(error);
  }
}

function wishOf(operation: PlanOperation, input: PlanRun["input"], recoveryPointId: string | undefined): ItemWish {
  const { probe, recoveryPointType } = input;
  const point = recoveryPointId === undefined ? { recoveryPointType } : { recoveryPointId };
  const details = { instanceType: provider, ...point, ...(probe === undefined ? {} : { probe }) } as const;
  switch (operation) {
    case "TestFailover": {
      const { networkType, networkId } = input;
      const network = { ...(networkType === undefined ? {} : { networkType }), ...(networkId === undefined ? {} : { networkId }) };
      return { operation, input: { ...network, providerSpecificDetails: details } };
    }
    case "TestFailoverCleanup":
      return { operation, comments: input.comments ?? "" };
    case "UnplannedFailover":
      return { operation, input: { sourceSiteOperations: input.sourceSiteOperations ?? "Required", providerSpecificDetails: details } };
    case "Commit":
    case "CancelFailover":
      return { operation };
  }
}

async function endMachines({ services, limits }: ReplicationFront, context: Context, operation: PlanOperation, wave: Wave): Promise<void> {
  const children = childrenOf(context.jobId, operation, wave);
  for (;;) {
    const ends = await readEnds(services.database.db, children, new Map());
    if (!ends.some((end) => isUnderWay(end.state))) return;
    await services.clock.sleep(limits.pollMs, context.signal);
  }
}

function isUnderWay(state: MachineEnd["state"]): boolean {
  return state === "notStarted" || state === "inProgress" || state === "suspended" || state === "undoing";
}

async function readEnds(
  db: Queryable,
  children: readonly Child[],
  refused: ReadonlyMap<string, FaultReport>,
): Promise<readonly MachineEnd[]> {
  const found = await sql<{ job_id: string; state: JobState; fault: FaultReport | null }>`select job_id, state, fault from jobs
    where job_id = any(${children.map((child) => child.jobId)}::uuid[])`.execute(db);
  return children.map((child) => {
    const job = found.rows.find((row) => row.job_id === child.jobId);
    const error = job?.fault ?? refused.get(child.jobId);
    return { ...child, state: job?.state ?? (error === undefined ? "waiting" : "refused"), ...(error === undefined ? {} : { error }) };
  });
}

/** The jobs' ids follow from the plan's job, so that who takes the plan over asks for the same ones. */
function childrenOf(planJobId: string, operation: PlanOperation, { machines }: Wave): readonly Child[] {
  return machines.map(({ itemId, name, pointId }) => {
    const hex = createHash("sha256").update(`${planJobId}\n${itemId.toLowerCase()}\n${operation}`).digest("hex");
    // RFC 9562, version 8: bits of our own choice.
    const jobId = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
    return { itemId, name, jobId, pointId };
  });
}
