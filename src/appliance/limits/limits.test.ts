// Promises of the limits: bytes over time on a clock that the test owns, changed while they run, without a byte lost.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { describe, test } from "node:test";
import { fromTimestamp, type Clock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { frameTypes } from "../../contract/agent-frames.ts";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId } from "../../contract/ids.ts";
import type { LimitWindow, LineLimit } from "../../contract/line-limits.ts";
import { blockBytes } from "../../disk/geometry.ts";
import { openStateDatabase } from "../state/database.ts";
import { createBegin, createFacts, DataLine, registerAgent, sendWholeDisk, wholeDisk } from "../testing/scripted-agent.ts";
import { startTestSite } from "../testing/test-site.ts";
import { limitInForce } from "./limit-in-force.ts";
import { LineLimits } from "./line-limits.ts";
import { Line } from "./line.ts";

/** Time goes on only while somebody sleeps, and by as much: what is measured is exact. */
class SleepingClock implements Clock {
  ms = fromTimestamp("2026-03-02T07:00:00Z"); // A Monday.
  readonly #sleeping: { readonly untilMs: number; readonly wake: () => void }[] = [];

  nowMs(): number {
    return this.ms;
  }

  monotonicMs(): number {
    return this.ms;
  }

  async sleep(waitMs: number, signal?: AbortSignal): Promise<void> {
    const woken = Promise.withResolvers<void>();
    this.#sleeping.push({ untilMs: this.ms + waitMs, wake: woken.resolve });
    signal?.addEventListener("abort", () => woken.reject(new Error("woken")), { once: true });
    void this.#passTime();
    await woken.promise;
  }

  async #passTime(): Promise<void> {
    await setImmediate();
    const next = this.#sleeping.toSorted((one, two) => one.untilMs - two.untilMs)[0];
    if (next === undefined) return;
    this.#sleeping.splice(this.#sleeping.indexOf(next), 1);
    this.ms = Math.max(this.ms, next.untilMs);
    next.wake();
  }
}

const mebibyte = 1 << 20;
const workHours: LimitWindow = { days: ["mon", "tue", "wed", "thu", "fri"], from: "08:00", until: "18:00" };
const always = (bytesPerSecond: LineLimit["bytesPerSecond"]): LineLimit => ({ scope: "agents", bytesPerSecond });
const machineId = parseMachineId("0191d2f0-0000-7000-8000-000000000001");

async function withLimits(work: (limits: LineLimits, clock: SleepingClock, reopen: () => LineLimits) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "watari-limits-"));
  const clock = new SleepingClock();
  const database = openStateDatabase(join(folder, "state.sqlite"));
  try {
    const open = (): LineLimits => new LineLimits({ database, clock, log: silentLog });
    await work(open(), clock, open);
  } finally {
    database[Symbol.dispose]();
    await rm(folder, { recursive: true, force: true });
  }
}

describe("which limit is in force", () => {
  const at = (limits: readonly LineLimit[], time: string, timeZone = "Europe/Berlin") =>
    limitInForce(limits, { nowMs: fromTimestamp(time), timeZone });

  test("windows are meant in the site's time zone, on their days, and outrank what holds always", () => {
    const limits = [always(8_000_000), { ...always(1_000_000), window: workHours }];
    assert.equal(at(limits, "2026-03-02T06:59:59Z").bytesPerSecond, 8_000_000); // 07:59 in Berlin.
    assert.equal(at(limits, "2026-03-02T07:00:00Z").bytesPerSecond, 1_000_000);
    assert.equal(at(limits, "2026-03-02T07:00:00Z", "UTC").bytesPerSecond, 8_000_000);
    assert.equal(at(limits, "2026-03-07T10:00:00Z").bytesPerSecond, 8_000_000); // A Saturday.
    assert.equal(at(limits, "2026-07-06T06:00:00Z").bytesPerSecond, 1_000_000); // Summer time.
    const { untilMs, reason } = at(limits, "2026-03-02T07:00:30.250Z");
    assert.equal(untilMs, fromTimestamp("2026-03-02T17:00:00Z"));
    assert.match(reason, /mon,tue,wed,thu,fri 08:00-18:00/);
  });

  test("a window over midnight belongs to the day on which it begins; of two the lower holds; unlimited is a limit too", () => {
    const night: LimitWindow = { days: ["fri"], from: "22:00", until: "06:00" };
    const limits = [always(1_000_000), { ...always("unlimited"), window: night }];
    assert.equal(at(limits, "2026-03-07T04:59:00Z").bytesPerSecond, undefined); // Saturday, 05:59.
    assert.equal(at(limits, "2026-03-07T05:00:00Z").bytesPerSecond, 1_000_000);
    assert.equal(at(limits, "2026-03-06T04:00:00Z").bytesPerSecond, 1_000_000); // Friday, 05:00.
    const lower = { ...always(50_000), window: { ...night, from: "23:00", until: "23:30" } };
    assert.equal(at([...limits, lower], "2026-03-06T22:10:00Z").bytesPerSecond, 50_000);
    const sunday: LimitWindow = { days: ["sun"], from: "12:00", until: "12:00" };
    assert.equal(at([{ ...always(9000), window: sunday }], "2026-03-09T10:59:00Z").bytesPerSecond, 9000); // Monday, 11:59.
    assert.equal(at([{ ...always(9000), window: sunday }], "2026-03-09T11:00:00Z").bytesPerSecond, undefined);
  });
});

