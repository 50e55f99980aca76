// The resource type of a vault's jobs: lists with a filter, what people do to a job, and the export of lists.

import { z } from "zod";
import type { Filter } from "../api/filter.ts";
import {
  defineAction,
  defineCall,
  defineResource,
  noBody,
  type ActionDefinition,
  type ActionOutcome,
  type ArmCall,
  type ResourceType,
} from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";
import { listJobFiles } from "../db/job-files.ts";
import type { JobEngine } from "../jobs/job-engine.ts";
import type { JobRecord } from "../jobs/job.ts";
import { listJobs } from "../jobs/job-list.ts";
import { readJobParts } from "../jobs/job-parts.ts";
import { readJob, readStepsOf } from "../jobs/job-store.ts";
import { applianceJobKinds } from "./appliance-jobs.ts";
import { exportBody, exportDetails, exportJobs, exportKind, type JobServices } from "./job-export.ts";
import { jobGrammar, jobWishOf } from "./job-filter.ts";
import { jobType, vaultOf } from "./names.ts";
import { presentJob } from "./present-job.ts";
import { queryValues } from "./query-filter.ts";

const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const commentsCharactersMax = 4000;
const resumeBody = z.strictObject({
  properties: z.strictObject({ comments: z.string().max(commentsCharactersMax).nullish() }).nullish(),
});
const nothing = noBody;

export function jobResource(
  services: JobServices,
  engine: () => JobEngine,
  actions: Readonly<Record<string, ActionDefinition>> = {},
): ResourceType {
  const { db } = services.database;
  const show = async (call: ArmCall, jobId: string): Promise<JsonObject | undefined> => {
    const job = uuidPattern.test(jobId) ? await readJob(db, jobId) : undefined;
    return job?.scope === vaultOf(call.id).key ? await presentOne(services, engine(), call, job) : undefined;
  };
  const answer = async (call: ArmCall, jobId: string): Promise<ActionOutcome> => {
    const body = await show(call, jobId);
    return { kind: "done", ...(body === undefined ? {} : { body }) };
  };
  return defineResource({
    type: jobType,
    within: "parent",
    properties: z.record(z.string(), z.unknown()),
    filter: jobGrammar,
    source: {
      get: async (call) => await show(call, call.id.name.toLowerCase()),
      list: async (call, page) => await listPage(services, engine(), call, page),
    },
    actions: {
      ...actions,
      cancel: defineAction({
        body: nothing,
        run: async (call) => {
          const jobId = call.id.name.toLowerCase();
          await engine().cancel(jobId, call.caller.name);
          return await answer(call, jobId);
        },
      }),
      /** Answers the new job: the old one has ended and stays as it is. */
      restart: defineAction({
        body: nothing,
        run: async (call) => await answer(call, await engine().restart(call.id.name.toLowerCase(), call.caller.name)),
      }),
      resume: defineAction({
        body: resumeBody,
        run: async (call, { properties }) => {
          const jobId = call.id.name.toLowerCase();
          await engine().resume(jobId, call.caller.name, properties?.comments ?? "");
          return await answer(call, jobId);
        },
      }),
    },
    collectionActions: {
      export: defineCall({
        body: exportBody,
        run: async (call, body) => await answer(call, await exportJobs(services, call, { body, wish: jobWishOf(body) })),
      }),
    },
  });
}

async function presentOne(services: JobServices, engine: JobEngine, { id }: ArmCall, job: JobRecord): Promise<JsonObject> {
  const { db } = services.database;
  const { jobId } = job;
  const { steps, holds, log } = await readJobParts(db, jobId);
  const details = job.kind === exportKind ? { customDetails: await exportDetails(services, vaultOf(id), job) } : {};
  const files = await listJobFiles(db, jobId);
  const networkReport = job.kind === applianceJobKinds.check ? (await services.operations.find(jobId))?.result : undefined;
  const more = { ...details, ...(networkReport === undefined ? {} : { networkReport }) };
  return presentJob({ vault: vaultOf(id), job, steps, canRestart: engine.canRestart(job), holds, log, files, ...more });
}

async function listPage(
  { database }: JobServices,
  engine: JobEngine,
  { id, query }: ArmCall,
  { after, countMax, filter }: { readonly after: string | undefined; readonly countMax: number; readonly filter?: Filter | undefined },
): Promise<{ readonly items: readonly JsonObject[]; readonly next: string | undefined }> {
  const vault = vaultOf(id);
  // Anything else is told as a token that is not of this list.
  const afterJobId = z.guid().optional().parse(after);
  const wish = jobWishOf(queryValues(filter, query["$filter"]));
  const { jobs, next } = await listJobs(database.db, { scope: vault.key, countMax, afterJobId, wish });
  const steps = await readStepsOf(
    database.db,
    jobs.map((job) => job.jobId),
  );
  const items = jobs.map((job) => presentJob({ vault, job, steps: steps.get(job.jobId) ?? [], canRestart: engine.canRestart(job) }));
  return { items, next };
}
