// Many simulated agents on one appliance, each wanting a point every 10 s while its disk changes: points a minute, memory, processor time, pauses.
// Run: node bench/fleet.ts [--quick | --agents 200] [--seconds 120] [--json FILE]
//
// The appliance is the real part in a process of its own. The agents are the agent's own program over simulated machines, all in this process.

import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { registerSimulatedAgent, startSimulatedAgent } from "../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../src/agent/sim/simulated-source.ts";
import { systemClock as clock } from "../src/base/clock.ts";
import { systemRandom as random } from "../src/base/random.ts";
import { parseDiskId, type MachineId } from "../src/contract/ids.ts";
import { granuleBytes } from "../src/disk/geometry.ts";
import { extra, formatClaims, timesMore, withinLimit } from "./claim.ts";
import { BenchProcess, type ApplianceReady, type FleetUsage } from "./data-path-messages.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    agents: { type: "string", default: "200" },
    seconds: { type: "string" },
    json: { type: "string" },
  },
});
const agentCount = Number(values.agents);
const measuredSeconds = Number(values.seconds ?? (values.quick ? 30 : 120));
const firstPointsMsMax = 600_000;
const diskBytes = 8 << 20;
/** Of each machine and second, at random places. */
const granulesWritten = 4;
const intervalSeconds = 10;
const diskId = parseDiskId("disk-1");

const cache = join(process.env["WATARI_CACHE"] ?? "/var/cache/watari", "bench");
await mkdir(cache, { recursive: true });
const folder = await mkdtemp(join(cache, "fleet-"));
await using cleanup = new AsyncDisposableStack();
cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
const appliance = cleanup.use(new BenchProcess(join(import.meta.dirname, "data-path-appliance-child.ts")));
const start = { folder, blockThreads: availableParallelism() };
const ready = await appliance.ask<ApplianceReady>({ kind: "startAppliance", start });
const sources: SimulatedSource[] = [];
const machineIds: MachineId[] = [];
for (let number = 0; number < agentCount; number++) await startMachine(join(folder, `machine-${number}`));

const fleet = async (): Promise<FleetUsage> => await appliance.ask<FleetUsage>({ kind: "fleet", machineIds });
const writing = new AbortController();
const written = writeAll(writing.signal);
const startedMs = performance.now();
let before = await fleet();
while (before.machinesWithPoints < agentCount) {
  if (performance.now() - startedMs > firstPointsMsMax)
    throw new Error(`${before.machinesWithPoints} of ${agentCount} machines have a point`);
  await clock.sleep(1000);
  before = await fleet();
}
console.error(`${agentCount} machines have a first point after ${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
const measuredMs = performance.now();
before = await fleet(); // Pauses count from here.
await clock.sleep(measuredSeconds * 1000);
const after = await fleet();
const minutes = (performance.now() - measuredMs) / 60_000;
writing.abort();
await written;

const points = after.pointCount - before.pointCount;
const name = `${agentCount} agents on one appliance`;
const claims = [
  withinLimit(`${name}, pauses of its event loop, p99`, { ours: [after.stallP99Ms], unit: "ms", limit: 50 }),
  extra(
    timesMore({
      claim: `${name}, points a minute`,
      ours: [points / minutes],
      unit: "/min",
      peer: `one every ${intervalSeconds} s of each`,
      theirs: [(agentCount * 60) / intervalSeconds],
      bar: 1,
    }),
  ),
  extra(withinLimit(`${name}, memory`, { ours: [after.residentBytesMax / 2 ** 20], unit: "MiB", limit: 1024 })),
  extra(
    withinLimit(`${name}, processor time of a point`, {
      ours: [(after.cpuSeconds - before.cpuSeconds) / points],
      unit: "CPU s",
      limit: 0.1,
    }),
  ),
];
console.log(`${name}, ${points} points in ${(minutes * 60).toFixed(0)} s, ${availableParallelism()} processors for both`);
console.log(formatClaims(claims));
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ results: claims }, undefined, 1)}\n`);

/** Registered, protected and running on return. */
async function startMachine(own: string): Promise<void> {
  await mkdir(own);
  const path = join(own, "disk.raw");
  await writeFile(path, randomBytes(diskBytes / 8));
  await truncate(path, diskBytes);
  const machine = { hostname: "fleet", osMachineId: randomBytes(16).toString("hex"), osName: "bench", kernelRelease: "6" };
  const shape = { firmware: "bios" as const, cpuCount: 1, memoryBytes: 2 ** 30, addresses: ["127.0.0.1"], nics: [] };
  const facts = { ...machine, ...shape, smbiosUuid: randomUUID(), bootId: randomUUID() };
  const diskFacts = { diskId, deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  const source = cleanup.use(await SimulatedSource.open({ clock, random, facts, disks: [{ path, facts: diskFacts }] }));
  const [stateFolder, passphraseFile] = [join(own, "state"), join(own, "passphrase")];
  await mkdir(stateFolder);
  await writeFile(passphraseFile, ready.passphrase, { mode: 0o600 });
  const endpoint = { host: "127.0.0.1", port: ready.controlPort };
  const parts = { source, stateFolder, clock, random };
  const machineId = await registerSimulatedAgent({ ...parts, appliance: endpoint, authorityPem: ready.caPem, passphraseFile });
  await appliance.ask({ kind: "order", machineId, pointIntervalSeconds: intervalSeconds });
  cleanup.use(startSimulatedAgent(parts));
  sources.push(source);
  machineIds.push(machineId);
}

async function writeAll(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    for (const source of sources)
      for (let count = 0; count < granulesWritten; count++) {
        const offset = Math.floor((random.bytes(2)[0] ?? 0) * (diskBytes / granuleBytes / 256)) * granuleBytes;
        await source.write(diskId, offset, randomBytes(granuleBytes));
      }
    await clock.sleep(1000, signal).catch(() => undefined); // Aborted: the loop ends.
  }
}
