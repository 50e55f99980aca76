// For tests and proofs: one job in a hub that is killed or paused at one moment, ended by another hub; what holds afterwards.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { sql } from "kysely";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { parsePointId } from "../../contract/ids.ts";
import { computeRoot } from "../../disk/compute-root.ts";
import { Collector } from "../collector/collector.ts";
import type { Database } from "../db/database.ts";
import { readJob, readSteps } from "../jobs/job-store.ts";
import type { TestCluster } from "../test-hub.ts";
import { openSimHub, simVault, type SimHub } from "./sim/sim-hub.ts";
import { untilReached } from "./sim/services-voice.ts";
import type { ChildOptions } from "./sim/sim-hub-child.ts";
import { simImages } from "./sim/sim-images.ts";
import { uploadSimDisk } from "./sim/sim-managed-disk.ts";
import { readItem } from "./item.ts";
import { openSimSite, type SimSite } from "./sim/sim-site.ts";

export interface TrialSite {
  readonly site: SimSite;
  /** Path of the protected item of the one machine, "web". */
  readonly item: string;
  readonly infrastructureId: string;
  /** Makes a call that begins a job; answers the job's id. */
  begin(method: string, path: string, body?: object): Promise<string>;
  /** A call that is answered at once. */
  call(method: string, path: string, body: object): Promise<void>;
  /** As begin, and waits until the job has succeeded. */
  run(method: string, path: string, body?: object): Promise<void>;
  /** Makes a managed disk with this name that boots in the simulated target. */
  uploadDisk(name: string): Promise<void>;
  /** Ids of the machine's recovery points, newest first. */
  points(): Promise<readonly string[]>;
  /** Of the point that goes back to the source. */
  returnRoots(): Promise<readonly { readonly diskId: string; readonly root: string }[]>;
}

export interface KillCase {
  /** Of the job that is struck. */
  readonly kind: string;
  /** Tells apart the cases of one kind. */
  readonly name: string;
  /** Brings the site to where the job can begin. */
  readonly prepare: (trial: TrialSite) => Promise<void>;
  /** What goes wrong at the site from then on. */
  readonly harm?: (site: SimSite) => void;
  readonly begin: (trial: TrialSite) => Promise<string>;
  readonly ends: "succeeded" | "failed";
}

/**
 * machine: the landed machine loses its power while the hub stands still at that moment. appliance, agent: that process ends at the n-th edge
 * of an order, before or after it is carried out; an appliance starts again.
 * kill: SIGKILL. pause: SIGSTOP, and SIGCONT once the other hub has ended the job. The others leave the hub alive, and no other comes: cut: the
 * server ends its sessions. server: the database's server is killed and starts again. full: its volume has no room for a while. ahead, back: the
 * hub's clock jumps by a day.
 */
export interface Strike {
  readonly how: "none" | "kill" | "pause" | "cut" | "server" | "full" | "ahead" | "back" | "machine" | "appliance" | "agent";
  /** From 1. */
  readonly at: number;
  /** Of the database, for "full". Something else starts its server again, should that end. */
  readonly volume?: Volume;
}

export interface Volume {
  /** Until nothing more can be written. */
  fill(): Promise<void>;
  free(): Promise<void>;
}

/** What must be the same whatever was struck. */
export interface TrialEnd {
  readonly jobState: string;
  readonly item: unknown;
  readonly sourceIsOn: boolean;
  readonly isFrozen: boolean;
  readonly ranBoth: boolean;
  readonly landed: readonly string[];
  readonly exports: readonly string[];
  /** Orders that the appliance carried out, each once. */
  readonly orders: readonly string[];
  readonly orphans: readonly string[];
}

export interface TrialOutcome {
  readonly end: TrialEnd;
  /** Moments that the first hub came to, in order. */
  readonly moments: readonly string[];
  /** Edges of orders that the appliance came to: "before fence". */
  readonly edges: readonly string[];
  /** The guest wrote whenever it could, and all of it is where the machine runs now. */
  readonly isWhole: boolean;
  readonly wasStruck: boolean;
  /** From the strike to the other hub's claim. */
  readonly takeoverMs: number | undefined;
  /** Times that a hub took the job. */
  readonly takeCount: number;
}

const childProgram = join(import.meta.dirname, "sim", "sim-hub-child.ts");
const jobs = { leaseMs: 700, pollMs: 20 };
const failLeaseMs = 60_000;

