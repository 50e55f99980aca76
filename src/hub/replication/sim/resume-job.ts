// For tests: waits until a job is suspended, lets a person act, resumes it with a comment, and waits for its end.

import { systemClock } from "../../../base/clock.ts";
import { readJob } from "../../jobs/job-store.ts";
import { simVault } from "./sim-hub.ts";
import type { SimStage } from "./sim-stage.ts";

export async function resumeJob(
  { hub }: SimStage,
  jobId: string,
  comments: string,
  act: () => void = () => undefined,
): Promise<{ readonly state: string; readonly fault: string }> {
  const { db } = hub.services.database;
  while ((await readJob(db, jobId))?.state !== "suspended") await systemClock.sleep(10);
  act();
  await hub.call("POST", `${simVault}/replicationJobs/${jobId}/resume`, { properties: { comments } });
  for (;;) {
    const job = await readJob(db, jobId);
    if (job?.endedAt !== undefined) return { state: job.state, fault: job.fault?.message ?? "" };
    await systemClock.sleep(10);
  }
}