describe("a line", () => {
  test("passes as many bytes in an hour as its rate says, and who waits is served in turn", async () => {
    const clock = new SleepingClock();
    const line = new Line({ clock, rate: () => 200_000 });
    const startMs = clock.ms;
    const passed = [0, 0];
    const ends = clock.ms + 3_600_000;
    await Promise.all(
      passed.map(async (_bytes, index) => {
        while (clock.ms < ends) {
          const bytes = index === 0 ? 200_000 : 30_000;
          await line.pass(bytes);
          passed[index] = (passed[index] ?? 0) + bytes;
        }
      }),
    );
    const rate = line.passedBytes / ((clock.ms - startMs) / 1000);
    assert.ok(Math.abs(rate - 200_000) < 1000, `${rate} bytes a second`);
    assert.ok(Math.min(...passed) > line.passedBytes / 4, `both had a share: ${passed.join(", ")}`);
    assert.ok(Math.abs(line.figures().bytesPerSecond - 200_000) < 6000);
    assert.ok(line.figures().waitedShare > 0.9);
  });

  test("without a limit nothing waits; one who gives up takes nothing", async () => {
    const clock = new SleepingClock();
    let rate: number | undefined;
    const line = new Line({ clock, rate: () => rate });
    assert.equal(line.pass(10 * mebibyte), undefined);
    rate = 10_000;
    const ending = new AbortController();
    await line.pass(64 << 10);
    const waiting = line.pass(64 << 10, ending.signal);
    ending.abort(new Fault("OrderInterrupted", "enough"));
    await assert.rejects(waiting ?? Promise.resolve(), { code: "OrderInterrupted" });
    assert.equal(line.passedBytes, 10 * mebibyte + (64 << 10));
  });
});

