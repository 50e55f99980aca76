// What a job's end tells as an event: every failure and cancellation, and each failover or protection that succeeded.

import { parseResourceId } from "../api/resource-id.ts";
import type { NewEvent } from "../db/events.ts";
import type { JobOutcome, JobRecord } from "../jobs/job.ts";
import { fabricType } from "./names.ts";

/** Jobs whose success a person waits for. Others are told by what they change. */
const toldKinds: ReadonlySet<string> = new Set([
  "EnableProtection",
  "DisableProtection",
  "TestFailover",
  "TestFailoverCleanup",
  "UnplannedFailover",
  "CommitFailover",
  "CancelFailover",
]);

const states = { succeeded: "Succeeded", failed: "Failed", cancelled: "Cancelled" } as const;
const severities = { succeeded: "Info", failed: "Critical", cancelled: "Info" } as const;

/** Undefined: nothing to tell. */
export function eventOfJob(job: JobRecord, outcome: JobOutcome): NewEvent | undefined {
  if (outcome.kind === "succeeded" && !toldKinds.has(job.kind)) return undefined;
  const state = states[outcome.kind];
  const fabricId = fabricOf(job.targetId);
  return {
    vaultKey: job.scope,
    dedupKey: `job:${job.jobId}`,
    code: `${job.kind}${state}`,
    kind: "JobStatus",
    severity: severities[outcome.kind],
    description: outcome.kind === "succeeded" ? `${job.title} of ${job.targetName} has succeeded` : outcome.fault.message,
    affected: { id: job.targetId, name: job.targetName },
    ...(fabricId === undefined ? {} : { fabricId }),
    component: "Hub",
    ...(outcome.kind === "succeeded" ? {} : { fault: outcome.fault }),
    job: { jobId: job.jobId, title: job.title, state },
  };
}

function fabricOf(targetId: string): string | undefined {
  const found = new RegExp(`^.*/${fabricType.split("/").at(-1)}/[^/]+`, "i").exec(targetId)?.[0];
  return found === undefined ? undefined : parseResourceId(found).text;
}
