// What is shown of a long copy and of steps.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CopyMeter } from "./copy-meter.ts";
import { clockText, LiveSteps } from "./live.ts";

const mebibyte = 2 ** 20;

describe("CopyMeter", () => {
  it("tells the share at first, then rate and time left of the last half minute", () => {
    const meter = new CopyMeter();
    assert.equal(meter.look(0, 0, 1000 * mebibyte), "0 B of 1000.0 MiB");
    assert.equal(meter.look(10_000, 100 * mebibyte, 1000 * mebibyte), "100.0 MiB of 1000.0 MiB, 10.0 MiB/s, 01:30 left");
    for (let second = 11; second <= 60; second++) meter.look(second * 1000, (100 + second) * mebibyte, 1000 * mebibyte);
    assert.match(meter.look(61_000, 161 * mebibyte, 1000 * mebibyte), /, 1\.0 MiB\/s, 13:59 left$/);
  });

  it("begins anew when a pass over the disks begins anew", () => {
    const meter = new CopyMeter();
    meter.look(0, 500, 1000);
    meter.look(1000, 900, 1000);
    assert.equal(meter.look(2000, 100, 1000), "100 B of 1000 B");
    assert.equal(meter.look(3000, 100, 1000), "100 B of 1000 B");
    assert.equal(meter.look(4000, 300, 1000), "300 B of 1000 B, 100 B/s, 00:07 left");
  });
});

describe("clockText", () => {
  it("counts minutes, and hours once there are any", () => {
    assert.deepEqual([0, 61, 3599, 3661].map(clockText), ["00:00", "01:01", "59:59", "1:01:01"]);
  });
});

describe("LiveSteps", () => {
  const clockAt = (now: { ms: number }) => ({
    nowMs: () => now.ms,
    monotonicMs: () => now.ms,
    sleep: async () => await Promise.resolve(),
  });

  it("keeps the times of steps that succeeded, and shows the one that failed", async () => {
    const now = { ms: 0 };
    const said: string[] = [];
    const live = new LiveSteps({ isTerminal: false, write: (text) => said.push(text) }, clockAt(now));
    await live.run("one", async () => await Promise.resolve((now.ms = 1500)));
    await assert.rejects(
      live.run("two", async () => await Promise.reject(new Error("no"))),
      /no/,
    );
    assert.deepEqual(live.done, [{ name: "one", seconds: 1.5 }]);
    assert.ok(said.some((text) => text.includes("✖ two")));
  });

  it("rewrites one line at a terminal, and prints seldom elsewhere", async () => {
    for (const isTerminal of [true, false]) {
      const now = { ms: 0 };
      const said: string[] = [];
      const live = new LiveSteps({ isTerminal, write: (text) => said.push(text) }, clockAt(now));
      await live.run("copy", async (tell) => {
        for (let second = 0; second < 10; second++) {
          now.ms = second * 1000;
          tell(`${second} of 10`);
        }
        return await Promise.resolve();
      });
      const details = said.filter((text) => text.includes(" of 10"));
      assert.equal(details.length, isTerminal ? 10 : 2);
      assert.equal(
        details.every((text) => text.startsWith("\r")),
        isTerminal,
      );
    }
  });
});
