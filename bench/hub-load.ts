// One hub on its embedded database after years: 10,000 items and 1,000,000 events, called 200 times a second by an operator's programs.

import assert from "node:assert/strict";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import autocannon from "autocannon";
import { Pool } from "undici";
import { systemClock } from "../src/base/clock.ts";
import { systemRandom } from "../src/base/random.ts";
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
/** More than are ever under way at once, unless the hub falls behind. */
const connectionsMax = 64;
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

/**
 * Calls that come by themselves, as those of many programs do: independent of each other (a Poisson process) and of how fast the hub answers.
 * Times count from when a call was due. autocannon offers a rate in bursts, one a second, over connections that all ask for the same thing.
 */
async function loadHub(
  hub: HubProgram,
  mix: readonly Mix[],
  { perSecond, seconds }: LoadWish,
): Promise<Pick<LoadFigures, "kinds" | "refused" | "hubCpuMsPerRequest" | "databaseCpuMsPerRequest">> {
  say(`warming up, then ${perSecond} calls a second for ${seconds} s`);
  const pool = new Pool(hub.url, { connections: connectionsMax, connect: { ca: hub.operator.caPem, servername: "localhost" } });
  const offered = mix.map((each) => ({ ...each, next: 0, times: [] as number[], refused: 0 }));
  await offerCalls({ pool, hub, offered, perSecond, seconds: Math.min(5, seconds) });
  for (const each of offered) Object.assign(each, { times: [], refused: 0 });
  const before = await hub.usage();
  await offerCalls({ pool, hub, offered, perSecond, seconds });
  await pool.close();
  const after = await hub.usage();
  const count = offered.reduce((sum, { times }) => sum + times.length, 0);
  return {
    kinds: offered.map(({ kind, times }) => {
      const at = (share: number): number => quantile(times, share);
      return { kind, perSecond: times.length / seconds, p50Ms: at(0.5), p90Ms: at(0.9), p99Ms: at(0.99), longestMs: at(1) };
    }),
    refused: offered.reduce((sum, { refused }) => sum + refused, 0),
    hubCpuMsPerRequest: (1000 * (after.hubCpuSeconds - before.hubCpuSeconds)) / count,
    databaseCpuMsPerRequest: (1000 * (after.databaseCpuSeconds - before.databaseCpuSeconds)) / count,
  };
}

interface Offered extends Mix {
  next: number;
  times: number[];
  refused: number;
}

async function offerCalls(wish: {
  readonly pool: Pool;
  readonly hub: HubProgram;
  readonly offered: readonly Offered[];
  readonly perSecond: number;
  readonly seconds: number;
}): Promise<void> {
  const { pool, hub, offered, perSecond, seconds } = wish;
  const headers = { authorization: `Bearer ${hub.token}`, "content-type": "application/json" };
  const draw = (): number => Buffer.from(systemRandom.bytes(4)).readUInt32BE() / 2 ** 32;
  const underWay = new Set<Promise<void>>();
  const startMs = systemClock.monotonicMs();
  for (let dueMs = 0; dueMs < seconds * 1000; dueMs += (-Math.log(1 - draw()) * 1000) / perSecond) {
    const waitMs = startMs + dueMs - systemClock.monotonicMs();
    if (waitMs > 1) await systemClock.sleep(waitMs);
    const kind = chooseKind(offered, draw());
    const call = kind.calls[kind.next++ % kind.calls.length];
    if (call === undefined) continue;
    const task = (async () => {
      const { method = "GET", path = "/", body } = call;
      const answer = await pool.request({ method, path, headers, ...(body === undefined ? {} : { body }) });
      await answer.body.dump();
      kind.times.push(systemClock.monotonicMs() - startMs - dueMs);
      if (answer.statusCode >= 300) kind.refused += 1;
    })().catch(() => void (kind.refused += 1));
    underWay.add(task);
    void task.finally(() => underWay.delete(task));
  }
  await Promise.all(underWay);
}

function chooseKind(offered: readonly Offered[], drawn: number): Offered {
  let left = drawn;
  for (const each of offered) {
    left -= each.share;
    if (left < 0) return each;
  }
  const [first] = offered;
  assert.ok(first !== undefined);
  return first;
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
