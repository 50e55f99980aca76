// Runs inside the guest under load: how long its writers stand still with each way to bring the filesystems to rest.

import { readFile, writeFile } from "node:fs/promises";
import { systemClock } from "../../../src/base/clock.ts";
import { runCommand } from "../../../src/base/run-command.ts";
import { openSystemCalls } from "../../../src/agent/kernel/system-calls.ts";
import { armFreeze } from "../../../src/agent/snapshot/freeze.ts";

const [way = "", group = "", rounds = "1"] = process.argv.slice(2);
const calls = openSystemCalls();
const diskNames = new Set(["vda", "vdb"]);
const freezeFile = `/sys/fs/cgroup/${group}/cgroup.freeze`;

/** Resolves when the kernel says that every process of the group stands still. */
async function stopWriters(): Promise<void> {
  await writeFile(freezeFile, "1");
  while (!/^frozen 1$/m.test(await readFile(`/sys/fs/cgroup/${group}/cgroup.events`, "utf8"))) await systemClock.sleep(1);
}

const pauses: number[] = [];
for (let round = 0; round < Number(rounds); round++) {
  await runCommand("sync", []);
  const startMs = systemClock.monotonicMs();
  if (way === "writers") {
    await stopWriters();
    await runCommand("sync", []);
  }
  const armed = await armFreeze({ calls, clock: systemClock, diskNames, msMax: 10_000 });
  for (let pass = 0; pass < 4; pass++) await armed.writeOut();
  const freeze = await armed.freeze();
  const { frozenMs } = await freeze.thaw();
  if (way === "writers") await writeFile(freezeFile, "0");
  pauses.push(way === "writers" ? systemClock.monotonicMs() - startMs : frozenMs);
  await systemClock.sleep(1500);
}
process.stdout.write(`${JSON.stringify({ way, pauses })}\n`);
