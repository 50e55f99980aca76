// Promises of the choice: harder on a slow line with idle processors, never on a fast line or a machine at work, back when it is too hard, no flapping.

import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, type Clock } from "../../base/clock.ts";
import { LaneTimes, type LaneMs } from "./lane-times.ts";
import { PackingChoice } from "./packing-choice.ts";

/** Spans of two seconds in which four lanes spent their time like this, by the level in use. */
async function levelsOf(spans: number, shareOf: (level: number, span: number) => LaneMs, processors = 1): Promise<number[]> {
  let nowMs = 0;
  const clock: Clock = { ...systemClock, monotonicMs: () => nowMs };
  const times = new LaneTimes(clock);
  const choice = new PackingChoice(times, processors);
  const levels: number[] = [];
  for (let span = 0; span < spans; span++) {
    const shares = shareOf(choice.level, span);
    const startMs = nowMs;
    for (const on of ["read", "work", "wait", "pause"] as const)
      await times.spend(on, () => {
        nowMs += shares[on];
      });
    nowMs = startMs + 2000;
    levels.push(choice.level);
  }
  return levels;
}

const costOf = new Map([
  [1, 1],
  [4, 1.3],
  [6, 3.5],
]);

/** What a line of a share of what the processor can pack at level 1 makes the lanes do. */
function onLine(share: number): (level: number) => LaneMs {
  return (level) => {
    const work = Math.min(1, share * (costOf.get(level) ?? 1)) * 2000;
    return { read: 200, work, wait: 7800 - work, pause: 0 };
  };
}

test("a line that leaves processors idle is given blocks that are packed harder, and it stays so", async () => {
  assert.deepEqual(
    (await levelsOf(100, onLine(0.1))).slice(5),
    Array.from({ length: 95 }, () => 6),
  );
  assert.deepEqual(
    (await levelsOf(100, onLine(0.3))).slice(5),
    Array.from({ length: 95 }, () => 4),
  );
});

test("a line that is faster than packing keeps the first level, and so does a machine that wants its processors", async () => {
  for (const share of [0.5, 0.9, 5]) assert.deepEqual(new Set(await levelsOf(100, onLine(share))), new Set([1]));
  assert.deepEqual(new Set(await levelsOf(100, () => ({ read: 100, work: 200, wait: 5000, pause: 2700 }))), new Set([1]));
  assert.deepEqual(new Set(await levelsOf(100, () => ({ read: 6000, work: 200, wait: 1800, pause: 0 }))), new Set([1]));
  assert.deepEqual(new Set(await levelsOf(100, () => ({ read: 50, work: 20, wait: 400, pause: 0 }))), new Set([1]), "short points");
});

test("it goes back when the machine goes to work, and a line that comes and goes does not make it flap", async () => {
  const pausing = { read: 200, work: 400, wait: 4000, pause: 3400 };
  const levels = await levelsOf(900, (level, span) => (span % 20 < 10 ? onLine(0.1)(level) : pausing));
  assert.equal(levels[8], 6);
  assert.equal(levels[15], 1);
  const changes = levels.filter((level, index) => index > 0 && level !== levels[index - 1]).length;
  assert.ok(changes <= 30, `${changes} changes in half an hour`);
});
