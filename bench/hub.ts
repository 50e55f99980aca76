// The hub's figures: p99 under load after years of use, pages, start, 1,000 appliances on an outside server, takeover and the cost of a step.
// Run: npm run bench -- hub [--quick] [--only jobs,load,appliances] [--state FOLDER: keeps the filled hub for the next run] [--seconds N]
// [--leak 0: neither pages nor heap] [--profile FILE: of the hub during the load]. A table on stdout; docs/bench/hub.json and hub.svg beside it, but not of a quick run.

import { mkdir, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { measureAppliances } from "./hub-appliances.ts";
import { measureJobs } from "./hub-jobs.ts";
import { measureLoad } from "./hub-load.ts";
import { formatRows } from "./measured.ts";
import { plotHub } from "./hub-plot.ts";

const { values } = parseArgs({
  options: { quick: { type: "boolean" }, only: { type: "string" }, folder: { type: "string" }, ...loadOptions() },
});
const isQuick = values.quick === true;
const parts = values.only?.split(",") ?? ["jobs", "load", "appliances"];

const jobs = parts.includes("jobs") ? await measureJobs() : undefined;
const load = parts.includes("load")
  ? await measureLoad({
      ...(isQuick ? { itemCount: 1000, eventCount: 20_000 } : { itemCount: 10_000, eventCount: 1_000_000 }),
      ...{ perSecond: 200, seconds: Number(values.seconds ?? (isQuick ? 10 : 60)) },
      ...{ leakRequests: Number(values.leak ?? (isQuick ? 5000 : 100_000)), keptFolder: values.state, profileFile: values.profile },
    })
  : undefined;
const appliances = parts.includes("appliances")
  ? await measureAppliances(isQuick ? { count: 50, orders: 50, quietSeconds: 10 } : { count: 1000, orders: 1000, quietSeconds: 60 })
  : undefined;

interface Claim {
  readonly what: string;
  readonly figure: string;
  /** What was promised; absent: only shown. */
  readonly bar?: string;
  readonly isKept?: boolean;
}

const claims = claimsOf();
const report = { processors: availableParallelism(), node: process.version, isQuick, claims, load, appliances, jobs };
process.stdout.write(
  `${formatRows([["what", "figure", "promised", ""], ...claims.map(({ what, figure, bar, isKept }) => [what, figure, bar ?? "", isKept === undefined ? "" : isKept ? "kept" : "MISSED"])])}\n`,
);
const folder = values.folder ?? (isQuick || values.only !== undefined ? undefined : join(import.meta.dirname, "../docs/bench"));
if (folder !== undefined) {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "hub.json"), `${JSON.stringify(report, undefined, 2)}\n`);
  if (load !== undefined) await writeFile(join(folder, "hub.svg"), plotHub(load));
}
if (claims.some(({ isKept }) => isKept === false)) process.exitCode = 1;

function loadOptions() {
  const text = { type: "string" } as const;
  return { state: text, seconds: text, leak: text, profile: text };
}

function claimsOf(): readonly Claim[] {
  return [...(load === undefined ? [] : claimsOfLoad(load)), ...claimsOfAppliances(), ...claimsOfJobs()];
}

