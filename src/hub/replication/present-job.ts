// A durable job as ARM clients see it: states, tasks, errors and what may be done with it now.

import { crc32 } from "node:zlib";
import { z } from "zod";
import type { FaultReport } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { JsonObject } from "../db/resources.ts";
import type { JobHold, JobLogLine, JobRecord, JobState, StepRecord } from "../jobs/job.ts";
import { affectedTypeOf } from "./affected-type.ts";
import { jobType } from "./names.ts";

export interface JobView {
  readonly vault: ResourceId;
  readonly job: JobRecord;
  readonly steps: readonly StepRecord[];
  /** Whether the engine would begin it again. */
  readonly canRestart: boolean;
  /** Of one job alone; lists go without. */
  readonly holds?: readonly JobHold[];
  readonly log?: readonly JobLogLine[];
  /** What it keeps for people; each is read by the action `file`. */
  readonly files?: readonly JsonObject[];
  /** Replaces the details that follow from the job's kind. */
  readonly customDetails?: JsonObject;
  /** What a check of ways found; of one job alone. */
  readonly networkReport?: JsonObject;
}

/** Clients' words for states; "undoing" is work like any other to them. */
export const armStates: Readonly<Record<JobState, string>> = {
  notStarted: "NotStarted",
  inProgress: "InProgress",
  suspended: "Suspended",
  undoing: "InProgress",
  succeeded: "Succeeded",
  failed: "Failed",
  cancelled: "Cancelled",
};

export function presentJob(view: JobView): JsonObject {
  const { vault, job, steps, log } = view;
  return {
    id: `${vault.text}/replicationJobs/${job.jobId}`,
    name: job.jobId,
    type: jobType,
    properties: {
      activityId: job.jobId,
      scenarioName: job.kind,
      friendlyName: job.title,
      state: armStates[job.state],
      stateDescription: describe(job),
      tasks: steps.map((step) => toTask(view, step)),
      errors: errorsOf(job, steps),
      startTime: job.startedAt ?? job.createdAt,
      ...(job.endedAt === undefined ? {} : { endTime: job.endedAt }),
      allowedActions: actionsOf(view),
      targetObjectId: job.targetId,
      targetObjectName: job.targetName,
      targetInstanceType: affectedTypeOf(job.targetId),
      customDetails: view.customDetails ?? detailsOf(view),
      watari: {
        percent: job.percent,
        text: job.text,
        evidence: evidenceOf(steps),
        ...(job.restartOf === undefined ? {} : { restartOf: job.restartOf }),
        ...(job.restartedAs === undefined ? {} : { restartedAs: job.restartedAs }),
        ...(log === undefined ? {} : { log }),
        ...(view.files === undefined || view.files.length === 0 ? {} : { files: view.files }),
        ...(view.networkReport === undefined ? {} : { networkReport: view.networkReport }),
      },
    },
  };
}

function actionsOf({ job, canRestart }: JobView): readonly string[] {
  if (job.isCancelRequested && job.endedAt === undefined) return [];
  switch (job.state) {
    case "notStarted":
    case "inProgress":
      return ["Cancel"];
    case "suspended":
      return ["Resume", "Cancel"];
    case "failed":
    case "cancelled":
      return canRestart ? ["Restart"] : [];
    case "undoing":
    case "succeeded":
      return [];
  }
}

function describe(job: JobRecord): string {
  if (job.isCancelRequested && job.endedAt === undefined) return "Cancelling";
  return {
    notStarted: "Waiting",
    inProgress: job.text === "" ? "InProgress" : job.text,
    suspended: job.text,
    undoing: "RollingBack",
    succeeded: "Completed",
    failed: "Failed",
    cancelled: "Cancelled",
  }[job.state];
}