export async function runKillTrial(cluster: TestCluster, kase: KillCase, strike: Strike): Promise<TrialOutcome> {
  await using database = await cluster.openFreshDatabase();
  const folder = await mkdtemp(join(tmpdir(), "wk-"));
  await using closing = new AsyncDisposableStack();
  closing.defer(async () => await rm(folder, { recursive: true, force: true }));
  const options = { database, folder, limits: { probeSeconds: 1 }, images: simImages(join(folder, "out")) };
  const first = await openSimHub({ ...options, jobs });
  const site = closing.use(await openSimSite(first, folder, ["web"]));
  await kase.prepare(toTrial(first, site, database));
  await first[Symbol.asyncDispose]();
  kase.harm?.(site);
  const ordersBefore = site.appliance.done.length;
  const edges = watchEdges(site, strike);
  const writing = startWriting(site);
  closing.defer(async () => await writing.end());

  const child = startChild(
    { address: database.address, folder, strikeAt: isAtSite(strike.how) ? 0 : strike.at, strike: toChildStrike(strike.how) },
    join(cluster.stateDir, "compiled"),
  );
  closing.defer(async () => await child.end());
  await child.isReady;
  // Takes the call and no job: the first hub to take it is the one that is struck.
  const submitter = await openSimHub({ ...options, jobs: { ...jobs, jobsMax: 0 } });
  const jobId = await kase.begin(toTrial(submitter, site, database));
  const ended = untilEnded(database, jobId);
  const isAtHub = strike.how !== "none" && !isAtSite(strike.how);
  await Promise.race([ended, child.untilMoment(isAtHub ? strike.at : Number.POSITIVE_INFINITY), child.exit]);
  const struckMs = systemClock.monotonicMs();
  const wasStruck = strike.how !== "none" && (isAtHub ? child.moments : edges).length >= strike.at;
  if (wasStruck && toChildStrike(strike.how) === "SIGSTOP") await untilStopped(child.pid);
  if (wasStruck && (strike.how === "cut" || strike.how === "server")) {
    await (strike.how === "cut" ? cutSessions(database, child.pid) : killServer(cluster));
    await child.resume();
  }
  if (wasStruck && strike.how === "machine") {
    await cutPower(folder);
    await child.resume();
  }
  if (wasStruck && strike.volume !== undefined) {
    await strike.volume.fill();
    await child.resume();
    await systemClock.sleep(fullMs);
    await strike.volume.free();
  }
  // A hub that lives on ends its job itself.
  if (strike.how !== "kill" && strike.how !== "pause") await Promise.race([ended, child.exit]);
  await submitter[Symbol.asyncDispose]();
  const second = closing.use(await openSimHub({ ...options, jobs }));
  const isTakenOver = wasStruck && (strike.how === "kill" || strike.how === "pause");
  const takeoverMs = isTakenOver ? await untilTaken(database, jobId, struckMs) : undefined;
  const jobState = await ended;
  if (strike.how === "pause") await child.resume();
  await child.end();
  const found = await untilReached(
    async () => await sql<{ count: number }>`select take_count as count from jobs where job_id = ${jobId}`.execute(database.db),
  );
  if (child.moments.length === 0) throw new Error(`${kase.kind}, ${kase.name}: the hub that was to be struck ran nothing`);
  const end = await readEnd({ database, second, site, folder, jobState, orders: site.appliance.done.slice(ordersBefore) });
  await writing.end();
  const isWhole = await hasAllWrites(database, second, site);
  return { end, moments: child.moments, edges, isWhole, wasStruck, takeoverMs, takeCount: found.rows[0]?.count ?? 0 };
}

function isAtSite(how: Strike["how"]): boolean {
  return how === "appliance" || how === "agent";
}

/** Collects the edges that the appliance comes to, and ends a process at the one that is meant. */
function watchEdges(site: SimSite, { how, at }: Strike): readonly string[] {
  const edges: string[] = [];
  const onEdge = (edge: string): "appliance" | "agent" | undefined => {
    edges.push(edge);
    if (edges.length !== at || (how !== "appliance" && how !== "agent")) return undefined;
    if (how === "appliance") void site.restartAppliance().then(() => (site.appliance.onEdge = onEdge));
    return how;
  };
  site.appliance.onEdge = onEdge;
  return edges;
}

