// The agent's politeness: it gives way while others wait, takes back when they do not, never stops, and hurries when others wait for it.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../base/clock.ts";
import { parseStallMicroseconds, stallBetween, stallOfLoad } from "./guest-load.ts";
import { nextDuty, Pacer } from "./pacer.ts";

/** A clock that sleeping moves, and nothing else. */
function createStillClock(): Clock & { nowAtMs: number } {
  const clock = {
    nowAtMs: 0,
    nowMs: () => clock.nowAtMs,
    monotonicMs: () => clock.nowAtMs,
    sleep: (ms: number) => {
      clock.nowAtMs += ms;
      return Promise.resolve();
    },
  };
  return clock;
}

/** Works for `workMs` in units of 20 ms; answers the share of the time that was work. */
async function shareOf(stall: number, workMs: number, floor = 0): Promise<number> {
  const clock = createStillClock();
  const pacer = new Pacer({ clock, cpuSeconds: () => 0, cpuShareMax: 1, readStall: () => Promise.resolve(stall) });
  pacer.keepDuty(() => floor);
  for (let done = 0; done < workMs; done += 20) {
    clock.nowAtMs += 20;
    await pacer.pause(0);
  }
  return workMs / clock.nowAtMs;
}

test("the agent works all the time while nobody waits, and a fifth of it while all do", async () => {
  assert.equal(await shareOf(0, 20_000), 1);
  const share = await shareOf(0.8, 20_000);
  assert.ok(share > 0.18 && share < 0.3, `worked ${share} of the time`);
  assert.equal(await shareOf(0.8, 20_000, 2), 1, "nobody is given way to when the point is late");
});

test("the share falls fast, rises slowly and stays within its bounds", () => {
  let duty = 1;
  for (let look = 0; look < 3; look++) duty = nextDuty(duty, 0.5);
  assert.ok(duty < 0.25);
  for (let look = 0; look < 9; look++) duty = nextDuty(duty, 0.01);
  assert.equal(duty, 1);
  assert.equal(nextDuty(0.5, 0.07), 0.5);
  for (let look = 0; look < 99; look++) duty = nextDuty(duty, 1);
  assert.equal(duty, 0.2);
});

test("nothing is waited for while others cannot go on before the work is done", async () => {
  const clock = createStillClock();
  const pacer = new Pacer({ clock, cpuSeconds: () => clock.nowAtMs / 100, cpuShareMax: 0.1 });
  await pacer.hurry(async () => {
    clock.nowAtMs += 5000;
    await pacer.pause(1 << 20);
  });
  assert.equal(clock.nowAtMs, 5000);
  clock.nowAtMs += 300;
  await pacer.pause(1);
  assert.ok(clock.nowAtMs > 5300, "afterwards limits hold again");
});

test("pressure stall information is read, and the resource that others waited for most counts", () => {
  const text = "some avg10=0.00 avg60=0.12 avg300=0.08 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
  assert.equal(parseStallMicroseconds(text), 123_456);
  assert.equal(parseStallMicroseconds(""), undefined);
  assert.equal(stallBetween({ atMs: 0, othersMicroseconds: [0, 10] }, { atMs: 1000, othersMicroseconds: [100_000, 400_010] }), 0.4);
  assert.equal(stallBetween({ atMs: 0, othersMicroseconds: [500, 0] }, { atMs: 1000, othersMicroseconds: [0, 0] }), 0);
  assert.equal(stallBetween({ atMs: 5, othersMicroseconds: [0, 0] }, { atMs: 5, othersMicroseconds: [1, 1] }), undefined);
  assert.deepEqual([stallOfLoad(0.5, 2), stallOfLoad(4, 2), stallOfLoad(90, 2)], [0, 0.5, 1]);
});
