// Runs inside the guest: `probe RUNG DISK…` tracks the disks and answers commands on stdin with JSON lines.

import { randomBytes } from "node:crypto";
import { open, readFile, writeFile } from "node:fs/promises";
import { constants } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { createInterface } from "node:readline";
import { openBestTracker, rungs } from "../../src/agent/changes/ladder.ts";
import { allocatePageAligned } from "../../src/agent/kernel/page-aligned.ts";
import { systemClock } from "../../src/base/clock.ts";
import { openSystemCalls } from "../../src/agent/kernel/system-calls.ts";
import type { ChangeTracker, Mark } from "../../src/agent/changes/tracker.ts";

const calls = openSystemCalls();
const sessionFile = "/run/agent-tracking-session";
const session = await readFile(sessionFile).catch(() => undefined);
const newSession = session ?? randomBytes(16);
await writeFile(sessionFile, newSession);
const trackers = new Map<string, { readonly tracker: ChangeTracker; mark: Mark | undefined }>();
const say = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`);
const startedMs = performance.now();
const [wantedRung, ...names] = process.argv.slice(2);
const bestRung = rungs.find((rung) => rung === wantedRung) ?? "ebpf";
for (const name of names) {
  const [major, minor] = (await readFile(`/sys/class/block/${name}/dev`, "utf8")).trim().split(":").map(Number);
  const sectors = Number(await readFile(`/sys/class/block/${name}/size`, "utf8"));
  const tracker = await openBestTracker({
    calls,
    clock: systemClock,
    memoryBytes: totalmem(),
    cpuCount: availableParallelism(),
    bestRung,
    hasBase: false,
    diskId: `probe-${name}`,
    device: ((major ?? 0) << 20) | (minor ?? 0),
    sizeBytes: sectors * 512,
    session,
    newSession,
    readProbe: async () => {
      await using file = await open(`/dev/${name}`, constants.O_RDONLY | constants.O_DIRECT);
      await file.read(allocatePageAligned(4096), 0, 4096, 0);
    },
  });
  trackers.set(name, { tracker, mark: undefined });
}
say({
  ready: true,
  openMs: performance.now() - startedMs,
  rss: process.memoryUsage.rss(),
  disks: [...trackers].map(([name, { tracker }]) => ({ name, ...tracker.tracking, isContinuous: tracker.isContinuous })),
});
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "remove") for (const { tracker } of trackers.values()) await tracker.remove();
  if (line === "remove") break;
  const started = performance.now();
  for (const [name, entry] of trackers) {
    if (line === "acknowledge") {
      entry.mark = await entry.tracker.compact();
      entry.tracker.acknowledge(entry.mark);
      continue;
    }
    const until = await entry.tracker.tick();
    const runs: [number, number][] = [];
    for (const run of entry.tracker.changed({ until })) runs.push([run.first, run.count]);
    say({ name, runs });
  }
  say({ done: line, ms: performance.now() - started, rss: process.memoryUsage.rss(), cpu: process.cpuUsage() });
}