const writeEveryMs = 5;

/** The first source's guest writes all the time, as far as it runs and is not frozen. */
function startWriting({ sources: [source] }: SimSite): { end(): Promise<void> } {
  const ending = new AbortController();
  const running = (async () => {
    for (let tick = 0; !ending.signal.aborted; tick++) {
      source?.write(systemClock.nowMs(), tick);
      await systemClock.sleep(writeEveryMs, ending.signal).catch(() => undefined); // Only its end aborts it; the loop's head sees it.
    }
  })();
  return {
    end: async () => {
      ending.abort();
      await running;
    },
  };
}

/** A source that runs has all that it wrote. Of one that is off, each disk must be in the point that its machine landed from. */
async function hasAllWrites(database: Database, second: SimHub, { sources: [source] }: SimSite): Promise<boolean> {
  if (source === undefined || source.isOn) return true;
  const found = await sql<{ pointId: string }>`select properties->>'pointId' as "pointId" from resources
    where type = 'microsoft.compute/virtualmachines' and properties->>'purpose' = 'migrated'`.execute(database.db);
  const { pointId } = found.rows[0] ?? {};
  const point = pointId === undefined ? undefined : await (await second.openReader()).point(parsePointId(pointId));
  if (point === undefined) return false;
  const roots = await Promise.all(source.replicatedDisks.map(async ({ name, content }) => [name, await computeRoot(content)] as const));
  return roots.every(([name, root]) => point.disks.find(({ diskId }) => diskId === name)?.root === root);
}

const targetFileShape = z.object({
  machines: z.array(z.tuple([z.string(), z.looseObject({ power: z.string() })])),
  fences: z.array(z.tuple([z.string(), z.number()])),
});

/** Of every landed machine, while the hub that writes the file stands still. */
async function cutPower(folder: string): Promise<void> {
  const path = join(folder, "target.json");
  const text = await readFile(path, "utf8").catch(() => undefined); // No machine has landed yet.
  if (text === undefined) return;
  const world = targetFileShape.parse(JSON.parse(text));
  for (const [, machine] of world.machines) machine.power = "stopped";
  await writeFileAtomic(path, JSON.stringify(world));
}

function toChildStrike(how: Strike["how"]): ChildOptions["strike"] {
  const dayMs = 24 * 3600_000;
  switch (how) {
    case "pause":
    case "cut":
    case "server":
    case "full":
    case "machine":
      return "SIGSTOP";
    case "ahead":
      return { clockMs: dayMs };
    case "back":
      return { clockMs: -dayMs };
    case "none":
    case "kill":
    case "appliance":
    case "agent":
      return "SIGKILL";
  }
}

/** It tells the moment and stops then: who goes on between the two would wake it too early. */
async function untilStopped(pid: number): Promise<void> {
  for (;;) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    if (/^[Tt] /.test(stat.slice(stat.lastIndexOf(")") + 2))) return;
    await systemClock.sleep(5);
  }
}