function toTask({ job, holds = [] }: JobView, step: StepRecord): JsonObject {
  const isHeld = job.state === "suspended" && step.state === "running";
  const state = isHeld ? "Suspended" : { waiting: "NotStarted", running: "InProgress", done: "Succeeded", failed: "Failed" }[step.state];
  const hold = holds.findLast((each) => each.step === step.name);
  return {
    taskId: step.name,
    name: step.name,
    friendlyName: step.title,
    state,
    stateDescription: step.undoState === "none" ? (isHeld ? job.text : state) : `undo: ${step.undoState}`,
    taskType: hold === undefined ? "JobTask" : "ManualAction",
    ...(step.startedAt === undefined ? {} : { startTime: step.startedAt }),
    ...(step.endedAt === undefined ? {} : { endTime: step.endedAt }),
    allowedActions: isHeld && !job.isCancelRequested ? ["Resume"] : [],
    ...(hold === undefined ? {} : { customDetails: toManualAction(hold) }),
    errors: [step.fault, step.undoFault].flatMap((fault) => (fault === undefined ? [] : [toJobError(job, fault, step)])),
    watari: { evidence: step.evidence, attemptCount: step.attemptCount, undoState: step.undoState },
  };
}

function toManualAction(hold: JobHold): JsonObject {
  return {
    instanceType: "ManualActionTaskDetails",
    name: hold.title,
    instructions: hold.instructions,
    observation: hold.answer?.comments ?? "",
  };
}

const failoverScenarios: ReadonlySet<string> = new Set(["UnplannedFailover", "CommitFailover", "CancelFailover"]);
const testScenarios: ReadonlySet<string> = new Set(["TestFailover", "TestFailoverCleanup"]);
/** What the customary steps leave and take; a job that has none of it shows none. */
const shownShape = z.object({
  pointId: z.string().optional(),
  landedName: z.string().optional(),
  networkId: z.string().optional(),
});

function detailsOf({ job, steps }: JobView): JsonObject {
  const affectedObjectDetails = { friendlyName: job.targetName, id: job.targetId, type: affectedTypeOf(job.targetId) };
  const { pointId, landedName, networkId } = shownShape.safeParse({ ...job.parameters, ...evidenceOf(steps) }).data ?? {};
  const networkName = networkId?.split("/").at(-1);
  const item = {
    name: job.targetId.split("/").at(-1),
    friendlyName: job.targetName,
    ...(landedName === undefined ? {} : { testVmName: landedName, testVmFriendlyName: landedName }),
    ...(networkName === undefined ? {} : { networkFriendlyName: networkName }),
    ...(pointId === undefined ? {} : { recoveryPointId: pointId }),
  };
  if (testScenarios.has(job.kind))
    return {
      instanceType: "TestFailoverJobDetails",
      affectedObjectDetails,
      testFailoverStatus: armStates[job.state],
      comments: "",
      ...(networkName === undefined ? {} : { networkName, networkFriendlyName: networkName }),
      networkType: networkId === undefined ? "NoNetworkAttachAsInput" : "VmNetworkAsInput",
      protectedItemDetails: [item],
    };
  if (failoverScenarios.has(job.kind)) return { instanceType: "FailoverJobDetails", affectedObjectDetails, protectedItemDetails: [item] };
  return { instanceType: "AsrJobDetails", affectedObjectDetails };
}

function evidenceOf(steps: readonly StepRecord[]): object {
  return Object.assign({}, ...steps.map((step) => step.evidence)) as object; // Object.assign of objects is one.
}

function errorsOf(job: JobRecord, steps: readonly StepRecord[]): readonly JsonObject[] {
  const failed = steps.find((step) => step.fault !== undefined);
  const undos = steps.flatMap((step) => (step.undoFault === undefined ? [] : [toJobError(job, step.undoFault, step)]));
  return [...(job.fault === undefined ? [] : [toJobError(job, job.fault, failed)]), ...undos];
}

function toJobError(job: JobRecord, fault: FaultReport, step: StepRecord | undefined): JsonObject {
  const causesAndAction = { possibleCauses: fault.causes.join("; "), recommendedAction: fault.action };
  return {
    serviceErrorDetails: { code: fault.id, message: fault.message, ...causesAndAction, activityId: job.jobId },
    providerErrorDetails: { errorCode: errorCodeOf(fault.id), errorId: fault.id, errorMessage: fault.message, ...causesAndAction },
    errorLevel: "Error",
    creationTime: step?.endedAt ?? job.endedAt ?? job.startedAt ?? job.createdAt,
    ...(step === undefined ? {} : { taskId: step.name }),
    watari: { fault },
  };
}

/** Clients want a number. It follows from the fault's id alone, so it stays the same over versions; the id is what people search for. */
function errorCodeOf(id: string): number {
  return 100_000 + (crc32(id) % 900_000);
}