describe("limits of the lines", () => {
  test("a window that opens and closes is kept to while bytes flow", async () => {
    await withLimits(async (limits, clock) => {
      limits.change({ timeZone: "UTC", remove: [], set: [always(100_000), { ...always(20_000), window: workHours }] });
      const bytesUntil = async (time: string): Promise<number> => {
        const before = limits.lineOf({ scope: "agents" }).passedBytes;
        while (clock.ms < fromTimestamp(time)) await limits.passFromAgent(machineId, 65_536, new AbortController().signal);
        return limits.lineOf({ scope: "agents" }).passedBytes - before;
      };
      const within = (bytes: number, wanted: number): void => assert.ok(Math.abs(bytes / wanted - 1) < 0.01, `${bytes}, not ${wanted}`);
      within(await bytesUntil("2026-03-02T08:00:00Z"), 3600 * 100_000);
      within(await bytesUntil("2026-03-02T18:00:00Z"), 36_000 * 20_000);
      within(await bytesUntil("2026-03-02T18:10:00Z"), 600 * 100_000);
    });
  });

  test("they outlive a restart, replace what has the same place, and refuse what does not fit", async () => {
    await withLimits(async (limits, _clock, reopen) => {
      const machine: LineLimit = { scope: "machine", machineId, bytesPerSecond: 20_000 };
      limits.change({ timeZone: "Asia/Tokyo", remove: [], set: [always(100_000), machine] });
      limits.change({ remove: [], set: [always(200_000)] });
      const { timeZone, limits: kept, lines } = reopen().state();
      assert.equal(timeZone, "Asia/Tokyo");
      assert.deepEqual(kept, [machine, always(200_000)]);
      assert.deepEqual(
        lines.map(({ scope, bytesPerSecond }) => [scope, bytesPerSecond]),
        [
          ["agents", 200_000],
          ["storage", undefined],
          ["machine", 20_000],
        ],
      );
      assert.throws(() => limits.change({ timeZone: "Mars/Base", remove: [], set: [] }), { code: "InputInvalid" });
      assert.deepEqual(limits.change({ remove: [{ scope: "machine", machineId }, { scope: "agents" }], set: [] }).limits, []);
      await Promise.resolve();
    });
  });

  test("a whole copy through the data port takes the time that its bytes take, also when the limit changes on the way", async () => {
    const clock = new SleepingClock();
    await using site = await startTestSite({ limitsClock: clock });
    const facts = createFacts();
    const ports = { controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem };
    const agent = await registerAgent(ports, facts, site.authority.passphrase);
    site.protect(agent.machineId);
    const content = new Uint8Array(randomBytes(160 * blockBytes)); // 10 MiB that do not compress.
    await using line = await DataLine.open(ports, agent);
    const begin = createBegin({ bootId: facts.bootId, disks: [wholeDisk(content.length)] });
    const limit = (bytesPerSecond: number): void =>
      void site.limits.change({ remove: [], set: [{ scope: "machine", machineId: agent.machineId, bytesPerSecond }] });
    limit(100_000);
    const kept = site.limits.lineOf({ scope: "machine", machineId: agent.machineId });
    const startMs = clock.ms;
    let changed: { readonly atMs: number; readonly bytes: number } | undefined;
    line.begin(begin);
    const sending = sendWholeDisk(line, 0, content).then(async () => await line.end(begin.pointId));
    while (kept.passedBytes < 4_000_000) await setImmediate();
    limit(1_000_000);
    changed = { atMs: clock.ms, bytes: kept.passedBytes };
    await sending;
    assert.deepEqual(await site.vault.contentOf(begin.pointId, wholeDisk(1).diskId), content);
    const before = changed.bytes / ((changed.atMs - startMs) / 1000);
    const after = (kept.passedBytes - changed.bytes) / ((clock.ms - changed.atMs) / 1000);
    assert.ok(Math.abs(before / 100_000 - 1) < 0.05, `${before} bytes a second before`);
    assert.ok(Math.abs(after / 1_000_000 - 1) < 0.05, `${after} bytes a second after`);
    assert.ok(kept.passedBytes > content.length && kept.passedBytes < content.length * 1.02, `${kept.passedBytes} bytes on the wire`);
  });

  test("an agent that is held back hears that the appliance is at work, if it knows the word", async () => {
    await using site = await startTestSite({ aliveEveryMs: 5 });
    const facts = createFacts();
    const ports = { controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem };
    const agent = await registerAgent(ports, facts, site.authority.passphrase);
    site.protect(agent.machineId);
    for (const features of [["alive"], []]) {
      const held = Promise.withResolvers<void>();
      site.space.held = held.promise;
      await using line = await DataLine.open(ports, agent);
      const begin = createBegin({ bootId: facts.bootId, disks: [wholeDisk(4 * blockBytes)], features });
      line.begin(begin);
      const types = [];
      if (features.length > 0) for (let count = 0; count < 20; count++) types.push((await line.next())?.type);
      assert.ok(
        types.every((type) => type === frameTypes.alive),
        "nothing but that it is alive",
      );
      held.resolve();
      if (features.length > 0) continue; // More of them may be on their way.
      await sendWholeDisk(line, 0, new Uint8Array(4 * blockBytes));
      await line.end(begin.pointId);
    }
  });
});
