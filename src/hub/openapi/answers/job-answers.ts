// What jobs and events of a vault answer, and the operations behind every 202.

import { z } from "zod";
import { eventType, jobType, provider } from "../../replication/names.ts";
import { anything, fault, healthError, number, seen, text, texts, time, whole, type AnswerTable } from "./answer-parts.ts";
import { networkReport } from "./network-report.ts";

const jobError = z.strictObject({
  serviceErrorDetails: z.strictObject({ code: text, message: text, possibleCauses: text, recommendedAction: text, activityId: text }),
  providerErrorDetails: z.strictObject({
    errorCode: whole,
    errorId: text,
    errorMessage: text,
    possibleCauses: text,
    recommendedAction: text,
  }),
  errorLevel: text,
  creationTime: time,
  taskId: text.optional(),
  watari: z.strictObject({ fault }),
});

const state = z.enum(["NotStarted", "InProgress", "Suspended", "Succeeded", "Failed", "Cancelled"]);
const task = z.strictObject({
  taskId: text,
  name: text,
  friendlyName: text,
  state,
  stateDescription: text,
  taskType: z.enum(["JobTask", "ManualAction"]),
  startTime: time.optional(),
  endTime: time.optional(),
  allowedActions: texts,
  customDetails: z
    .strictObject({ instanceType: z.literal("ManualActionTaskDetails"), name: text, instructions: text, observation: text })
    .optional(),
  errors: z.array(jobError),
  /** Evidence has the members that the step names. */
  watari: z.strictObject({ evidence: anything, attemptCount: whole, undoState: text }),
});

const affectedObjectDetails = z.strictObject({ friendlyName: text, id: text, type: text });
const itemOfJob = z.strictObject({
  name: text,
  friendlyName: text,
  testVmName: text.optional(),
  testVmFriendlyName: text.optional(),
  networkFriendlyName: text.optional(),
  recoveryPointId: text.optional(),
});
const jobDetails = z.discriminatedUnion("instanceType", [
  z.strictObject({ instanceType: z.literal("AsrJobDetails"), affectedObjectDetails }),
  z.strictObject({ instanceType: z.literal("FailoverJobDetails"), affectedObjectDetails, protectedItemDetails: z.array(itemOfJob) }),
  z.strictObject({
    instanceType: z.literal("TestFailoverJobDetails"),
    affectedObjectDetails,
    testFailoverStatus: state,
    comments: text,
    networkName: text.optional(),
    networkFriendlyName: text.optional(),
    networkType: text,
    protectedItemDetails: z.array(itemOfJob),
  }),
  z.strictObject({
    instanceType: z.literal("ExportJobDetails"),
    affectedObjectDetails: z.strictObject({}),
    blobUri: text,
    sasToken: text,
  }),
]);

/** What a job keeps for people: a serial log, a picture of a screen. */
const keptFile = z.strictObject({ name: text, contentType: text, sizeBytes: whole });

const job = seen(
  z.strictObject({
    activityId: text,
    scenarioName: text,
    friendlyName: text,
    state,
    stateDescription: text,
    tasks: z.array(task),
    errors: z.array(jobError),
    startTime: time,
    endTime: time.optional(),
    allowedActions: texts,
    targetObjectId: text,
    targetObjectName: text,
    targetInstanceType: text,
    customDetails: jobDetails,
    watari: z.strictObject({
      percent: number,
      text,
      evidence: anything,
      restartOf: text.optional(),
      restartedAs: text.optional(),
      /** Of one job alone; lists go without. */
      log: z.array(z.strictObject({ serial: whole, at: time, step: text, text, fields: anything })).optional(),
      networkReport: networkReport.optional(),
      files: z.array(keptFile).optional(),
    }),
  }),
);

const event = seen(
  z.strictObject({
    eventCode: text,
    description: text,
    eventType: text,
    affectedObjectFriendlyName: text,
    affectedObjectCorrelationId: text,
    severity: text,
    timeOfOccurrence: time,
    fabricId: text.optional(),
    providerSpecificDetails: z.strictObject({
      instanceType: z.literal(provider),
      eventType: text,
      category: text,
      component: text,
      correctiveAction: text,
      details: text,
      summary: text,
      siteName: text,
    }),
    eventSpecificDetails: z
      .strictObject({
        instanceType: z.literal("JobStatus"),
        jobId: text,
        jobFriendlyName: text,
        jobStatus: text,
        affectedObjectType: text,
      })
      .optional(),
    healthErrors: z.array(healthError),
  }),
);

export const jobAnswers: AnswerTable = {
  [jobType]: {
    resource: job,
    actions: {
      ...{ cancel: job, restart: job, resume: job },
      equalityReport: z.strictObject({ report: text }),
      equalityPages: z.strictObject({ pages: z.record(text, text) }),
      /** The address is a secret while it is good. */
      file: keptFile.extend({ url: text, expiresAt: time }),
    },
    collectionActions: { export: job },
  },
  [eventType]: { resource: event },
};
