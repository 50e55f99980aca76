// Every claim in one table: runs the benchmarks that make claims, one after the other, and keeps table, JSON and plot together.
// Run: node bench/claims.ts [--quick] [--json FILE] [--points FILE]. A full run also renews docs/bench/claims.json and claims.svg.

import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { formatClaims, plotClaims, type Claim } from "./claim.ts";
import { runToEnd } from "./measured.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    json: { type: "string" },
    /** What `npm run proof -- points --json` printed: claims that need a real guest and its time. */
    points: { type: "string" },
  },
});

/** Each takes --quick and --json FILE, and writes `{ "results": [Claim] }`. */
const benches = ["replication.ts", "line.ts", "growth.ts", "fleet.ts", "vault-index.ts"];

const claimShape = z.object({
  claim: z.string(),
  ours: z.number(),
  unit: z.string(),
  peer: z.string(),
  theirs: z.number(),
  ratio: z.number(),
  bar: z.number(),
  sense: z.enum(["at most", "at least"]),
  met: z.boolean(),
  rounds: z.number(),
  isExtra: z.boolean().default(false),
});
const pointsClaim = "recovery point interval held, pauses of points";
/** A proof may leave out what is plain: figures of one run beside a limit. */
const pointsShape = z.object({
  results: z
    .array(
      claimShape.extend({
        unit: z.string().default(""),
        sense: z.enum(["at most", "at least"]).default("at most"),
        rounds: z.number().default(1),
      }),
    )
    .min(1),
});
const resultsShape = z.object({ results: z.array(claimShape) });

const folder = await mkdtemp(join(tmpdir(), "watari-claims-"));
const results: Claim[] = [];
const failed: string[] = [];
try {
  for (const bench of benches) {
    console.error(`bench/${bench}`);
    const json = join(folder, `${bench}.json`);
    const args = ["--disable-warning=ExperimentalWarning", join(import.meta.dirname, bench), "--json", json];
    try {
      await runToEnd({ command: process.execPath, args: [...args, ...(values.quick ? ["--quick"] : [])] });
      results.push(...resultsShape.parse(JSON.parse(await readFile(json, "utf8"))).results);
    } catch (error) {
      failed.push(bench);
      console.error(error instanceof Error ? error.message : String(error));
    }
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
const notMeasured: string[] = failed.map((bench) => `bench/${bench} failed`);
if (values.points === undefined) notMeasured.push(`${pointsClaim}: run "npm run proof -- points --json" and give its file by --points`);
else results.push(...pointsShape.parse(JSON.parse(await readFile(values.points, "utf8"))).results);
console.log(formatClaims(results));
const promised = results.filter(({ isExtra }) => isExtra !== true);
const missed = promised.filter(({ met }) => !met).length;
console.log(`${promised.length} claims, ${missed} missed`);
for (const line of notMeasured) console.log(`not measured in this run: ${line}`);
const text = `${JSON.stringify({ results, notMeasured }, undefined, 1)}\n`;
if (values.json !== undefined) await writeFile(values.json, text);
if (!values.quick && failed.length === 0) {
  const docs = join(import.meta.dirname, "../docs/bench");
  await mkdir(docs, { recursive: true });
  await writeFile(join(docs, "claims.json"), text);
  await writeFile(join(docs, "claims.svg"), plotClaims(results));
}
process.exitCode = failed.length === 0 ? 0 : 1;