/** As a network or a fail-over of the server does it. */
async function cutSessions({ db }: Database, pid: number): Promise<void> {
  const cut = await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${`watari hub ${pid}`}`.execute(db);
  assert.ok(cut.rows.length > 0, "the hub had sessions");
}

/** Every process of the server dies with its first one. */
async function killServer({ stateDir, cluster }: TestCluster): Promise<void> {
  process.kill(Number((await readFile(join(stateDir, "pg", "data", "postmaster.pid"), "utf8")).split("\n", 1)[0]), "SIGKILL");
  for (let attempt = 1; ; attempt++) {
    try {
      return await cluster.start();
    } catch (error) {
      // Its orphans hold its memory until they notice.
      if (attempt === serverStartsMax) throw error;
      await systemClock.sleep(200);
    }
  }
}

const serverStartsMax = 20;
/** Several times as long as a lease of these trials. */
const fullMs = 3000;

export interface FailOutcome {
  readonly end: TrialEnd;
  /** The step that was made to fail; undefined when the job has fewer steps. */
  readonly failedStep: string | undefined;
  /** Steps whose undo did not succeed. */
  readonly undoFaults: readonly string[];
}

/** The n-th step of the case's job does all its work and fails then. */
export async function runFailTrial(cluster: TestCluster, kase: KillCase, stepAt: number): Promise<FailOutcome> {
  await using database = await cluster.openFreshDatabase();
  const folder = await mkdtemp(join(tmpdir(), "wk-"));
  await using closing = new AsyncDisposableStack();
  closing.defer(async () => await rm(folder, { recursive: true, force: true }));
  const options = { database, folder, limits: { probeSeconds: 1 }, images: simImages(join(folder, "out")) };
  const first = await openSimHub({ ...options, jobs });
  const site = closing.use(await openSimSite(first, folder, ["web"]));
  await kase.prepare(toTrial(first, site, database));
  await first[Symbol.asyncDispose]();
  let ranCount = 0;
  let failedStep: string | undefined;
  const onMoment = (moment: string): void => {
    const step = /^(\w+) ran$/.exec(moment)?.[1];
    if (step === undefined || ++ranCount !== stepAt) return;
    failedStep = step;
    throw new Fault("Internal", `step ${step} failed as told`);
  };
  // Nobody takes over here, and a hub that lost its lease on a busy machine would run the step again, without the fault.
  const hub = closing.use(await openSimHub({ ...options, jobs: { ...jobs, leaseMs: failLeaseMs, onMoment } }));
  const jobId = await kase.begin(toTrial(hub, site, database));
  const jobState = await untilEnded(database, jobId);
  const steps = await readSteps(database.db, jobId);
  const undoFaults = steps.filter((step) => step.undoState === "failed").map((step) => step.name);
  return { end: await readEnd({ database, second: hub, site, folder, jobState, orders: [] }), failedStep, undoFaults };
}

/**
 * The target was given up and the source is not on yet: the cancel is allowed again, and goes on from there. A removed machine is gone,
 * as it was ordered.
 */
const givenUpAfter: ReadonlySet<string> = new Set(["CancelFailover remove", "RecoveryPlanCancelFailover remove", "MachineRemoval remove"]);

/** What of a failed job's promises does not hold: all is undone, nothing is frozen or left over, and exactly one side has the machine. */
export function wrongAfterFailure(kase: KillCase, { end, failedStep, undoFaults }: FailOutcome): readonly string[] {
  const isGivenUp = givenUpAfter.has(`${kase.kind} ${failedStep}`);
  return [
    ...(end.jobState === "failed" ? [] : [`the job is ${end.jobState}`]),
    ...(end.ranBoth ? ["both sides ran at once"] : []),
    ...(end.isFrozen ? ["the source is frozen"] : []),
    ...undoFaults.map((step) => `the undo of ${step} failed`),
    ...end.orphans.map((orphan) => `left over: ${orphan}`),
    ...((end.sourceIsOn !== end.landed.includes("web")) === !isGivenUp ? [] : ["not exactly one side has the machine"]),
  ];
}

async function readEnd(from: {
  readonly database: Database;
  readonly second: SimHub;
  readonly site: SimSite;
  readonly folder: string;
  readonly jobState: string;
  readonly orders: readonly string[];
}): Promise<TrialEnd> {
  const { database, second, site, folder, jobState, orders } = from;
  const [source] = site.sources;
  const states = await sql<{ state: unknown }>`
    select jsonb_build_array(properties->>'protectionState', properties->>'testFailoverState') as state
    from resources where type like '%/replicationprotecteditems'`.execute(database.db);
  const out = join(folder, "out");
  const hasExports = await access(out).then(
    () => true,
    () => false,
  );
  const collector = new Collector({ database, log: silentLog, target: second.target, images: simImages(out) });
  return {
    jobState,
    item: states.rows.map((row) => row.state),
    sourceIsOn: source?.isOn === true,
    isFrozen: source?.frozenUntilMs !== undefined,
    ranBoth: second.journal.read("web").ranBoth,
    landed: await second.target.list(),
    exports: hasExports ? (await readdir(out, { recursive: true })).map((name) => name.replace(/\d{8}T\d{6}Z?/, "instant")).sort() : [],
    orders: orders.toSorted(),
    orphans: [...(await collector.find()).map((orphan) => `${orphan.kind} ${orphan.id}`), ...(await keysOfCalls(database))],
  };
}

/** Keys of encrypted disks that were given with a call go with its job. */
async function keysOfCalls({ db }: Database): Promise<readonly string[]> {
  const found = await sql<{ owner: string }>`select owner_key as owner from secrets
    where name = 'unlockKeys' and owner_key like '%/unlockingjobs/%'`.execute(db);
  return found.rows.map(({ owner }) => `keys of ${owner}`);
}

function toTrial(hub: SimHub, site: SimSite, database: Database): TrialSite {
  const infrastructureId = site.sources[0]?.discovered.infrastructureId ?? "";
  const begin = async (method: string, path: string, body: object = {}): Promise<string> => {
    const answer = await hub.call(method, path, body);
    return /operationStatuses\/([0-9a-f-]+)/.exec(answer.headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation");
  };
  const call = async (method: string, path: string, body: object): Promise<void> => void (await hub.call(method, path, body));
  const run = async (method: string, path: string, body?: object): Promise<void> =>
    assert.equal(await untilEnded(database, await begin(method, path, body)), "succeeded", path);
  const item = `${site.container}/replicationProtectedItems/${infrastructureId}`;
  const points = async (): Promise<readonly string[]> => {
    const { body } = await hub.call("GET", `${item}/recoveryPoints`);
    return z
      .object({ value: z.array(z.object({ name: z.string() })) })
      .parse(body)
      .value.map(({ name }) => name);
  };
  const uploadDisk = async (name: string): Promise<void> => await uploadSimDisk(hub, name);
  const returnRoots: TrialSite["returnRoots"] = async () => {
    const { reverse } = await readItem(database.db, item);
    const point = await (await hub.openReader()).point(reverse?.returnPointId ?? assert.fail("no point goes back"));
    return (point?.disks ?? []).map(({ diskId, root }) => ({ diskId, root }));
  };
  return { site, infrastructureId, item, call, begin, run, points, returnRoots, uploadDisk };
}

/** Body of the call that protects the machine. */
export function enableBody({ site, infrastructureId }: TrialSite): object {
  return {
    properties: {
      protectableItemId: `${site.container}/replicationProtectableItems/${infrastructureId}`,
      policyId: `${simVault}/replicationPolicies/default`,
      providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "root" },
    },
  };
}

async function untilEnded(database: Database, jobId: string): Promise<string> {
  for (;;) {
    const job = await untilReached(async () => await readJob(database.db, jobId));
    if (job?.endedAt !== undefined) return job.state;
    await systemClock.sleep(20);
  }
}

/** Undefined when the first hub had ended the job at the strike. */
async function untilTaken(database: Database, jobId: string, struckMs: number): Promise<number | undefined> {
  for (;;) {
    const found = await sql<{ count: number; ended: boolean }>`select take_count as count, ended_at is not null as ended
      from jobs where job_id = ${jobId}`.execute(database.db);
    if ((found.rows[0]?.count ?? 0) > 1) return systemClock.monotonicMs() - struckMs;
    if (found.rows[0]?.ended === true) return undefined;
    await systemClock.sleep(10);
  }
}

interface Child {
  readonly pid: number;
  readonly isReady: Promise<void>;
  readonly exit: Promise<void>;
  readonly moments: readonly string[];
  untilMoment(count: number): Promise<void>;
  resume(): Promise<void>;
  end(): Promise<void>;
}

const awakeMs = 300;

/** Hundreds of hubs are started: `compiled` keeps what the first one made of their sources. */
function startChild(options: ChildOptions, compiled: string): Child {
  // env(1) becomes the hub: its process has the same number.
  const args = [`NODE_COMPILE_CACHE=${compiled}`, process.execPath, childProgram, JSON.stringify(options)];
  const child = spawn("env", args, { stdio: ["ignore", "pipe", "inherit"] });
  const exit = once(child, "exit").then(() => undefined);
  const ready = Promise.withResolvers<void>();
  const moments: string[] = [];
  let told = Promise.withResolvers<void>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line === "ready") ready.resolve();
    if (!line.startsWith("moment ")) return;
    moments.push(line.slice("moment ".length));
    told.resolve();
    told = Promise.withResolvers();
  });
  return {
    pid: child.pid ?? 0,
    isReady: Promise.race([ready.promise, exit]),
    exit,
    moments,
    untilMoment: async (count) => {
      while (moments.length < count) await told.promise;
    },
    resume: async () => {
      child.kill("SIGCONT");
      await systemClock.sleep(awakeMs); // It goes on with what it was about to do; nothing tells when it has been refused.
    },
    end: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGCONT");
      child.kill("SIGTERM");
      await exit;
    },
  };
}
