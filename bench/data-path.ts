// Measures the data path against peers: initial copy of an image and 1 % random 4 KiB changes, agent → TLS → appliance → vault → store.
// Run: node bench/data-path.ts [--full | --size-mib 2048] [--rounds 1] [--cores 4] [--blob] [--no-peers] [--json FILE]
//
// Both ends are the real parts, each in a process of its own; the appliance checks the digest of every block, seals what it stores, and the
// sealed roots must equal roots that are computed from the images. Rounds are interleaved with the peers.

import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { runCommand } from "../src/base/run-command.ts";
import type { MachineId } from "../src/contract/ids.ts";
import { computeRoot } from "../src/disk/compute-root.ts";
import { openFileDisk } from "../src/disk/file-disk.ts";
import { granuleBytes } from "../src/disk/geometry.ts";
import { startBlobFront } from "./data-path-front.ts";
import { BenchProcess, type AgentPoint, type ApplianceReady, type SealedPoint, type Usage } from "./data-path-messages.ts";
import { missingProgram, peers } from "./data-path-peers.ts";
import { formatRows, median, type Measured } from "./measured.ts";
import { changedImage, referenceImage } from "./reference-image.ts";

const { values } = parseArgs({
  options: {
    "size-mib": { type: "string", default: "2048" },
    full: { type: "boolean", default: false },
    rounds: { type: "string", default: "1" },
    /** Processors that the agent may use; 1 is what it takes on a machine that is at work. */
    cores: { type: "string", default: String(availableParallelism()) },
    blob: { type: "boolean", default: false },
    "no-peers": { type: "boolean", default: false },
    profile: { type: "string" },
    json: { type: "string" },
  },
});
const sizeMib = values.full ? 8192 : Number(values["size-mib"]);
const roundCount = Number(values.rounds);
const cores = Number(values.cores);

interface JobRun extends Measured {
  readonly job: string;
  readonly round: number;
  readonly readBytes?: number;
  readonly sentBytes?: number;
  readonly storedBytes?: number;
  readonly agentCpuSeconds?: number;
  readonly applianceCpuSeconds?: number;
  readonly agentResidentMib?: number;
  readonly applianceResidentMib?: number;
}

const initialJob = "initial copy";
/** As in the agent's unit, src/agent/unit.ts. */
const agentLimits = ["--max-old-space-size=64", "--max-semi-space-size=2"];
const changesJob = "1 % random 4 KiB changes";

const cache = join(process.env["WATARI_CACHE"] ?? "/var/cache/watari", "bench");
await mkdir(cache, { recursive: true });
const image = await referenceImage(cache, sizeMib, (line) => console.error(line));
const changed = await changedImage(image);
const folder = await mkdtemp(join(cache, "run-"));
try {
  const work = join(folder, "work.raw");
  await runCommand("cp", ["--sparse=always", image.path, work], { timeoutMs: 600_000 });
  const [agentFile, threadFile] = [await bundle("data-path-agent-child.ts"), await bundle("../src/agent/main.ts")];
  const roots = { initial: await rootOf(work), changes: await rootOf(changed.path) };
  const runs: JobRun[] = [];
  for (let round = 0; round < roundCount; round++) {
    if (!values["no-peers"]) runs.push(...(await measurePeers(work, round)));
    runs.push(...(await measureOurs({ work, round, roots, agentFile, threadFile })));
    await restore(work);
  }
  print(runs);
  if (values.json !== undefined)
    await writeFile(values.json, runs.map((run) => `${JSON.stringify({ sizeMib, cores, ...run })}\n`).join(""));
} finally {
  await rm(folder, { recursive: true, force: true });
}

/** One file, as an agent is shipped: less memory than many files that are read as TypeScript. */
async function bundle(file: string): Promise<string> {
  const outfile = join(folder, `${basename(file, ".ts")}.mjs`);
  const format = { platform: "node", target: "node26", format: "esm" } as const;
  await build({ entryPoints: [join(import.meta.dirname, file)], bundle: true, outfile, ...format, minify: true, logLevel: "silent" });
  return outfile;
}

async function rootOf(path: string): Promise<string> {
  await using disk = await openFileDisk(path, { access: "read" });
  return await computeRoot(disk);
}

async function measurePeers(work: string, round: number): Promise<JobRun[]> {
  const runs: JobRun[] = [];
  for (const peer of peers) {
    const missing = await missingProgram(peer.programs);
    if (missing !== undefined) {
      if (round === 0) console.error(`not measured: ${peer.name}, because ${missing} is not installed`);
      continue;
    }
    const scratch = await mkdtemp(join(folder, "peer-"));
    runs.push({ job: peer.name, round, ...(await peer.measure(work, scratch)) });
    await rm(scratch, { recursive: true });
  }
  return runs;
}

interface Ours {
  readonly agent: BenchProcess;
  readonly appliance: BenchProcess;
  readonly round: number;
}

