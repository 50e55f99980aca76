// Measures the data path against peers: initial copy of an image and 1 % random 4 KiB changes, agent → TLS → appliance → vault → store.
// Run: node bench/data-path.ts [--full | --size-mib 2048] [--rounds 1] [--cores 4] [--blob] [--no-peers] [--json FILE]
//
// Both ends are the real parts, each in a process of its own; the appliance checks the digest of every block, seals what it stores, and the
// sealed roots must equal roots that are computed from the images. Rounds are interleaved with the peers.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runCommand } from "../src/base/run-command.ts";
import { startBlobFront } from "./data-path-front.ts";
import { bundleAgent, copyGranules, DataPathPair, rootOfImage, type AgentFiles } from "./data-path-pair.ts";
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
  readonly agentResidentMib?: number;
  readonly applianceResidentMib?: number;
}

const initialJob = "initial copy";
const changesJob = "1 % random 4 KiB changes";

const cache = join(process.env["WATARI_CACHE"] ?? "/var/cache/watari", "bench");
await mkdir(cache, { recursive: true });
const image = await referenceImage(cache, sizeMib, (line) => console.error(line));
const changed = await changedImage(image);
const folder = await mkdtemp(join(cache, "run-"));
try {
  const work = join(folder, "work.raw");
  await runCommand("cp", ["--sparse=always", image.path, work], { timeoutMs: 600_000 });
  const files = await bundleAgent(folder);
  const roots = { initial: await rootOfImage(work), changes: await rootOfImage(changed.path) };
  const runs: JobRun[] = [];
  for (let round = 0; round < roundCount; round++) {
    if (!values["no-peers"]) runs.push(...(await measurePeers(work, round)));
    runs.push(...(await measureOurs({ work, round, roots, files })));
    await copyGranules(image.path, work, changed.granules);
  }
  print(runs);
  if (values.json !== undefined)
    await writeFile(values.json, runs.map((run) => `${JSON.stringify({ sizeMib, cores, ...run })}\n`).join(""));
} finally {
  await rm(folder, { recursive: true, force: true });
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

async function measureOurs(options: {
  readonly work: string;
  readonly round: number;
  readonly files: AgentFiles;
  readonly roots: { readonly initial: string; readonly changes: string };
}): Promise<JobRun[]> {
  const { work, round, roots, files } = options;
  const scratch = await mkdtemp(join(folder, "round-"));
  const execArgv = values.profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${values.profile}`];
  try {
    await using front = values.blob ? await startBlobFront(scratch) : undefined;
    const blob = front === undefined ? {} : { blob: front.blob };
    await using pair = await DataPathPair.start({ folder: scratch, image: work, files, cores, execArgv, ...blob });
    const initial = await pair.point(roots.initial);
    await pair.write(changed.path, changed.granules);
    const changes = await pair.point(roots.changes);
    return [
      { job: initialJob, round, ...initial },
      { job: changesJob, round, ...changes },
    ];
  } finally {
    await rm(scratch, { recursive: true });
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
