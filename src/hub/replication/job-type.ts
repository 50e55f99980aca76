// Jobs as ARM clients see them, from the durable jobs' own rows.

import { z } from "zod";
import type { FaultReport } from "../../contract/errors.ts";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { JsonObject } from "../db/resources.ts";
import type { JobEngine } from "../jobs/job-engine.ts";
import type { JobRecord, JobState, StepRecord } from "../jobs/job.ts";
import { listJobs, readJob, readLog, readSteps } from "../jobs/job-store.ts";
import type { HubServices } from "../services.ts";
import { jobType, vaultOf } from "./names.ts";

const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const anything = z.record(z.string(), z.unknown());

export function jobResource(services: HubServices, engine: () => JobEngine): ResourceType {
  const { db } = services.database;
  return defineResource({
    type: jobType,
    within: "parent",
    properties: anything,
    source: {
      get: async ({ id }) => {
        const vault = vaultOf(id);
        const name = id.name.toLowerCase();
        const job = uuidPattern.test(name) ? await readJob(db, name) : undefined;
        if (job?.scope !== vault.key) return undefined;
        const log = await readLog(db, job.jobId);
        return toArmJob(vault, job, await readSteps(db, job.jobId), { log });
      },
      list: async ({ id }, { after, countMax }) => {
        const vault = vaultOf(id);
        const jobs = await listJobs(db, { scope: vault.key, limit: countMax + 1, ...parseAfter(after) });
        const page = jobs.slice(0, countMax);
        const items = await Promise.all(page.map(async (job) => toArmJob(vault, job, await readSteps(db, job.jobId), {})));
        const last = page.at(-1);
        return { items, next: jobs.length > countMax && last !== undefined ? `${last.createdAt} ${last.jobId}` : undefined };
      },
    },
    actions: {
      cancel: defineAction({
        body: z.unknown(),
        run: async ({ id, caller }) => {
          const jobId = id.name.toLowerCase();
          await engine().cancel(jobId, caller.name);
          const job = await readJob(db, jobId);
          return { kind: "done", ...(job === undefined ? {} : { body: toArmJob(vaultOf(id), job, await readSteps(db, jobId), {}) }) };
        },
      }),
    },
  });
}

function parseAfter(after: string | undefined): { readonly after?: { readonly createdAt: string; readonly jobId: string } } {
  const [createdAt, jobId] = after?.split(" ") ?? [];
  return createdAt === undefined || jobId === undefined ? {} : { after: { createdAt, jobId } };
}

function toArmJob(vault: ResourceId, job: JobRecord, steps: readonly StepRecord[], extra: JsonObject): JsonObject {
  return {
    id: `${vault.text}/replicationJobs/${job.jobId}`,
    name: job.jobId,
    type: jobType,
    properties: {
      activityId: job.jobId,
      scenarioName: job.kind,
      friendlyName: job.title,
      state: stateOf(job.state),
      stateDescription: describe(job),
      tasks: steps.map(toTask),
      errors: errorsOf(job, steps),
      startTime: job.startedAt ?? job.createdAt,
      ...(job.endedAt === undefined ? {} : { endTime: job.endedAt }),
      allowedActions: job.state === "notStarted" || job.state === "inProgress" ? ["Cancel"] : [],
      targetObjectId: job.targetId,
      targetObjectName: job.targetName,
      targetInstanceType: "ProtectionEntity",
      customDetails: { instanceType: "AsrJobDetails", affectedObjectDetails: {} },
      watari: {
        percent: job.percent,
        text: job.text,
        evidence: Object.assign({}, ...steps.map((step) => step.evidence)) as object,
        ...extra,
      },
    },
  };
}

function stateOf(state: JobState): string {
  return {
    notStarted: "NotStarted",
    inProgress: "InProgress",
    suspended: "Suspended",
    undoing: "InProgress",
    succeeded: "Succeeded",
    failed: "Failed",
    cancelled: "Cancelled",
  }[state];
}

function describe(job: JobRecord): string {
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

function toTask(step: StepRecord): JsonObject {
  const state = { waiting: "NotStarted", running: "InProgress", done: "Succeeded", failed: "Failed" }[step.state];
  return {
    taskId: step.name,
    name: step.name,
    friendlyName: step.title,
    state,
    stateDescription: step.undoState === "none" ? state : `undo: ${step.undoState}`,
    taskType: "JobTask",
    ...(step.startedAt === undefined ? {} : { startTime: step.startedAt }),
    ...(step.endedAt === undefined ? {} : { endTime: step.endedAt }),
    allowedActions: [],
    errors: [step.fault, step.undoFault].flatMap((fault) => (fault === undefined ? [] : [toJobError(fault, step)])),
    watari: { evidence: step.evidence, attemptCount: step.attemptCount, undoState: step.undoState },
  };
}

function errorsOf(job: JobRecord, steps: readonly StepRecord[]): readonly JsonObject[] {
  const failed = steps.find((step) => step.fault !== undefined);
  const undos = steps.flatMap((step) => (step.undoFault === undefined ? [] : [toJobError(step.undoFault, step)]));
  return [...(job.fault === undefined ? [] : [toJobError(job.fault, failed)]), ...undos];
}

function toJobError(fault: FaultReport, step: StepRecord | undefined): JsonObject {
  const causesAndAction = { possibleCauses: fault.causes.join("; "), recommendedAction: fault.action };
  return {
    serviceErrorDetails: { code: fault.id, message: fault.message, ...causesAndAction, activityId: "" },
    providerErrorDetails: { errorId: fault.id, errorMessage: fault.message, ...causesAndAction },
    errorLevel: "Error",
    ...(step?.endedAt === undefined ? {} : { creationTime: step.endedAt }),
    ...(step === undefined ? {} : { taskId: step.name }),
    watari: { fault },
  };
}
