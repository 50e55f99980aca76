// Judges measured times and bytes: which stage the others wait for, when a backlog is gone, how long a cut-over would take. From values alone.

import { stages, type MachineFlow, type Stage } from "../../contract/machine-flow.ts";

/** Of one window. */
export interface StageTimes {
  readonly windowMs: number;
  /** A point was under way. */
  readonly activeMs: number;
  /** The appliance was at work on what the agent had sent. */
  readonly answeringMs: number;
  /** A limit of the line held the agent back. */
  readonly heldBackMs: number;
  /** Every upload to the storage account was taken. */
  readonly storageFullMs: number;
  /** What the agent's lanes did; undefined when it does not tell. */
  readonly lanes: { readonly read: number; readonly work: number; readonly wait: number; readonly pause: number } | undefined;
  /** Something waited for the limit of the line to the storage account. */
  readonly storageHeldBackShare: number;
  /** Why all agents are slowed down; undefined when they are not. */
  readonly throttleReason?: string | undefined;
}

type Verdict = Pick<MachineFlow, "stageShares" | "slowestStage" | "slowestReason">;

/** Less work than this says nothing. */
const activeMsMin = 500;
/** Uploads that are all taken for so long cannot keep up, though the spool hides it from the agents. */
const storageFullShareMin = 0.9;

export function judgeStages(times: StageTimes): Verdict {
  const { activeMs, windowMs, lanes } = times;
  if (activeMs < activeMsMin) return { stageShares: {} };
  const held = shareOf(times.heldBackMs, activeMs);
  const busy = shareOf(times.answeringMs, activeMs);
  const full = shareOf(times.storageFullMs, windowMs);
  const laneMs = lanes === undefined ? 0 : lanes.read + lanes.work + lanes.wait + lanes.pause;
  // Without the agent's word all that is neither ours nor the storage account's is called the line's.
  const isTold = lanes !== undefined && laneMs > 0;
  const wait = isTold ? lanes.wait / laneMs : 1;
  const ours = wait * (1 - held) * busy;
  // The line could carry more, but the appliance does not take it.
  const ourBrake = times.throttleReason === undefined ? 0 : wait * held;
  const stageShares: Partial<Record<Stage, number>> = {
    ...(!isTold ? {} : { source: lanes.read / laneMs, agent: (lanes.work + lanes.pause) / laneMs }),
    line: (wait - ours - ourBrake) * (isTold ? 1 : 1 - full),
    appliance: ours * (1 - full) + ourBrake,
    storage: full >= storageFullShareMin ? full : ours * full,
  };
  const slowestStage = stages.reduce((best, stage) => ((stageShares[stage] ?? 0) > (stageShares[best] ?? 0) ? stage : best));
  return {
    stageShares,
    slowestStage,
    slowestReason: reasonOf(slowestStage, { ...times, share: stageShares[slowestStage] ?? 0, held, isBraked: ourBrake > ours }),
  };
}

function reasonOf(stage: Stage, seen: StageTimes & { readonly share: number; readonly held: number; readonly isBraked: boolean }): string {
  const percent = `${Math.round(seen.share * 100)} %`;
  const also = seen.throttleReason === undefined ? "" : `, and ${seen.throttleReason}`;
  switch (stage) {
    case "source":
      return `the agent spends ${percent} of its time reading the disks`;
    case "agent":
      return seen.lanes !== undefined && seen.lanes.pause > seen.lanes.work
        ? `the agent rests ${percent} of its time to keep to its share of the processor`
        : `the agent spends ${percent} of its time on digests and compression`;
    case "line":
      return seen.held > 0.5
        ? `a limit of the line holds the agent back for ${Math.round(seen.held * 100)} % of the time`
        : `${percent} of the time goes into the way between agent and appliance`;
    case "appliance":
      return seen.isBraked
        ? `the appliance holds the agent back for ${Math.round(seen.held * 100)} % of the time: ${seen.throttleReason ?? ""}`
        : `the appliance works for ${percent} of the time on what the agent has sent`;
    case "storage":
      return seen.storageHeldBackShare > 0.5
        ? `a limit of the line to the storage account holds uploads back for ${Math.round(seen.storageHeldBackShare * 100)} % of the time`
        : `every upload to the storage account is taken for ${percent} of the time${also}`;
  }
}

export interface Progress {
  readonly backlogBytes: number;
  readonly churnBytesPerSecond: number | undefined;
  readonly throughputBytesPerSecond: number | undefined;
  readonly lastFrozenMs: number;
  readonly lastSealMs: number | undefined;
}

/** The agent goes on with rounds until about this many seconds of changes are left, and holds at most so many bytes while frozen. */
const lastRoundSeconds = 2;
const lastRoundBytesMax = 24 << 20;

export function predict(progress: Progress): Pick<MachineFlow, "drainSeconds" | "downtimeSeconds" | "isFallingBehind"> {
  const { backlogBytes, churnBytesPerSecond: churn, throughputBytesPerSecond: throughput, lastFrozenMs, lastSealMs } = progress;
  if (throughput === undefined || throughput <= 0) return { isFallingBehind: false, ...(backlogBytes === 0 ? { drainSeconds: 0 } : {}) };
  const net = throughput - (churn ?? 0);
  const restBytes = Math.min((churn ?? 0) * lastRoundSeconds, lastRoundBytesMax);
  return {
    isFallingBehind: net <= 0,
    ...(backlogBytes === 0 ? { drainSeconds: 0 } : net > 0 ? { drainSeconds: backlogBytes / net } : {}),
    ...(lastSealMs === undefined || churn === undefined
      ? {}
      : { downtimeSeconds: (lastFrozenMs + lastSealMs) / 1000 + restBytes / throughput }),
  };
}

function shareOf(part: number, whole: number): number {
  return whole <= 0 ? 0 : Math.min(1, Math.max(0, part / whole));
}
