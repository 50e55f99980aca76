// Promises of the window: as many lanes as bandwidth times delay ask for, few on a short line; all items are worked on, whatever the number.

import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { test } from "node:test";
import { systemClock, type Clock } from "../../base/clock.ts";
import { blocksPerUnit } from "./lanes.ts";
import { blockBytes } from "../../disk/geometry.ts";
import { createLanes, runLanes } from "./lanes.ts";
import { LineWindow } from "./line-window.ts";

const unitBytes = blocksPerUnit * blockBytes;

/** Units are announced and answered as a line of that bandwidth and delay lets them, with as many lanes as the window wants. */
function settledLanes(line: { readonly bytesPerSecond: number; readonly roundTripMs: number; readonly lanesMax: number }): number {
  let nowMs = 0;
  const clock: Clock = { ...systemClock, monotonicMs: () => nowMs };
  const window = new LineWindow(clock);
  let lanes = 4;
  for (let turn = 0; turn < 40; turn++) {
    const sentMs = nowMs;
    // What the lanes hold goes over in a round trip, or as long as the bandwidth takes for it.
    nowMs += Math.max(line.roundTripMs, ((lanes * unitBytes) / line.bytesPerSecond) * 1000);
    for (let lane = 0; lane < lanes; lane++) window.noteAnswer(blocksPerUnit, turn === 0 && lane === 0 ? nowMs - line.roundTripMs : sentMs);
    lanes = Math.max(lanes, Math.min(line.lanesMax, window.lanesWanted(4)));
  }
  return lanes;
}

test("the window grows to bandwidth times delay, and no further", () => {
  const bytesPerSecond = 125e6;
  for (const roundTripMs of [150, 270]) {
    const needed = (bytesPerSecond * roundTripMs) / 1000 / unitBytes;
    const lanes = settledLanes({ bytesPerSecond, roundTripMs, lanesMax: 100 });
    assert.ok(lanes >= needed && lanes <= 4 + Math.ceil(needed * 1.5), `${lanes} lanes where ${needed.toFixed(1)} fill the line`);
  }
  assert.equal(settledLanes({ bytesPerSecond, roundTripMs: 2, lanesMax: 100 }), 4);
  assert.ok(settledLanes({ bytesPerSecond: 1e6, roundTripMs: 270, lanesMax: 100 }) <= 5);
  assert.equal(settledLanes({ bytesPerSecond: 1e10, roundTripMs: 270, lanesMax: 14 }), 14);
});

test("lanes are added while items are worked on; each item is worked on once, and the first failure ends them all", async () => {
  const lanes = createLanes(6);
  let wanted = 1;
  const done: number[] = [];
  const used = new Set<unknown>();
  const items = Array.from({ length: 50 }, (_, index) => index);
  await runLanes({ lanes, wanted: () => wanted }, items.values(), async (item, lane) => {
    used.add(lane);
    done.push(item);
    if (item === 5) wanted = 4;
    await setImmediate();
  });
  assert.deepEqual(
    done.toSorted((one, two) => one - two),
    items,
  );
  assert.equal(used.size, 4);
  const failing = runLanes({ lanes, wanted: () => 6 }, items.values(), async (item) => {
    await setImmediate();
    if (item === 7) throw new Error("seven");
    assert.ok(item < 20, "ended soon after the failure");
  });
  await assert.rejects(failing, /seven/);
});
