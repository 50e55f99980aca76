// Follows a job of the hub to its end: its text and percent meanwhile, its evidence at the end, its own fault when it failed.

import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { Fault, fromReport } from "../../contract/errors.ts";
import { faultReportShape } from "../../contract/shapes.ts";
import type { ArmClient } from "../arm-client.ts";
import { formatBytes } from "../output.ts";
import { vaultPath } from "../vault.ts";
import { hubNames } from "./hub-settings.ts";

const lookAgainMs = 1000;

const followedShape = z.looseObject({
  properties: z.looseObject({
    scenarioName: z.string(),
    friendlyName: z.string(),
    state: z.string(),
    tasks: z.array(z.looseObject({ name: z.string(), friendlyName: z.string(), state: z.string() })),
    errors: z.array(z.looseObject({ watari: z.looseObject({ fault: faultReportShape }).optional() })),
    watari: z.looseObject({ percent: z.number(), text: z.string(), evidence: z.record(z.string(), z.unknown()) }),
  }),
});
export type FollowedJob = z.infer<typeof followedShape>["properties"];

/** Answers the job once it succeeded; throws its fault otherwise. `onLook` is called at each look. */
export async function followJob(arm: ArmClient, jobId: string, onLook: (job: FollowedJob) => Promise<void>): Promise<FollowedJob> {
  const path = `${vaultPath(arm.groupPath, hubNames.vault)}/replicationJobs/${jobId}`;
  for (;;) {
    const { properties: job } = followedShape.parse(await arm.get(path));
    switch (job.state) {
      case "Succeeded":
        return job;
      case "Failed":
      case "Cancelled":
        throw faultOf(job);
      default:
        await onLook(job);
        await systemClock.sleep(lookAgainMs);
    }
  }
}

/** The job's own fault; faults of its undo are told with it. */
function faultOf(job: FollowedJob): Fault {
  const [first, ...more] = job.errors.flatMap(({ watari }) => (watari === undefined ? [] : [fromReport(watari.fault)]));
  if (first === undefined) return new Fault("JobCancelled", `the job "${job.friendlyName}" ended as ${job.state}`);
  if (more.length === 0) return first;
  return new Fault(first.code, first.message, {
    evidence: { ...first.evidence, alsoFailed: more.map((fault) => `${fault.message}; ${fault.action}`) },
    causes: first.causes,
    action: more[0]?.action ?? first.action,
    retry: first.retry,
    cause: first,
  });
}

/** What runs now, for people: the step, and its own words when it has some. */
export function jobText(job: FollowedJob): string {
  const running = job.tasks.find((task) => task.state === "InProgress");
  const doing = running?.friendlyName ?? job.friendlyName;
  const { percent, text } = job.watari;
  // A step that has said nothing yet still shows the title of the one before.
  const isTitle = text === "" || job.tasks.some((task) => task.friendlyName === text);
  const words = text.replaceAll(/\b(\d{4,15}) bytes\b/g, (_all, bytes: string) => formatBytes(Number(bytes)));
  return `${String(Math.floor(percent)).padStart(3)} %  ${doing}${isTitle ? "" : `: ${words}`}`;
}
