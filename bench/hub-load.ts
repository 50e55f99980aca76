// One hub on its embedded database after years: 10,000 items and 1,000,000 events, called 200 times a second by an operator's programs.

import assert from "node:assert/strict";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import autocannon from "autocannon";
import { findFreePort } from "../src/hub/test-client.ts";
import { startHubProgram, type HubProgram } from "./hub-program.ts";
import { fillHub } from "./hub-state.ts";
import { quantile } from "./measured.ts";

export interface LoadWish {
  readonly itemCount: number;
  readonly eventCount: number;
  readonly perSecond: number;
  readonly seconds: number;
  /** Of the look for a leak. */
  readonly leakRequests: number;
  /** Further sections of the hub's configuration. */
  readonly sections?: Readonly<Record<string, unknown>>;
}

export interface KindFigures {
  readonly kind: string;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p90Ms: number;
  readonly p99Ms: number;
  readonly longestMs: number;
}

export interface WalkFigures {
  readonly list: string;
  readonly pages: number;
  readonly rows: number;
  readonly firstMs: number;
  readonly middleMs: number;
  readonly lastMs: number;
  /** Time of each of at most 200 pages, evenly spread over the list, in its order. */
  readonly spread: readonly number[];
}

export interface LoadFigures {
  readonly itemCount: number;
  readonly eventCount: number;
  readonly startSeconds: number;
  readonly kinds: readonly KindFigures[];
  readonly refused: number;
  readonly hubCpuMsPerRequest: number;
  readonly databaseCpuMsPerRequest: number;
  readonly walks: readonly WalkFigures[];
  /** Bytes alive after each tenth of the calls. */
  readonly heapMib: readonly number[];
  readonly residentMib: number;
}

const apiVersion = "api-version=2025-08-01";
const connectionsPerKind = 8;
const spreadMax = 200;
const timesEach = 15;
const say = (line: string): void => void process.stderr.write(`${line}\n`);

