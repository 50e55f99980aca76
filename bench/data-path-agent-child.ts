// The agent's side of data-path.ts: the agent's own replicator over a simulated machine with one disk, in a process of its own.

import { randomUUID } from "node:crypto";
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { connectData } from "../src/agent/identity/appliance-client.ts";
import { loadIdentity } from "../src/agent/identity/registration.ts";
import { createAgentLog } from "../src/agent/log.ts";
import { Replicator } from "../src/agent/points/replicator.ts";
import { registerSimulatedAgent } from "../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../src/agent/sim/simulated-source.ts";
import { systemClock as clock } from "../src/base/clock.ts";
import { systemRandom as random } from "../src/base/random.ts";
import { unitsInFlightMax } from "../src/contract/agent-frames.ts";
import { parseDiskId, type MachineId } from "../src/contract/ids.ts";
import { granuleBytes } from "../src/disk/geometry.ts";
import { serveMessages, usage, type AgentPoint, type AgentStart } from "./data-path-messages.ts";

const diskId = parseDiskId("disk-1");
const names = { hostname: "bench", osMachineId: "0".repeat(32), osName: "bench", kernelRelease: "6" };
const shape = { firmware: "bios" as const, cpuCount: 1, memoryBytes: 2 ** 30, addresses: ["127.0.0.1"], nics: [] };

interface Agent {
  readonly source: SimulatedSource;
  readonly replicator: Replicator;
}
const cleanup = new AsyncDisposableStack();
let agent: Agent | undefined;

async function start(options: AgentStart): Promise<MachineId> {
  const { folder, image } = options;
  const facts = { ...names, ...shape, smbiosUuid: randomUUID(), bootId: randomUUID() };
  const diskFacts = { diskId, deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  const source = cleanup.use(await SimulatedSource.open({ clock, random, facts, disks: [{ path: image, facts: diskFacts }] }));
  const stateFolder = join(folder, "agent");
  await mkdir(stateFolder, { recursive: true });
  const passphraseFile = join(folder, "passphrase");
  await writeFile(passphraseFile, options.passphrase, { mode: 0o600 });
  const appliance = { host: "127.0.0.1", port: options.controlPort };
  await registerSimulatedAgent({ source, stateFolder, clock, random, appliance, authorityPem: options.caPem, passphraseFile });
  const { identity, trust } = await loadIdentity(stateFolder);
  const replicator = new Replicator({
    source,
    stateFolder,
    connect: async (signal) => await connectData({ host: identity.applianceHost, port: options.dataPort }, trust, signal),
    clock,
    random,
    log: createAgentLog({ clock, write: () => undefined }),
    cpuSeconds: () => usage().cpuSeconds,
    residentBytes: () => process.memoryUsage.rss(),
    cpuShareMax: options.cores,
    ...(options.cores > 1 ? { threads: { count: options.cores, file: options.threadFile } } : {}),
  });
  cleanup.use(replicator);
  replicator.unitsInFlightMax = unitsInFlightMax; // As an agent hears it with each poll.
  await replicator.load();
  agent = { source, replicator };
  return identity.machineId;
}

function running(): Agent {
  if (agent === undefined) throw new Error("the agent was not started");
  return agent;
}

async function makePoint(): Promise<AgentPoint> {
  const { replicator } = running();
  await replicator.replicate({ pointIntervalSeconds: 86_400, freezeMsMax: 2000 });
  const before = replicator.state();
  const startedMs = performance.now();
  const { pointId } = await replicator.point();
  const wallSeconds = (performance.now() - startedMs) / 1000;
  if (pointId === undefined) throw new Error("the point has no id");
  const after = replicator.state();
  return { pointId, wallSeconds, readBytes: after.readBytes - before.readBytes, sentBytes: after.sentBytes - before.sentBytes };
}

/** The machine's programs change these granules to what another image holds there. */
async function write(from: string, granules: readonly number[]): Promise<void> {
  await using file = await open(from, "r");
  const bytes = Buffer.alloc(granuleBytes);
  for (const granule of granules) {
    await file.read(bytes, 0, granuleBytes, granule * granuleBytes);
    await running().source.write(diskId, granule * granuleBytes, bytes);
  }
}

serveMessages(
  async (message) => {
    switch (message.kind) {
      case "startAgent":
        return { machineId: await start(message.start) };
      case "point":
        return await makePoint();
      case "write":
        return await write(message.from, message.granules);
      case "loseTracking":
        return running().source.loseEvents(diskId);
      case "usage":
        return usage();
      case "serve":
      case "order":
      case "fleet":
      case "startAppliance":
      case "protect":
      case "sealed":
        throw new Error(`not a message for the agent: ${message.kind}`);
    }
  },
  async () => await cleanup.disposeAsync(),
);
