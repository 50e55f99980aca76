// What a job's end tells as an event: every failure and cancellation, and each failover or protection that succeeded.

import type { NewEvent } from "../db/events.ts";
import type { JobOutcome, JobRecord } from "../jobs/job.ts";

/** Jobs whose success a person waits for. Others are told by what they change. */
const toldKinds: ReadonlySet<string> = new Set([
  "EnableProtection",
  "DisableProtection",
  "TestFailover",
  "TestFailoverCleanup",
  "Rehearsal",
  "UnplannedFailover",
  "CommitFailover",
  "CancelFailover",
]);

const states = { succeeded: "Succeeded", failed: "Failed", cancelled: "Cancelled" } as const;
const severities = { succeeded: "Info", failed: "Critical", cancelled: "Info" } as const;

/** Undefined: nothing to tell. */
export function eventOfJob(job: JobRecord, outcome: JobOutcome): NewEvent | undefined {
  // A recovery plan's job does the same for many machines.
  if (outcome.kind === "succeeded" && !toldKinds.has(job.kind.replace(/^RecoveryPlan/, ""))) return undefined;
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

/** From the text alone: a job must be able to end whatever its target is. */
function fabricOf(targetId: string): string | undefined {
  return /^.*\/replicationFabrics\/[^/]+/i.exec(targetId)?.[0];
}
