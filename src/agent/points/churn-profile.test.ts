// Promises of a profile: it counts what is written by window, sends nothing, ends with replication, and its predictions follow from it.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { test } from "node:test";
import { systemClock, type Clock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { predictLine } from "../../contract/churn-profile.ts";
import { parseDiskId } from "../../contract/ids.ts";
import { createAgentLog } from "../log.ts";
import { SimulatedSource } from "../sim/simulated-source.ts";
import { ScriptedReceiver } from "../testing/scripted-receiver.ts";
import { Replicator } from "./replicator.ts";

interface Bench extends AsyncDisposable {
  readonly replicator: Replicator;
  readonly receiver: ScriptedReceiver;
  readonly source: SimulatedSource;
  /** Called with each second that passes, before it is over. */
  onSecond: (second: number) => Promise<void>;
}

/** A machine whose seconds pass as soon as nobody is busy. */
async function openBench(): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), "watari-profile-"));
  const path = join(folder, "disk");
  await writeFile(path, randomBytes(8 << 20));
  const disk = { diskId: parseDiskId("serial-0"), deviceName: "d0", identifiedBy: "serial" as const, isBoot: true };
  const excluded = [{ offset: 4 << 20, length: 1 << 20 }];
  const names = { hostname: "h", smbiosUuid: "u", osMachineId: "m", bootId: randomUUID(), osName: "o", kernelRelease: "k" };
  const facts = { ...names, firmware: "bios" as const, cpuCount: 1, memoryBytes: 1, addresses: [], nics: [] };
  const source = await SimulatedSource.open({
    ...{ clock: systemClock, random: systemRandom, facts },
    disks: [{ path, facts: { ...disk, excluded } }],
  });
  let seconds = 0;
  const hooks: Pick<Bench, "onSecond"> = { onSecond: () => Promise.resolve() };
  const clock: Clock = {
    ...systemClock,
    monotonicMs: () => seconds * 1000,
    sleep: async (waitMs, signal) => {
      for (let left = waitMs; left > 0; left -= 1000) {
        await setImmediate();
        signal?.throwIfAborted();
        seconds += 1;
        await hooks.onSecond(seconds);
        signal?.throwIfAborted();
      }
    },
  };
  const receiver = new ScriptedReceiver({});
  const replicator = new Replicator({
    ...{ source, clock, random: systemRandom, stateFolder: join(folder, "state") },
    connect: () => Promise.resolve(receiver.connect()),
    log: createAgentLog({ clock, write: () => undefined }),
    cpuSeconds: () => 0,
    residentBytes: () => 0,
  });
  await replicator.load();
  return Object.assign(hooks, {
    ...{ replicator, receiver, source },
    [Symbol.asyncDispose]: async () => {
      await replicator[Symbol.asyncDispose]();
      await source[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  });
}

test("a profile counts each changed piece once a window, leaves out what is excluded, and sends nothing", async () => {
  await using bench = await openBench();
  bench.onSecond = async (second) => {
    await bench.source.write("serial-0", 0, randomBytes(4096)); // The same piece each second.
    if (second % 2 === 0) await bench.source.write("serial-0", second * 8192 + 100, randomBytes(10)); // A new one each other second.
    await bench.source.write("serial-0", 4 << 20, randomBytes(4096)); // Excluded.
  };
  const { profile } = await bench.replicator.profile(32);
  assert.ok(profile !== undefined);
  assert.deepEqual(
    profile.samples,
    Array.from({ length: 32 }, (_, index) => (index % 2 === 0 ? 4096 : 8192)),
  );
  assert.deepEqual(
    profile.windows.map(({ seconds, meanBytes, maxBytes }) => [seconds, meanBytes / 4096, maxBytes / 4096]),
    [
      [1, 1.5, 2],
      [2, 2, 2],
      [4, 3, 3],
      [8, 5, 5],
      [16, 9, 9],
      [32, 17, 17],
    ],
  );
  assert.equal(profile.disks[0]?.rung, "ebpf");
  assert.deepEqual(bench.receiver.begins, []);
  assert.equal(bench.replicator.state().readBytes, 0);
  assert.deepEqual(bench.replicator.state().disks, []);
});

test("replication ends a profile and begins with nothing lost; a replicated machine is not profiled", async () => {
  await using bench = await openBench();
  const replicated = Promise.withResolvers<unknown>();
  bench.onSecond = async (second) => {
    if (second === 3) replicated.resolve(bench.replicator.replicate({ pointIntervalSeconds: 3600, freezeMsMax: 2000 }));
    await Promise.resolve();
  };
  await assert.rejects(bench.replicator.profile(100), { code: "OrderInterrupted" });
  await replicated.promise;
  bench.onSecond = () => Promise.resolve();
  await bench.replicator.point();
  assert.equal(bench.receiver.begins.length, 1);
  await assert.rejects(bench.replicator.profile(10), { code: "StateConflict" });
});

test("predictions: the objective is the interval and the transfer; what the line cannot carry is never reached", () => {
  const window = (seconds: number, mean: number, max: number) => ({ seconds, meanBytes: mean, maxBytes: max });
  const profile = {
    ...{ sampleSeconds: 10, samples: [1000, 3000] },
    windows: [window(10, 2000, 3000), window(20, 3000, 3000)],
    disks: [{ diskId: parseDiskId("d"), sizeBytes: 1_000_000, rung: "ebpf", reason: "" }],
  };
  const slow = predictLine(profile, { lineBytesPerSecond: 250, intervalSeconds: 10, wireShare: 1 });
  assert.deepEqual(
    [slow.lineShare, slow.typicalObjectiveSeconds, slow.worstObjectiveSeconds, slow.shortestIntervalSeconds, slow.initialCopySeconds],
    [0.8, 18, undefined, 20, 4000],
  );
  const compressed = predictLine(profile, { lineBytesPerSecond: 250, intervalSeconds: 40, wireShare: 0.5 });
  assert.deepEqual([compressed.lineShare, compressed.worstObjectiveSeconds, compressed.shortestIntervalSeconds], [0.3, 52, 10]);
  assert.equal(predictLine(profile, { lineBytesPerSecond: 100, intervalSeconds: 15, wireShare: 1 }).typicalObjectiveSeconds, undefined);
});