function claimsOfLoad(figures: NonNullable<typeof load>): readonly Claim[] {
  const { kinds, walks, heapMib, startSeconds, refused } = figures;
  const [firstHeap = 0, lastHeap = 0] = [heapMib[1], heapMib.at(-1)];
  return [
    ...kinds.map(({ kind, perSecond, p50Ms, p90Ms, p99Ms, longestMs }) => ({
      what: `${kind}: ${perSecond.toFixed(0)} calls a second, p50 / p90 / p99 / longest`,
      ...{
        figure: `${[p50Ms, p90Ms, p99Ms, longestMs].map((ms) => ms.toFixed(0)).join(" / ")} ms`,
        bar: "p99 < 50 ms",
        isKept: p99Ms < 50,
      },
    })),
    { what: "calls refused or failed", figure: String(refused), bar: "0", isKept: refused === 0 },
    {
      what: "processor time of a call, hub + database",
      figure: `${figures.hubCpuMsPerRequest.toFixed(2)} + ${figures.databaseCpuMsPerRequest.toFixed(2)} ms`,
    },
    {
      what: "delay of the hub's event loop, p50 / p99 / longest",
      figure: `${[figures.loop.p50Ms, figures.loop.p99Ms, figures.loop.longestMs].map((ms) => ms.toFixed(1)).join(" / ")} ms`,
    },
    ...kinds.map(({ kind, statementsPerCall, hubCpuMs, databaseCpuMs }) => ({
      what: `${kind}: statements of a call; its processor time alone, hub + database`,
      figure: `${statementsPerCall.toFixed(1)}; ${hubCpuMs.toFixed(2)} + ${databaseCpuMs.toFixed(2)} ms`,
    })),
    ...walks.map(({ list, pages, rows, firstMs, middleMs, lastMs }) => ({
      what: `${list}: ${rows} rows, ${pages} pages, first / middle / last`,
      figure: `${firstMs.toFixed(1)} / ${middleMs.toFixed(1)} / ${lastMs.toFixed(1)} ms`,
      bar: "the same",
      isKept: Math.max(middleMs, lastMs) < 2 * firstMs + 2,
    })),
    {
      what: `start with ${figures.itemCount} items and ${figures.eventCount} events`,
      figure: `${startSeconds.toFixed(2)} s`,
      ...{ bar: "< 3 s", isKept: startSeconds < 3 },
    },
    ...(heapMib.length === 0
      ? []
      : [
          {
            what: "heap after a fifth of the calls, and after all",
            figure: `${firstHeap.toFixed(1)} / ${lastHeap.toFixed(1)} MiB`,
            ...{ bar: "flat", isKept: lastHeap < firstHeap * 1.1 + 2 },
          },
        ]),
    { what: "resident memory", figure: `${figures.residentMib.toFixed(0)} MiB` },
  ];
}

function claimsOfAppliances(): readonly Claim[] {
  if (appliances === undefined) return [];
  const { count, registerSeconds, registerP99Ms, quiet, orders, storm } = appliances;
  return [
    {
      what: `${count} appliances register on an outside server, 8 at once; p99 of one`,
      figure: `${registerSeconds.toFixed(1)} s; ${registerP99Ms.toFixed(0)} ms`,
    },
    {
      what: "they keep in touch: processors of the hub + database, memory",
      figure: `${quiet.hubProcessors.toFixed(2)} + ${quiet.databaseProcessors.toFixed(2)}, ${quiet.hubResidentMib.toFixed(0)} MiB`,
    },
    {
      what: `${orders.count} orders, given after p50 / p99`,
      figure: `${orders.givenP50Ms.toFixed(0)} / ${orders.givenP99Ms.toFixed(0)} ms`,
    },
    { what: "orders, answered after p50 / p99", figure: `${orders.doneP50Ms.toFixed(0)} / ${orders.doneP99Ms.toFixed(0)} ms` },
    {
      what: "hub killed and started: ready; half and all in touch again",
      figure: `${storm.readySeconds.toFixed(1)} s; ${storm.halfSeconds.toFixed(1)} / ${storm.allSeconds.toFixed(1)} s`,
    },
    { what: "longest call of an operator meanwhile", figure: `${storm.longestCallMs.toFixed(0)} ms` },
  ];
}

function claimsOfJobs(): readonly Claim[] {
  if (jobs === undefined) return [];
  return [
    {
      what: `SIGKILL of a hub to the end of its job in another, lease ${jobs.leaseMs / 1000} s`,
      figure: `${(jobs.takeoverMs / 1000).toFixed(1)} s`,
      ...{ bar: "< lease + 2 s", isKept: jobs.takeoverMs < jobs.leaseMs + 2000 },
    },
    {
      what: "what the engine adds to a step: one job; 64 jobs at once",
      figure: `${jobs.aloneMs.toFixed(1)} ms; ${jobs.among64Ms.toFixed(1)} ms`,
    },
  ];
}
