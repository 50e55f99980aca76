// Promises of the throttle: agents are slowed down on a real small volume below a fifth of free cache, and let go by themselves.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { appendFile, mkdir, mkdtemp, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { silentLog } from "../../base/log.ts";
import { runCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { blockBytes } from "../../disk/geometry.ts";
import { createBegin, createFacts, DataLine, registerAgent, sendWholeDisk, wholeDisk } from "../testing/scripted-agent.ts";
import { startTestSite } from "../testing/test-site.ts";
import { CacheThrottle, nextThrottle, type Throttle } from "./cache-throttle.ts";

const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;

describe("the rate of slowed agents", () => {
  const seen = { freeShare: 0.19, freeBytes: 190 * mebibyte, spoolBytes: gibibyte, nowMs: 0, arrivingBytesPerSecond: 40e6 };
  const slowed = nextThrottle({ kind: "open" }, seen);
  const rateOf = (throttle: Throttle): number => (throttle.kind === "open" ? Infinity : throttle.bytesPerSecond);

  test("begins below a fifth at half of what came, and ends at a quarter, not before", () => {
    assert.deepEqual(nextThrottle({ kind: "open" }, { ...seen, freeShare: 0.2 }), { kind: "open" });
    assert.equal(rateOf(slowed), 20e6);
    assert.equal(rateOf(nextThrottle({ kind: "open" }, { ...seen, arrivingBytesPerSecond: 0 })), mebibyte);
    assert.equal(nextThrottle(slowed, { ...seen, freeShare: 0.249 }).kind, "throttled");
    assert.deepEqual(nextThrottle(slowed, { ...seen, freeShare: 0.25 }), { kind: "open" });
  });

  test("falls while room falls, grows while room grows or nothing waits, and stays in between, each once in five seconds", () => {
    const after = (wonMebibyte: number, nowMs = 5000, spoolBytes = gibibyte): number =>
      rateOf(nextThrottle(slowed, { ...seen, nowMs, spoolBytes, freeBytes: seen.freeBytes + wonMebibyte * mebibyte }));
    assert.deepEqual([after(-10), after(10), after(0), after(0, 5000, 0), after(-10, 4000)], [14e6, 25e6, 20e6, 25e6, 20e6]);
  });

  test("has a floor and a ceiling, whatever comes", () => {
    for (const won of [-1, 1]) {
      let throttle = slowed;
      for (let look = 1; look < 200; look += 1)
        throttle = nextThrottle(throttle, { ...seen, nowMs: look * 5000, freeBytes: seen.freeBytes + won * look * 2 * mebibyte });
      assert.equal(rateOf(throttle), won < 0 ? 256 * 1024 : gibibyte);
    }
  });
});

test(
  "on a small volume an agent is slowed down and says why, its point is sealed, and it is let go when room is back",
  { skip: process.getuid?.() === 0 ? false : "mounting a small filesystem needs root" },
  async () => {
    await using cleanup = new AsyncDisposableStack();
    const volume = await mkdtemp(join(tmpdir(), "watari-volume-"));
    cleanup.defer(async () => await rm(volume, { recursive: true }));
    await runCommand("mount", ["-t", "tmpfs", "-o", "size=256m,mode=0700", "watari-test", volume]);
    cleanup.defer(async () => void (await runCommand("umount", ["-l", volume])));
    const spool = { folder: join(volume, "packs"), spoolBytesMax: gibibyte };
    await mkdir(spool.folder);
    const pack = join(spool.folder, "waiting");
    // Never by way of an empty file: the throttle looks by itself too.
    let filledBytes = 0;
    const fill = async (bytes: number): Promise<void> => {
      if (bytes < filledBytes) await truncate(pack, bytes);
      else await appendFile(pack, Buffer.alloc(bytes - filledBytes, 1));
      filledBytes = bytes;
    };

    const site = cleanup.use(await startTestSite());
    const { limits, clock, flow } = site;
    const throttle = cleanup.use(new CacheThrottle({ spool, limits, clock, log: silentLog }));
    site.space.check = async () => await throttle.checkSpace();
    const facts = createFacts();
    const ports = { controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem };
    const agent = await registerAgent(ports, facts, site.authority.passphrase);
    site.protect(agent.machineId);
    const sendPoint = async (): Promise<void> => {
      const content = new Uint8Array(randomBytes(40 * blockBytes));
      const begin = createBegin({ bootId: facts.bootId, disks: [wholeDisk(content.length)] });
      await using line = await DataLine.open(ports, agent);
      line.begin(begin);
      await sendWholeDisk(line, 0, content);
      await line.end(begin.pointId);
    };
    const heldBackMs = (): number => flow.meterOf(agent.machineId).heldBack.totalMs;

    await fill(100 * mebibyte);
    await sendPoint();
    assert.deepEqual([heldBackMs(), throttle.fault(), limits.throttle], [0, undefined, undefined]);

    clock.advance(120_000); // Judged is the last minute.
    await fill(110 * mebibyte); // 18 of 128 MiB are left, for 128 of 256 are never used.
    await sendPoint();
    assert.ok(heldBackMs() > 0, "the agent was held back");
    assert.match(throttle.fault()?.message ?? "", /^14 % of the cache is free/);
    const [agents] = limits.state().lines.filter(({ scope }) => scope === "agents");
    assert.deepEqual([agents?.bytesPerSecond, agents?.reason], [mebibyte, "14 % of the cache is free"]);
    const shown = flow.flowOf(agent.machineId, flow.meterOf(agent.machineId).state);
    assert.deepEqual([shown.slowestStage, /14 % of the cache is free/.test(shown.slowestReason ?? "")], ["appliance", true]);

    await fill(100 * mebibyte); // 22 %: more than a fifth, and not yet a quarter.
    await throttle.checkSpace();
    assert.ok(limits.throttle !== undefined);
    await fill(128 * mebibyte + 4096);
    await assert.rejects(throttle.checkSpace(), (error) => error instanceof Fault && error.code === "SpoolFull");

    await fill(90 * mebibyte);
    const before = heldBackMs();
    await sendPoint();
    assert.deepEqual([throttle.fault(), limits.throttle], [undefined, undefined]);
    // What opens the point still passed by the rate of before.
    assert.ok(heldBackMs() - before < 500, `held back for ${heldBackMs() - before} ms`);
  },
);
