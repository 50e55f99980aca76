// Windows of recovery plans: over midnight, by day, and when they open next.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { isOpen, nextOpening, timeWindowShape } from "./time-window.ts";

const open = (window: object, at: string): boolean => isOpen(timeWindowShape.parse(window), fromTimestamp(at));
const next = (window: object, at: string): string => toTimestamp(nextOpening(timeWindowShape.parse(window), fromTimestamp(at)));

describe("a time window", () => {
  it("is open from its begin up to its end, and over midnight", () => {
    const day = { from: "09:00", to: "17:00" };
    assert.deepEqual(
      ["08:59", "09:00", "16:59", "17:00"].map((time) => open(day, `2026-11-23T${time}:30.000Z`)),
      [false, true, true, false],
    );
    const night = { from: "22:00", to: "05:00" };
    assert.deepEqual(
      ["21:59", "22:00", "23:59", "00:00", "04:59", "05:00"].map((time) => open(night, `2026-11-23T${time}:00.000Z`)),
      [false, true, true, true, true, false],
    );
  });

  it("belongs to the day on which it opens", () => {
    // 2026-11-21 is a Saturday.
    const saturdays = { from: "22:00", to: "05:00", days: ["Sat"] };
    assert.equal(open(saturdays, "2026-11-21T23:00:00.000Z"), true);
    assert.equal(open(saturdays, "2026-11-22T04:00:00.000Z"), true);
    assert.equal(open(saturdays, "2026-11-22T23:00:00.000Z"), false);
    assert.equal(open(saturdays, "2026-11-21T04:00:00.000Z"), false);
    assert.equal(next(saturdays, "2026-11-22T05:00:20.000Z"), "2026-11-28T22:00:00.000Z");
  });

  it("refuses what is no window", () => {
    for (const bad of [
      { from: "24:00", to: "05:00" },
      { from: "9:00", to: "10:00" },
      { from: "09:00", to: "09:00" },
      { from: "09:00", to: "10:00", days: [] },
    ])
      assert.equal(timeWindowShape.safeParse(bad).success, false, JSON.stringify(bad));
  });
});
