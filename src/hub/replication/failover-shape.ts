// What the job UnplannedFailover is told and what it finds out, for the files that hold its steps.

import { z } from "zod";
import type { BootTime } from "../../base/boot-time.ts";
import type { EqualityReport } from "../../contract/equality-report.ts";
import { upgradeTargets } from "../../contract/os-upgrade.ts";
import { digestShape, diskIdShape, pointIdShape } from "../../contract/shapes.ts";
import type { JobStep, StepContext } from "../jobs/job.ts";
import { launchActionsShape, type ActionsState } from "./launch-actions.ts";
import { jobLaunchShape } from "./launch-settings.ts";
import { probeShape, type LaunchState } from "./launch-steps.ts";
import type { UpgradeState } from "./os-upgrade.ts";
import type { DowntimeComparison, DowntimePrediction } from "./predict-downtime.ts";
import type { SourceSilence } from "./silent-source.ts";

/** byHand: a person commits, or cancels; with minutes it is cancelled by itself when nobody has committed by then. */
export const commitShape = z.discriminatedUnion("mode", [
  z.strictObject({ mode: z.literal("byHand"), minutesMax: z.number().int().min(1).max(43_200).optional() }),
  /** As soon as the machine runs and stands by itself. */
  z.strictObject({ mode: z.literal("now") }),
  /** As now, and only where something was asked that must pass. */
  z.strictObject({ mode: z.literal("afterProbes") }),
]);

/** A machine that was tested, of which everything but its disks lands again: its processors, memory, firmware and cards. */
const testedShape = z.object({
  landedName: z.string(),
  cpuCount: z.number(),
  memoryBytes: z.number(),
  firmware: z.enum(["bios", "efi"]),
  macs: z.array(z.string()),
});
export type TestedMachine = z.infer<typeof testedShape>;

/** byHand: a person switches the source off and says so, where neither its agent nor its vCenter can. */
export const fenceModes = ["automatic", "byHand"] as const;

export const failoverParametersShape = z.object({
  itemId: z.string(),
  applianceId: z.string(),
  machineId: z.string(),
  networkId: z.string(),
  landedName: z.string(),
  probe: probeShape.optional(),
  osUpgradeVersion: z.enum(upgradeTargets).optional(),
  /** What the machine is asked after that, in order. */
  actions: launchActionsShape.default([]),
  ...jobLaunchShape,
  commit: commitShape.default({ mode: "byHand" }),
  fence: z.enum(fenceModes).default("automatic"),
  promotes: testedShape.optional(),
  /** The machine lands from this point, and what was written since is given up; absent: a final point is made of the frozen source. */
  pointId: pointIdShape.optional(),
  /** NotRequired: the site is lost. The source is proved silent in place of being switched off, and is switched off should it come back. */
  sourceSiteOperations: z.enum(["Required", "NotRequired"]).default("Required"),
});
export type FailoverParameters = z.infer<typeof failoverParametersShape>;

const diskRootsShape = z.array(z.object({ diskId: diskIdShape, root: digestShape }));
type DiskRoots = z.infer<typeof diskRootsShape>;

export interface FailoverState extends LaunchState, ActionsState, UpgradeState {
  /** Made before anything was done to the source. */
  readonly prediction?: DowntimePrediction;
  readonly downtime?: DowntimeComparison;
  readonly repairedBlockCount?: number;
  readonly repairedBlocks?: EqualityReport["verification"]["repairedBlocks"];
  readonly rounds?: readonly { readonly pointId: string; readonly sentBytes: number }[];
  /** When the hub asked for the freeze: the source's downtime begins after it. */
  readonly quiesceOrderedAt?: string;
  readonly quiesceOrderedUp?: BootTime;
  /** Of a migration to an earlier point: the time of that point, after which everything is given up. */
  readonly pointTime?: string;
  /** Why the source was taken to be off where it could not be asked. */
  readonly sourceIsSilent?: SourceSilence;
  /** Who said that the source was switched off by hand. */
  readonly fencedBy?: string;
  readonly quiescedAt?: string;
  readonly frozenMs?: number;
  readonly sourceRoots?: DiskRoots;
  readonly equalRoots?: DiskRoots;
  /** What was compared, equal or not, signed by the hub. */
  readonly equalityReport?: string;
  readonly fencedAt?: string;
  readonly downtimeSeconds?: number;
  readonly filledAt?: string;
  /** When the tested machine, with all that was written to it, was taken away. */
  readonly testRemovedAt?: string;
  readonly committedAt?: string;
  readonly rolledBack?: string;
}
export type FailoverContext = StepContext<FailoverParameters, FailoverState>;
export type FailoverStep = JobStep<FailoverParameters, FailoverState>;