export async function measureLoad(wish: LoadWish): Promise<LoadFigures> {
  const stateDir = await mkdtemp(join(tmpdir(), "wb-load-"));
  await chmod(stateDir, 0o711);
  try {
    const vaultId = await fillHub({ stateDir, itemCount: wish.itemCount, eventCount: wish.eventCount });
    const config = { ...wish.sections, managementPort: await findFreePort() };
    await using hub = await startHubProgram({ folder: stateDir, config, dataFolder: join(stateDir, "pg", "data"), isInspected: true });
    say(`started in ${hub.startSeconds.toFixed(2)} s`);
    const walks: WalkFigures[] = [];
    for (const list of ["replicationProtectedItems", "replicationJobs", "replicationEvents"]) {
      walks.push(await walk(hub, list, `${vaultId}/${list}?${apiVersion}`));
      say(`walked ${list}: ${walks.at(-1)?.pages} pages`);
    }
    const mix = await chooseCalls(hub, vaultId);
    const load = await loadHub(hub, mix, wish);
    const heapMib = await watchHeap(hub, mix, wish.leakRequests);
    const { hubResidentMib: residentMib } = await hub.usage();
    const { itemCount, eventCount } = wish;
    return { itemCount, eventCount, startSeconds: hub.startSeconds, ...load, walks, heapMib, residentMib };
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
}

type Call = Pick<autocannon.Request, "method" | "path" | "body">;

interface Mix {
  readonly kind: string;
  /** Of all calls. */
  readonly share: number;
  readonly calls: readonly Call[];
}

/** What programs of an operator ask for: mostly one thing, then lists, then a search; each seventh call writes. */
async function chooseCalls(hub: HubProgram, vaultId: string): Promise<readonly Mix[]> {
  const first = await hub.page(`${vaultId}/replicationProtectedItems?${apiVersion}`);
  const second = first.nextLink === undefined ? first : await hub.page(first.nextLink);
  const items = [...first.value, ...second.value].map(({ id }) => id);
  const jobs = (await hub.page(`${vaultId}/replicationJobs?${apiVersion}`)).value.map(({ id }) => id);
  assert.ok(items.length > 20 && jobs.length > 20, "the hub lists what was filled in");
  const get = (path: string): Call => ({ method: "GET", path: `${path}${path.includes("?") ? "&" : "?"}${apiVersion}` });
  const filtered = (list: string, filter: string): Call => get(`${vaultId}/${list}?$filter=${encodeURIComponent(filter)}`);
  const write = (method: "PUT" | "PATCH", path: string, body: object): Call => ({ ...get(path), method, body: JSON.stringify(body) });
  return [
    {
      ...{ kind: "read", share: 0.55 },
      calls: items.flatMap((item, index) => [get(item), get(`${item}/recoveryPoints`), get(jobs[index % jobs.length] ?? "")]),
    },
    {
      ...{ kind: "list", share: 0.2 },
      calls: [get(`${vaultId}/replicationProtectedItems`), get(`${vaultId}/replicationJobs`), get(`${vaultId}/replicationEvents`)],
    },
    {
      ...{ kind: "filter", share: 0.1 },
      calls: [
        filtered("replicationEvents", "severity eq 'Critical'"),
        filtered("replicationEvents", "affectedObjectFriendlyName eq 'nobody'"),
        filtered("replicationJobs", "jobStatus eq 'Failed'"),
        filtered("replicationJobs", "jobStatus eq 'Suspended'"),
      ],
    },
    {
      ...{ kind: "write", share: 0.15 },
      calls: items.flatMap((item, index) => [
        write("PATCH", item, { properties: { recoveryAzureVMName: `moved-${index}` } }),
        write("PUT", `${vaultId}/replicationPolicies/policy-${index % 50}`, {
          properties: { providerSpecificInput: { instanceType: "InMageAzureV2", recoveryPointHistory: 60 + index } },
        }),
      ]),
    },
  ];
}

function toOptions({ url, token, operator }: HubProgram, calls: readonly Call[]): autocannon.Options {
  return {
    url,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    requests: [...calls],
    tlsOptions: { ca: operator.caPem, servername: "localhost" },
  };
}

/** Calls at a steady rate; times count from when a call was due, not from when it could be sent. */
async function loadHub(
  hub: HubProgram,
  mix: readonly Mix[],
  { perSecond, seconds }: LoadWish,
): Promise<Pick<LoadFigures, "kinds" | "refused" | "hubCpuMsPerRequest" | "databaseCpuMsPerRequest">> {
  const run = async (duration: number): Promise<readonly autocannon.Result[]> =>
    await Promise.all(
      mix.map(async ({ share, calls }) => {
        const pace = { connections: connectionsPerKind, overallRate: Math.max(1, Math.round(share * perSecond)), duration };
        return await autocannon({ ...toOptions(hub, calls), ...pace });
      }),
    );
  say(`warming up, then ${perSecond} calls a second for ${seconds} s`);
  await run(Math.min(5, seconds));
  const before = await hub.usage();
  const results = await run(seconds);
  const after = await hub.usage();
  const count = results.reduce((sum, result) => sum + result.requests.total, 0);
  return {
    kinds: results.map(({ latency, requests }, index) => ({
      ...{ kind: mix[index]?.kind ?? "", perSecond: requests.average },
      ...{ p50Ms: latency.p50, p90Ms: latency.p90, p99Ms: latency.p99, longestMs: latency.max },
    })),
    refused: results.reduce((sum, { errors, non2xx, timeouts }) => sum + errors + non2xx + timeouts, 0),
    hubCpuMsPerRequest: (1000 * (after.hubCpuSeconds - before.hubCpuSeconds)) / count,
    databaseCpuMsPerRequest: (1000 * (after.databaseCpuSeconds - before.databaseCpuSeconds)) / count,
  };
}

/** As fast as they are answered, within what a principal may ask. */
async function watchHeap(hub: HubProgram, mix: readonly Mix[], requestCount: number): Promise<readonly number[]> {
  const tenths = 10;
  const calls = mix.flatMap(({ share, calls: those }) =>
    Array.from({ length: Math.round(share * 100) }, (_, index) => those[index % those.length] ?? { path: "/" }),
  );
  const heapMib: number[] = [];
  say(`${requestCount} calls, looking for a leak`);
  for (let tenth = 0; tenth < tenths; tenth++) {
    const amount = Math.ceil(requestCount / tenths);
    const { errors, non2xx } = await autocannon({ ...toOptions(hub, calls), connections: 16, overallRate: 900, amount });
    assert.deepEqual([errors, non2xx], [0, 0]);
    heapMib.push((await hub.heapBytes()) / 2 ** 20);
  }
  return heapMib;
}

/** Every page of a list to its end; first, middle and last are medians of as many calls, made in turn. */
async function walk(hub: HubProgram, list: string, first: string): Promise<WalkFigures> {
  const links = [first];
  const times: number[] = [];
  let rows = 0;
  for (let link: string | undefined = first; link !== undefined;) {
    const startedMs = performance.now();
    const page: Awaited<ReturnType<HubProgram["page"]>> = await hub.page(link);
    times.push(performance.now() - startedMs);
    rows += page.value.length;
    link = page.nextLink;
    if (link !== undefined) links.push(link);
  }
  const chosen = [first, links[Math.floor(links.length / 2)] ?? first, links.at(-1) ?? first];
  const again: number[][] = chosen.map(() => []);
  // In turn, so that what else the machine does meets all three alike.
  for (let time = 0; time < timesEach; time++)
    for (const [index, path] of chosen.entries()) {
      const startedMs = performance.now();
      await hub.page(path);
      again[index]?.push(performance.now() - startedMs);
    }
  const [firstMs = 0, middleMs = 0, lastMs = 0] = again.map((each) => quantile(each, 0.5));
  const every = Math.ceil(times.length / spreadMax);
  return {
    ...{ list, pages: links.length, rows, spread: times.filter((_, index) => index % every === 0) },
    ...{ firstMs, middleMs, lastMs },
  };
}
