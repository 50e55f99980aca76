// Which recovery points a machine keeps: all of the youngest, fewer of the older, none beyond the history. Pure.

import type { PointId } from "../contract/ids.ts";
import type { RecoveryPoint } from "./vault.ts";

/** Of points up to this age, the oldest in each span of `everyMs` stays; with 0 all stay. */
export interface ThinningStep {
  readonly ageMsMax: number;
  readonly everyMs: number;
}

export interface RetentionRules {
  /** Points that are older go; 0 leaves the newest alone. */
  readonly historyMs: number;
  /** Points at most, the newest of those that would stay; no limit unless told. */
  readonly countMax?: number;
  /** By age, ascending; the last one's age is without end. */
  readonly crash: readonly ThinningStep[];
  /** Of application-consistent and final points, which are worth more. */
  readonly application: readonly ThinningStep[];
}

export type RetainedPoint = Pick<RecoveryPoint, "pointId" | "timeMs" | "consistency">;

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** An agent that has not heard of its last point yet builds upon the one before. */
const youngMs = 60_000;

/** All for two hours, one an hour for a day, one a day after; application-consistent points a step longer. */
export function defaultRules(historyMs: number): RetentionRules {
  return {
    historyMs,
    crash: [
      { ageMsMax: 2 * hourMs, everyMs: 0 },
      { ageMsMax: dayMs, everyMs: hourMs },
      { ageMsMax: Number.POSITIVE_INFINITY, everyMs: dayMs },
    ],
    application: [
      { ageMsMax: dayMs, everyMs: 0 },
      { ageMsMax: 7 * dayMs, everyMs: hourMs },
      { ageMsMax: Number.POSITIVE_INFINITY, everyMs: dayMs },
    ],
  };
}

/**
 * The points of one machine that may go, oldest first. Never the newest, nor one that is hardly a minute old. The same question again,
 * without the points that went, has no answer left; and what stays at a time was never to go before.
 */
export function choosePointsToRemove(points: readonly RetainedPoint[], rules: RetentionRules, nowMs: number): readonly PointId[] {
  const oldestFirst = points.toSorted((one, other) => one.timeMs - other.timeMs || (one.pointId < other.pointId ? -1 : 1));
  const newest = oldestFirst.at(-1);
  const isSafe = (point: RetainedPoint): boolean => point === newest || nowMs - point.timeMs < youngMs;
  const firstOf = new Map<string, RetainedPoint>();
  const kept = new Set<RetainedPoint>();
  for (const point of oldestFirst) {
    const ageMs = nowMs - point.timeMs;
    const steps = point.consistency === "crash" ? rules.crash : rules.application;
    const everyMs = (steps.find(({ ageMsMax }) => ageMs <= ageMsMax) ?? steps.at(-1))?.everyMs ?? 0;
    const isWithin = ageMs <= rules.historyMs;
    if (isSafe(point) || (isWithin && (everyMs === 0 || isFirst(firstOf, point, everyMs)))) kept.add(point);
  }
  const surplus = rules.countMax === undefined ? 0 : kept.size - rules.countMax;
  for (const point of [...kept].slice(0, Math.max(0, surplus))) if (!isSafe(point)) kept.delete(point);
  return oldestFirst.filter((point) => !kept.has(point)).map(({ pointId }) => pointId);
}

/** Whether no older point stands for the same span; points of both classes have spans of their own. */
function isFirst(firstOf: Map<string, RetainedPoint>, point: RetainedPoint, everyMs: number): boolean {
  const span = `${point.consistency === "crash" ? "crash" : "application"} ${everyMs} ${Math.floor(point.timeMs / everyMs)}`;
  const first = firstOf.get(span) ?? point;
  firstOf.set(span, first);
  return first === point;
}
