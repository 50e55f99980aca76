// What a delta costs on a small and on a large sparse disk: the same granules of both, and as many that lie all over the large one.
// Run: node bench/growth.ts [--quick | --large-gib 2048] [--json FILE]
//
// The agent and the appliance are the real parts in processes of their own; every root is compared with the file's.

import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runCommand } from "../src/base/run-command.ts";
import { granuleBytes } from "../src/disk/geometry.ts";
import { extra, formatClaims, atMost } from "./claim.ts";
import { bundleAgent, DataPathPair, rootOfImage, type AgentFiles, type PointRun } from "./data-path-pair.ts";

const { values } = parseArgs({
  options: { quick: { type: "boolean", default: false }, "large-gib": { type: "string" }, json: { type: "string" } },
});
const smallGib = 8;
const largeGib = Number(values["large-gib"] ?? (values.quick ? 64 : 2048));
const deltaCount = 3;
/** 16 MiB; each in a block of its own, nearly. */
const changedGranules = 4096;
const cores = availableParallelism();

const cache = join(process.env["WATARI_CACHE"] ?? "/var/cache/watari", "bench");
await mkdir(cache, { recursive: true });
const folder = await mkdtemp(join(cache, "growth-"));
try {
  const files = await bundleAgent(folder);
  const { near: small } = await measureDisk(smallGib, files);
  const { near, wide } = await measureDisk(largeGib, files);
  const size = largeGib % 1024 === 0 ? `${largeGib / 1024} TiB` : `${largeGib} GiB`;
  const claim = `delta of ${(changedGranules * granuleBytes) / 2 ** 20} MiB on a disk of ${size}`;
  const beside = { peer: `on ${smallGib} GiB`, bar: 1.2 };
  const wallOf = (runs: readonly PointRun[]): number[] => runs.map(({ wallSeconds }) => wallSeconds);
  const cpuOf = (runs: readonly PointRun[]): number[] => runs.map(({ cpuSeconds }) => cpuSeconds);
  const claims = [
    atMost({ claim: `${claim}, time`, unit: "s", ...beside, ours: wallOf(near), theirs: wallOf(small) }),
    atMost({ claim: `${claim}, processor time`, unit: "CPU s", ...beside, ours: cpuOf(near), theirs: cpuOf(small) }),
    extra(atMost({ claim: `${claim}, all over it, time`, unit: "s", ...beside, ours: wallOf(wide), theirs: wallOf(small) })),
    extra(atMost({ claim: `${claim}, all over it, processor time`, unit: "CPU s", ...beside, ours: cpuOf(wide), theirs: cpuOf(small) })),
  ];
  console.log(`growth, ${deltaCount} deltas of each kind, ${cores} processors; medians`);
  console.log(formatClaims(claims));
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ results: claims, small, near, wide }, undefined, 1)}\n`);
} finally {
  await rm(folder, { recursive: true, force: true });
}

interface Deltas {
  /** Within the first bytes, as many as the small disk has. */
  readonly near: readonly PointRun[];
  readonly wide: readonly PointRun[];
}

/** Without a first one of each kind, which warms both programs up. */
async function measureDisk(sizeGib: number, files: AgentFiles): Promise<Deltas> {
  const own = await mkdtemp(join(folder, "disk-"));
  const [image, changes] = [join(own, "disk.raw"), join(own, "changes.raw")];
  const sizeBytes = sizeGib * 2 ** 30;
  for (const path of [image, changes]) await runCommand("truncate", ["-s", String(sizeBytes), path]);
  const [near, wide]: PointRun[][] = [[], []];
  {
    await using pair = await DataPathPair.start({ folder: own, image, files, cores });
    const first = await pair.point(await rootOfImage(image));
    console.error(`${sizeGib} GiB, first copy: ${told(first)}`);
    for (const [spanGib, runs] of [
      [smallGib, near],
      [sizeGib, wide],
    ] as const) {
      if (runs === wide && sizeGib === smallGib) continue;
      for (let number = 0; number <= deltaCount; number++) {
        const granules = await writeChanges(changes, { spanBytes: spanGib * 2 ** 30, number });
        await pair.write(changes, granules);
        const delta = await pair.point(await rootOfImage(image));
        if (number > 0) runs?.push(delta);
        console.error(`${sizeGib} GiB, delta over ${spanGib} GiB: ${told(delta)}`);
      }
    }
  }
  await rm(own, { recursive: true });
  return { near: near ?? [], wide: wide ?? [] };
}

function told(run: PointRun): string {
  const agent = `agent ${run.agentCpuSeconds.toFixed(2)} CPU s, ${run.agentResidentMib} MiB`;
  const appliance = `appliance ${run.applianceCpuSeconds.toFixed(2)} CPU s, ${run.applianceResidentMib} MiB`;
  return `${run.wallSeconds.toFixed(2)} s, ${(run.storedBytes / 1e6).toFixed(1)} MB stored; ${agent}; ${appliance}`;
}

/** At even distances, each delta beside the one before; half text, half of its own. */
async function writeChanges(path: string, of: { readonly spanBytes: number; readonly number: number }): Promise<readonly number[]> {
  await using file = await open(path, "r+");
  const distance = Math.floor(of.spanBytes / granuleBytes / changedGranules);
  const granules = Array.from({ length: changedGranules }, (_, index) => index * distance + of.number);
  let seed = of.number + 1;
  for (const granule of granules) {
    const bytes = Buffer.alloc(granuleBytes, `granule ${granule} of delta ${of.number}; `);
    for (let at = granuleBytes / 2; at < granuleBytes; at += 4) {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
      bytes.writeUInt32LE(seed, at);
    }
    await file.write(bytes, 0, granuleBytes, granule * granuleBytes);
  }
  return granules;
}
