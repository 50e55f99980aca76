// One hub on its embedded database after years: 10,000 items and 1,000,000 events, called 200 times a second by an operator's programs.

import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import autocannon from "autocannon";
import { Pool } from "undici";
import { z } from "zod";
import { systemClock } from "../src/base/clock.ts";
import { systemRandom } from "../src/base/random.ts";
import { findFreePort } from "../src/hub/test-client.ts";
import type { LoopDelays } from "./hub-inspector.ts";
import { startHubProgram, type HubProgram } from "./hub-program.ts";
import { fillHub, freshenHub } from "./hub-state.ts";
import { countStatements, openBesideHub, prepareCounting, type StatementFigures } from "./hub-statements.ts";
import { quantile } from "./measured.ts";

export interface LoadWish {
  readonly itemCount: number;
  readonly eventCount: number;
  readonly perSecond: number;
  readonly seconds: number;
  /** Of the look for a leak. */
  readonly leakRequests: number;
  /** Keeps the filled state here and takes it from here the next time; absent: made anew and removed. */
  readonly keptFolder?: string | undefined;
  /** The hub's profile during the load is written here. */
  readonly profileFile?: string | undefined;
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
  /** Asked of the database for one call, with its begins and commits. */
  readonly statementsPerCall: number;
  /** Processor time of one call when nothing else is asked. */
  readonly hubCpuMs: number;
  readonly databaseCpuMs: number;
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
  /** How late the hub's event loop came to what waited. */
  readonly loop: LoopDelays;
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
  await using state = await openState(wish);
  const { stateDir, vaultId } = state;
  const dataFolder = join(stateDir, "pg", "data");
  await prepareCounting(dataFolder);
  const config = { ...wish.sections, managementPort: await findFreePort() };
  await using hub = await startHubProgram({ folder: stateDir, config, dataFolder, isInspected: true });
  say(`started in ${hub.startSeconds.toFixed(2)} s`);
  const walks: WalkFigures[] = [];
  if (wish.leakRequests > 0)
    for (const list of ["replicationProtectedItems", "replicationJobs", "replicationEvents"]) {
      walks.push(await walk(hub, list, `${vaultId}/${list}?${apiVersion}`));
      say(`walked ${list}: ${walks.at(-1)?.pages} pages`);
    }
  const mix = await chooseCalls(hub, vaultId);
  const counted = await countEach(hub, mix, dataFolder);
  const load = await loadHub(hub, mix, { ...wish, counted });
  const heapMib = wish.leakRequests > 0 ? await watchHeap(hub, mix, wish.leakRequests) : [];
  const { hubResidentMib: residentMib } = await hub.usage();
  const { itemCount, eventCount } = wish;
  return { itemCount, eventCount, startSeconds: hub.startSeconds, ...load, walks, heapMib, residentMib };
}

const keptShape = z.object({ itemCount: z.number(), eventCount: z.number(), vaultId: z.string() });

