// Runs inside the guest under load: how long its writers stand still with each way to bring the filesystems to rest, in turn.

import { readFile, writeFile } from "node:fs/promises";
import { systemClock } from "../../../src/base/clock.ts";
import { runCommand } from "../../../src/base/run-command.ts";
import { openCallThreads, type CallThreads } from "../../../src/agent/kernel/call-threads.ts";
import { openSystemCalls } from "../../../src/agent/kernel/system-calls.ts";
import { armFreeze } from "../../../src/agent/snapshot/freeze.ts";

const [group = "", rounds = "1", ...ways] = process.argv.slice(2);
const together = openCallThreads(openSystemCalls(), systemClock);
const diskNames = new Set(["vda", "vdb"]);
const freezeFile = `/sys/fs/cgroup/${group}/cgroup.freeze`;
const passes = 4;

/** Only what freezes and thaws: what comes before it is the same with each way. */
function inTurns(split: (count: number) => readonly number[]): CallThreads {
  return {
    callTogether: async (calls) => {
      if (calls[0]?.name !== "ioctl") return await together.callTogether(calls);
      const outcomes = [];
      let first = 0;
      for (const count of split(calls.length)) outcomes.push(...(await together.callTogether(calls.slice(first, (first += count)))));
      return outcomes;
    },
  };
}

const threadsOf: Readonly<Record<string, CallThreads>> = {
  together,
  turns: inTurns((count) => Array.from({ length: count }, () => 1)),

  writers: together,
};

/** Resolves when the kernel says that every process of the group stands still. */
async function stopWriters(): Promise<void> {
  await writeFile(freezeFile, "1");
  while (!/^frozen 1$/m.test(await readFile(`/sys/fs/cgroup/${group}/cgroup.events`, "utf8"))) await systemClock.sleep(1);
}

for (let round = 0; round < Number(rounds); round++)
  for (const way of ways) {
    await runCommand("sync", []);
    const startMs = systemClock.monotonicMs();
    if (way === "writers") {
      await stopWriters();
      await runCommand("sync", []);
    }
    const armed = await armFreeze({ threads: threadsOf[way] ?? together, clock: systemClock, diskNames, msMax: 10_000 });
    const passMs: number[] = [];
    for (let pass = 0; pass < passes; pass++) {
      const beginMs = systemClock.monotonicMs();
      await armed.writeOut();
      passMs.push(Math.round(systemClock.monotonicMs() - beginMs));
    }
    const freeze = await armed.freeze();
    const { frozenMs } = await freeze.thaw();
    if (way === "writers") await writeFile(freezeFile, "0");
    const pauseMs = way === "writers" ? systemClock.monotonicMs() - startMs : frozenMs;
    process.stdout.write(
      `${JSON.stringify({ way, pauseMs, freezeMs: freeze.tookMs, passMs, filesystems: Object.fromEntries(freeze.filesystems.map(({ path, tookMs }) => [path, Math.round(tookMs)])) })}\n`,
    );
    await systemClock.sleep(1500);
  }