async function measureOurs(options: {
  readonly work: string;
  readonly round: number;
  readonly agentFile: string;
  readonly threadFile: string;
  readonly roots: { readonly initial: string; readonly changes: string };
}): Promise<JobRun[]> {
  const { work, round, roots, agentFile, threadFile } = options;
  const scratch = await mkdtemp(join(folder, "round-"));
  const execArgv = values.profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${values.profile}`];
  try {
    await using front = values.blob ? await startBlobFront(scratch) : undefined;
    await using appliance = new BenchProcess(join(import.meta.dirname, "data-path-appliance-child.ts"), execArgv);
    const ready = await appliance.ask<ApplianceReady>({
      kind: "startAppliance",
      start: { folder: scratch, blockThreads: availableParallelism(), ...(front === undefined ? {} : { blob: front.blob }) },
    });
    await using agent = new BenchProcess(agentFile, [...agentLimits, ...execArgv]);
    const { machineId } = await agent.ask<{ machineId: MachineId }>({
      kind: "startAgent",
      start: { ...ready, folder: scratch, image: work, cores, threadFile },
    });
    await appliance.ask({ kind: "protect", machineId });
    const ours = { agent, appliance, round };
    const initial = await makePoint(ours, initialJob, roots.initial);
    await agent.ask({ kind: "write", from: changed.path, granules: changed.granules });
    return [initial, await makePoint(ours, changesJob, roots.changes)];
  } finally {
    await rm(scratch, { recursive: true });
  }
}

async function makePoint({ agent, appliance, round }: Ours, job: string, root: string): Promise<JobRun> {
  const usages = async (): Promise<readonly Usage[]> => [
    await agent.ask<Usage>({ kind: "usage" }),
    await appliance.ask<Usage>({ kind: "usage" }),
  ];
  const before = await usages();
  const { pointId, wallSeconds, readBytes, sentBytes } = await agent.ask<AgentPoint>({ kind: "point" });
  const after = await usages();
  const sealed = await appliance.ask<SealedPoint>({ kind: "sealed", pointId });
  if (sealed.root !== root) throw new Error(`${job}: the sealed root ${sealed.root} is not the image's root ${root}`);
  const [agentCpuSeconds = 0, applianceCpuSeconds = 0] = after.map((one, index) => one.cpuSeconds - (before[index]?.cpuSeconds ?? 0));
  const [agentResidentMib = 0, applianceResidentMib = 0] = after.map((one) => Math.round(one.residentBytesMax / 2 ** 20));
  const cpuSeconds = agentCpuSeconds + applianceCpuSeconds;
  const bytes = { readBytes, sentBytes, storedBytes: sealed.storedBytes };
  return { job, round, wallSeconds, cpuSeconds, ...bytes, agentCpuSeconds, applianceCpuSeconds, agentResidentMib, applianceResidentMib };
}

/** Undoes the changes, so that the next round starts from the same bytes. */
async function restore(work: string): Promise<void> {
  await using from = await open(image.path, "r");
  await using to = await open(work, "r+");
  const bytes = Buffer.alloc(granuleBytes);
  for (const granule of changed.granules) {
    await from.read(bytes, 0, granuleBytes, granule * granuleBytes);
    await to.write(bytes, 0, granuleBytes, granule * granuleBytes);
  }
}

function print(runs: readonly JobRun[]): void {
  const of = (job: string): readonly JobRun[] => runs.filter((run) => run.job === job);
  const wall = (job: string): number => median(of(job).map((run) => run.wallSeconds));
  const mb = (bytes: number | undefined): string => (bytes === undefined ? "" : (bytes / 1e6).toFixed(0));
  const seconds = (value: number): string => value.toFixed(2);
  const jobs = [...new Set(runs.map((run) => run.job))];
  const rows = jobs.map((job) => {
    const first = of(job)[0];
    const ratio = job === initialJob || job === changesJob ? "" : `${(wall(initialJob) / wall(job)).toFixed(2)} x`;
    const cpu = seconds(median(of(job).map((run) => run.cpuSeconds)));
    return [job, seconds(wall(job)), cpu, ratio, mb(first?.readBytes), mb(first?.sentBytes), mb(first?.storedBytes)];
  });
  console.log(`data path, ${sizeMib} MiB, ${roundCount} round(s), the agent on up to ${cores} processor(s); medians`);
  console.log(formatRows([["job", "wall s", "CPU s", "ours / this", "read MB", "sent MB", "stored MB"], ...rows]));
  const ours = [...of(initialJob), ...of(changesJob)];
  const most = (pick: (run: JobRun) => number | undefined): number => Math.max(...ours.map((run) => pick(run) ?? 0));
  console.log(
    `resident at most: agent ${most((run) => run.agentResidentMib)} MiB, appliance ${most((run) => run.applianceResidentMib)} MiB`,
  );
}