/** A stopped hub's state, full. */
async function openState({
  itemCount,
  eventCount,
  keptFolder,
}: LoadWish): Promise<AsyncDisposable & { readonly stateDir: string; readonly vaultId: string }> {
  const stateDir = keptFolder ?? (await mkdtemp(join(tmpdir(), "wb-load-")));
  const remove = async (): Promise<void> => {
    if (keptFolder === undefined) await rm(stateDir, { recursive: true, force: true });
  };
  const markFile = join(stateDir, "bench.json");
  try {
    await mkdir(stateDir, { recursive: true });
    await chmod(stateDir, 0o711);
    const mark = await readFile(markFile, "utf8").catch(() => undefined); // Absent: the folder is new.
    if (mark !== undefined) {
      const kept = keptShape.parse(JSON.parse(mark));
      assert.deepEqual([kept.itemCount, kept.eventCount], [itemCount, eventCount], `${stateDir} holds a state of another size`);
      await freshenHub(stateDir);
      return { stateDir, vaultId: kept.vaultId, [Symbol.asyncDispose]: remove };
    }
    const vaultId = await fillHub({ stateDir, itemCount, eventCount });
    await writeFile(markFile, JSON.stringify({ itemCount, eventCount, vaultId }));
    return { stateDir, vaultId, [Symbol.asyncDispose]: remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** Enough for clocks that count hundredths of a second. */
const countedCalls = 400;

/** One after the other, so that the figures are of the calls alone. */
async function countEach(hub: HubProgram, mix: readonly Mix[], dataFolder: string): Promise<ReadonlyMap<string, CallFigures>> {
  await using beside = await openBesideHub(dataFolder);
  await using pool = openPool(hub, 1);
  const figures = new Map<string, CallFigures>();
  for (const { kind, calls } of mix) {
    const ask = async (): Promise<void> => {
      for (let index = 0; index < countedCalls; index++) await callOnce(pool, hub, calls[index % calls.length]);
    };
    const counted = await countStatements(beside.db, countedCalls, ask);
    // Not while statements are counted; plans are made now, and what is kept in memory is there.
    const cost = await costOf(hub, ask);
    figures.set(kind, { ...counted, ...cost });
    const { hubCpuMs, databaseCpuMs } = cost;
    say(
      `${kind}: ${counted.statementsPerCall.toFixed(1)} statements a call, ${hubCpuMs.toFixed(2)} + ${databaseCpuMs.toFixed(2)} ms of processor`,
    );
    for (const { text, timesPerCall, plannedPerCall, msPerCall } of counted.dearest)
      say(`  ${msPerCall.toFixed(3)} ms, ${timesPerCall.toFixed(2)} times, planned ${plannedPerCall.toFixed(2)} times: ${text}`);
  }
  return figures;
}

type CallFigures = StatementFigures & { readonly hubCpuMs: number; readonly databaseCpuMs: number };

/** Of one call, hub and database. */
async function costOf(hub: HubProgram, ask: () => Promise<void>): Promise<{ readonly hubCpuMs: number; readonly databaseCpuMs: number }> {
  const before = await hub.usage();
  await ask();
  const after = await hub.usage();
  const of = (name: "hubCpuSeconds" | "databaseCpuSeconds"): number => (1000 * (after[name] - before[name])) / countedCalls;
  return { hubCpuMs: of("hubCpuSeconds"), databaseCpuMs: of("databaseCpuSeconds") };
}

function openPool({ url, operator }: HubProgram, connections: number): Pool & AsyncDisposable {
  const pool = new Pool(url, { connections, connect: { ca: operator.caPem, servername: "localhost" } });
  return Object.assign(pool, { [Symbol.asyncDispose]: async () => await pool.close() });
}

/** The answer's status, once it has come whole. */
async function callOnce(pool: Pool, { token }: HubProgram, call: Call | undefined): Promise<number> {
  assert.ok(call !== undefined);
  const { method = "GET", path = "/", body } = call;
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await pool.request({ method, path, headers, ...(body === undefined ? {} : { body }) });
  await answer.body.dump();
  return answer.statusCode;
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
  { perSecond, seconds, profileFile, counted }: LoadWish & { readonly counted: ReadonlyMap<string, CallFigures> },
): Promise<Pick<LoadFigures, "kinds" | "refused" | "loop" | "hubCpuMsPerRequest" | "databaseCpuMsPerRequest">> {
  say(`warming up, then ${perSecond} calls a second for ${seconds} s`);
  await using pool = openPool(hub, connectionsMax);
  const offered = mix.map((each) => ({ ...each, next: 0, times: [] as number[], refused: 0 }));
  await offerCalls({ pool, hub, offered, perSecond, seconds: Math.min(5, seconds) });
  for (const each of offered) Object.assign(each, { times: [], refused: 0 });
  const before = await hub.usage();
  const offer = async (): Promise<void> => await offerCalls({ pool, hub, offered, perSecond, seconds });
  const loop = await hub.delays(async () => {
    if (profileFile === undefined) await offer();
    else await writeFile(profileFile, await hub.profile(offer));
  });
  const after = await hub.usage();
  const count = offered.reduce((sum, { times }) => sum + times.length, 0);
  return {
    kinds: offered.map(({ kind, times }) => {
      const at = (share: number): number => quantile(times, share);
      const { statementsPerCall = Number.NaN, hubCpuMs = Number.NaN, databaseCpuMs = Number.NaN } = counted.get(kind) ?? {};
      const spread = { p50Ms: at(0.5), p90Ms: at(0.9), p99Ms: at(0.99), longestMs: at(1) };
      return { kind, perSecond: times.length / seconds, ...spread, statementsPerCall, hubCpuMs, databaseCpuMs };
    }),
    refused: offered.reduce((sum, { refused }) => sum + refused, 0),
    loop,
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
  const draw = (): number => Buffer.from(systemRandom.bytes(4)).readUInt32BE() / 2 ** 32;
  const underWay = new Set<Promise<void>>();
  const startMs = systemClock.monotonicMs();
  for (let dueMs = 0; dueMs < seconds * 1000; dueMs += (-Math.log(1 - draw()) * 1000) / perSecond) {
    const waitMs = startMs + dueMs - systemClock.monotonicMs();
    if (waitMs > 1) await systemClock.sleep(waitMs);
    const kind = chooseKind(offered, draw());
    const call = kind.calls[kind.next++ % kind.calls.length];
    const task = (async () => {
      const status = await callOnce(pool, hub, call);
      kind.times.push(systemClock.monotonicMs() - startMs - dueMs);
      if (status >= 300) kind.refused += 1;
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
