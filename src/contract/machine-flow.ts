// How a machine's data flow, as its appliance measures it: how far behind, how fast, and which stage is the slowest.

import { z } from "zod";
import { countShape, machineIdShape, timestampShape } from "./shapes.ts";

/** In the order in which data pass them. */
export const stages = ["source", "agent", "line", "appliance", "storage"] as const;
export type Stage = (typeof stages)[number];

const shareShape = z.number().min(0).max(1);

/** What the agent does now, and the rung of change tracking on which its worst disk stands. */
const flowModeShape = z.object({
  phase: z.enum(["idle", "initial", "delta", "quiesced", "stopped", "failed", "unknown"]),
  rung: z.enum(["ebpf", "tracefs", "checksum", "full"]).exactOptional(),
  reason: z.string().max(400),
});
export type FlowMode = z.infer<typeof flowModeShape>;

export const machineFlowShape = z.object({
  mode: flowModeShape,
  /** Age of the newest sealed point, by the appliance's clock; absent before the first. */
  lagSeconds: z.number().nonnegative().exactOptional(),
  /** Bytes of the source that no sealed point has yet. */
  backlogBytes: countShape,
  /** Bytes of 4 KiB pieces that change, a second, as far as they have to be moved; absent until it was measured. */
  churnBytesPerSecond: z.number().nonnegative().exactOptional(),
  /** Bytes of the source that are taken in for each second of work on a point; absent until it was measured. */
  throughputBytesPerSecond: z.number().nonnegative().exactOptional(),
  /** Until the backlog is gone while changes go on; absent when it is unknown, or when changes come faster than they are moved. */
  drainSeconds: z.number().nonnegative().exactOptional(),
  /** The line carries less than what changes. */
  isFallingBehind: z.boolean(),
  /** How long the source would stand still for its final point; the target's start comes on top. */
  downtimeSeconds: z.number().nonnegative().exactOptional(),
  /** Share of the last minute of work in which each stage was what the others waited for. */
  stageShares: z.partialRecord(z.enum(stages), shareShape),
  /** Absent while nothing is moved. */
  slowestStage: z.enum(stages).exactOptional(),
  slowestReason: z.string().max(400).exactOptional(),
});
export type MachineFlow = z.infer<typeof machineFlowShape>;

/** The way in which a machine's changes are found has changed. */
export const modeChangeShape = z.object({
  machineId: machineIdShape,
  time: timestampShape,
  from: flowModeShape,
  to: flowModeShape,
});
export type ModeChange = z.infer<typeof modeChangeShape>;
