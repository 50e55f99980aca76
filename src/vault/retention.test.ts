// Retention by age, count and thinning, over random histories that grow as they do in life.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { newPoint } from "./test-vault.ts";
import { choosePointsToRemove, defaultRules, type RetainedPoint, type RetentionRules } from "./retention.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const startMs = 20_000 * dayMs;

const consistency = fc.constantFrom("crash", "crash", "crash", "application", "final");
const history = fc.constantFrom(0, 30 * minuteMs, 5 * hourMs, dayMs, 15 * dayMs);
const gaps = fc.array(fc.record({ gapMs: fc.constantFrom(5000, minuteMs, 7 * minuteMs, hourMs, 11 * hourMs), consistency }), {
  minLength: 1,
  maxLength: 150,
});

function pointsOf(list: readonly { readonly gapMs: number; readonly consistency: RetainedPoint["consistency"] }[]): RetainedPoint[] {
  let timeMs = startMs;
  return list.map((each) => ({ pointId: newPoint(), timeMs: (timeMs += each.gapMs), consistency: each.consistency }));
}

function apply(points: readonly RetainedPoint[], rules: RetentionRules, nowMs: number): RetainedPoint[] {
  const gone = new Set(choosePointsToRemove(points, rules, nowMs));
  return points.filter(({ pointId }) => !gone.has(pointId));
}

describe("Retention", () => {
  it("keeps the newest, all of the young, one a span of the older, and nothing beyond the history", () => {
    fc.assert(
      fc.property(gaps, history, fc.nat(3 * dayMs), (list, historyMs, waitMs) => {
        const points = pointsOf(list);
        const newest = points.at(-1) ?? assert.fail("absent");
        const nowMs = newest.timeMs + waitMs;
        const rules = defaultRules(historyMs);
        const kept = apply(points, rules, nowMs);
        assert.ok(kept.includes(newest));
        for (const point of points) {
          const ageMs = nowMs - point.timeMs;
          const isCrash = point.consistency === "crash";
          if (ageMs < minuteMs || (ageMs <= historyMs && ageMs <= (isCrash ? 2 * hourMs : dayMs))) assert.ok(kept.includes(point));
          else if (ageMs > historyMs && point !== newest) assert.ok(!kept.includes(point));
          else if (ageMs <= historyMs) {
            const everyMs = ageMs <= (isCrash ? dayMs : 7 * dayMs) ? hourMs : dayMs;
            const isEqual = (other: RetainedPoint): boolean =>
              Math.floor(other.timeMs / everyMs) === Math.floor(point.timeMs / everyMs) && (other.consistency === "crash") === isCrash;
            assert.ok(
              kept.some((other) => isEqual(other) || Math.abs(other.timeMs - point.timeMs) <= everyMs),
              "its span has a point",
            );
          }
        }
        assert.deepEqual(apply(kept, rules, nowMs), kept);
      }),
    );
  });

  it("applied after every point keeps no less of any span than applied once, and stays small", () => {
    fc.assert(
      fc.property(gaps, history, (list, historyMs) => {
        const rules = defaultRules(historyMs);
        const points = pointsOf(list);
        let kept: RetainedPoint[] = [];
        for (const point of points) kept = apply([...kept, point], rules, point.timeMs);
        const nowMs = points.at(-1)?.timeMs ?? 0;
        const once = apply(points, rules, nowMs);
        for (const point of once)
          if (point.timeMs > nowMs - historyMs) assert.ok(kept.some(({ timeMs }) => Math.abs(timeMs - point.timeMs) <= dayMs));
        assert.deepEqual(apply(kept, rules, nowMs), kept);
      }),
    );
  });

  it("keeps no more than the count, the newest of them", () => {
    fc.assert(
      fc.property(gaps, fc.integer({ min: 1, max: 20 }), (list, countMax) => {
        const points = pointsOf(list);
        const nowMs = (points.at(-1)?.timeMs ?? 0) + hourMs;
        const kept = apply(points, { ...defaultRules(15 * dayMs), countMax }, nowMs);
        assert.ok(kept.length <= countMax && kept.at(-1) === points.at(-1));
      }),
    );
  });
});
