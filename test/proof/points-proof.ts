// Takes points of a real guest under load and proves of each that it shows one moment over all disks, with sound filesystems and a database that recovers.
// Run: npm run proof -- points [--quick] [--churn MB/s] [--cores N of the agent] [--processors N of the guest] [--json]

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomBytes, randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { z } from "zod";
import { parseStallMicroseconds } from "../../src/agent/sender/guest-load.ts";
import { startTestSite } from "../../src/appliance/testing/test-site.ts";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { SealedPointReport } from "../../src/contract/appliance-protocol.ts";
import { parseOrderId, parseVaultId, type MachineId } from "../../src/contract/ids.ts";
import { openDirectoryStore } from "../../src/store/directory-store.ts";
import { openVault } from "../../src/vault/open-vault.ts";
import { whyNoGuest } from "../system/agent-guest-image.ts";
import { startGuest, type Guest } from "../system/agent-guest.ts";
import { checkPoint, writeDisk, type PointVerdict } from "./points/check-guest.ts";
import { agentJournal, churnedBytes, prepareSource, putProgram, startAgent, startLoad } from "./points/source-guest.ts";

const packages = ["postgresql"];
/** Where a guest sees its appliance. */
const host = "10.0.2.100";
const intervalSeconds = 5;
const freezeMsMax = 1000;
/** Of a pause: reading the last granules. The rest is the kernel's. */
const ownMsMax = 250;
const initialCopyMsMax = 900_000;
const loadMsMax = 600_000;

const text = { type: "string" } as const;
const { values } = parseArgs({
  options: { quick: { type: "boolean" }, json: { type: "boolean" }, churn: text, cores: text, processors: text },
});
const isQuick = values.quick === true;
const loadSeconds = isQuick ? 60 : 300;
const checkedMax = isQuick ? 3 : 20;
const pointsMin = isQuick ? 4 : 40;
/** Of random writes. A guest that sends more slowly than that has no point under load, and the proof fails and says so. */
const churnBytesPerSecond = Number(values.churn ?? (isQuick ? 1 : 20)) * 1e6;
/** Of the load. With --quick it leaves room to the agent on a machine that is shared with others: emulated processors are slow. */
const cpuPercentMax = isQuick ? 25 : 200;
/** An emulated processor is ten to twenty times slower than the real one, so 20 MB/s need more of them than one. */
const cpuCount = Number(values.processors ?? (isQuick ? 2 : 4));
const agentCores = Number(values.cores ?? (isQuick ? 1 : 2));
/** Share of the time in which this machine's programs wait for a processor, above which pauses tell of it more than of the agent. */
const hostStallMax = 0.25;
const say = (line: string): void => void process.stderr.write(`${line}\n`);

interface Row {
  readonly pointId: string;
  readonly consistency: SealedPointReport["consistency"];
  readonly frozenMs: number;
  readonly dataBytes: number;
  readonly verdict: PointVerdict;
  readonly isRight: boolean;
}

interface Spread {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

function spreadOf(figures: readonly number[]): Spread {
  const sorted = figures.toSorted((one, other) => one - other);
  const at = (share: number): number => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0);
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

const textOf = ({ p50, p95, p99, max }: Spread): string => `p50 ${p50}, p95 ${p95}, p99 ${p99}, max ${max} ms`;

/** In the form of the benchmarks' claims, so that they can be shown beside them. */
interface LimitClaim {
  readonly claim: string;
  readonly ours: number;
  readonly unit: "ms";
  readonly peer: "limit";
  readonly theirs: number;
  readonly ratio: number;
  readonly bar: number;
  readonly sense: "at most";
  readonly met: boolean;
  readonly rounds: number;
}

/** The promise of an interval: how often points come, and how long writers stand still for each. Told of the churn that there truly was. */
function claimsOf(seen: {
  readonly gaps: Spread;
  readonly frozen: Spread;
  readonly reading: Spread;
  readonly rounds: number;
}): LimitClaim[] {
  const at = `${intervalSeconds} s at ${(churned / 1e6).toFixed(1)} MB/s random churn in an emulated guest`;
  const claimOf = (claim: string, ours: number, { limit, bar = 1 }: { readonly limit: number; readonly bar?: number }): LimitClaim => {
    const ratio = ours / limit;
    const figures = { ours, unit: "ms", peer: "limit", theirs: limit, ratio, bar, sense: "at most" } as const;
    return { claim: `${claim}: ${at}`, ...figures, met: ratio <= bar, rounds: seen.rounds };
  };
  return [
    claimOf("recovery point interval held", seen.gaps.p50, { limit: intervalSeconds * 1000, bar: 1.05 }),
    claimOf("pause p99", seen.frozen.p99, { limit: freezeMsMax }),
    claimOf("pause p99, our own part", seen.reading.p99, { limit: ownMsMax }),
  ];
}

/** All application-consistent ones, and the others at even distances. */
function choose(points: readonly SealedPointReport[]): readonly SealedPointReport[] {
  const best = points.filter(({ consistency }) => consistency === "application").slice(0, checkedMax / 2);
  const crash = points.filter(({ consistency }) => consistency === "crash");
  const count = Math.min(crash.length, checkedMax - best.length);
  return [
    ...best,
    ...Array.from({ length: count }, (_, index) => crash[Math.floor(((index + 0.5) * crash.length) / count)]).flatMap((one) => one ?? []),
  ];
}

const whyNot = await whyNoGuest();
if (whyNot !== undefined) {
  say(`cannot run here: ${whyNot}`);
  process.exit(2);
}
await using cleanup = new AsyncDisposableStack();
const folder = await mkdtemp(join(tmpdir(), "watari-points-"));
cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
const store = cleanup.use(await openDirectoryStore(join(folder, "store")));
const vaultParts = { store, vaultId: parseVaultId(randomUUID()), key: randomBytes(32) };
const vault = cleanup.use(await openVault({ ...vaultParts, clock: systemClock, random: systemRandom, log: silentLog }));
const site = cleanup.use(await startTestSite({ vault }));

const pauseShape = z.object({ way: z.enum(["together", "turns", "writers"]), pauseMs: z.number() });

/** How long writers stand still with each way to bring filesystems to rest: in turn, in one guest, under the same load. */
async function measureWays(guest: Guest): Promise<Record<string, readonly number[]>> {
  const program = await putProgram(guest, "pause-child.ts");
  const ways: Record<string, readonly number[]> = {};
  for (const line of (await guest.run(`${program} load.slice 16 together turns writers`)).trim().split("\n")) {
    const { way, pauseMs } = pauseShape.parse(JSON.parse(line));
    ways[way] = [...(ways[way] ?? []), pauseMs];
  }
  return ways;
}

/** Waits until there are so many points and so long, at most; answers how long. A slow guest takes its time for each. */
async function untilPoints(machineId: MachineId, count: number, { msMin, msMax }: { readonly msMin: number; readonly msMax: number }) {
  const startMs = systemClock.monotonicMs();
  const passedMs = (): number => systemClock.monotonicMs() - startMs;
  while ((site.ledger.countOf(machineId) < count || passedMs() < msMin) && passedMs() < msMax) await systemClock.sleep(500);
  return passedMs();
}

/** The points that were made under load, and how long writers stand still with each way to bring filesystems to rest. */
async function takePoints(): Promise<{
  readonly points: readonly SealedPointReport[];
  /** Bytes a second of random writes that there truly were. */
  readonly churned: number;
  readonly ways: Readonly<Record<string, readonly number[]>>;
  readonly hostStall: number;
}> {
  await using guest = await startGuest({ packages, ways: [site.controlPort, site.dataPort], cpuCount });
  await prepareSource(guest);
  const machineId = await startAgent(guest, site, { host, cores: agentCores });
  site.protect(machineId);
  const policy = { pointIntervalSeconds: intervalSeconds, freezeMsMax, applicationIntervalMinutes: 0.4 };
  const orderId = parseOrderId(randomUUID());
  site.orders.give(machineId, { kind: "replicate", orderId, policy });
  const ended = await site.orders.waitResult(orderId);
  if (ended.outcome === "failed") throw new Error(ended.fault.message);
  say("the agent copies the disks");
  const endMs = systemClock.monotonicMs() + initialCopyMsMax;
  while (site.ledger.countOf(machineId) === 0) {
    if (systemClock.monotonicMs() > endMs) throw new Error(`there is no first point: ${await agentJournal(guest)}`);
    await systemClock.sleep(1000);
  }
  await startLoad(guest, { churnBytesPerSecond, cpuPercentMax });
  say(`under load: ${churnBytesPerSecond / 1e6} MB/s of random writes, stamps, pgbench`);
  const before = site.ledger.countOf(machineId);
  // The point that was under way while the load began has all of the load's own files to send.
  const loadMs = await untilPoints(machineId, before + 1, { msMin: 0, msMax: loadMsMax });
  const churnedBefore = await churnedBytes(guest);
  const stalledBefore = await hostStallMs();
  const measuredMs = await untilPoints(machineId, before + 1 + pointsMin, { msMin: loadSeconds * 1000, msMax: loadMsMax });
  const churned = ((await churnedBytes(guest)) - churnedBefore) / (measuredMs / 1000);
  const hostStall = ((await hostStallMs()) - stalledBefore) / measuredMs;
  say(
    `the first point under load took ${Math.round(loadMs / 1000)} s, the others ${Math.round(measuredMs / 1000)} s, with ${(churned / 1e6).toFixed(2)} MB/s of random writes`,
  );
  const points = site.ledger.untold(10_000).slice(before);
  if (points.length === 0) say(await agentJournal(guest));
  const stopped = parseOrderId(randomUUID());
  site.orders.give(machineId, { kind: "stop", orderId: stopped });
  await site.orders.waitResult(stopped);
  if (isQuick) return { points, churned, hostStall, ways: {} };
  return { points, churned, hostStall, ways: await measureWays(guest) };
}

/** For how long some program of this machine has waited for a processor (kernel documentation, accounting/psi); 0 where it is not told. */
async function hostStallMs(): Promise<number> {
  return (parseStallMicroseconds(await readFile("/proc/pressure/cpu", "latin1").catch(() => "")) ?? 0) / 1000;
}

async function checkPoints(points: readonly SealedPointReport[]): Promise<Row[]> {
  await using guest = await startGuest({ packages });
  const rows: Row[] = [];
  for (const { pointId, consistency, frozenMs, disks, application } of points) {
    let dataBytes = 0;
    for (const [index, { diskId }] of disks.toSorted((one, other) => Number(other.isBoot) - Number(one.isBoot)).entries())
      dataBytes += await writeDisk(vault, { pointId, diskId, path: join(folder, index === 0 ? "vda" : "vdb") });
    const verdict = await checkPoint(guest, folder);
    const isRight =
      verdict.stamps.wrong.length === 0 && verdict.stamps.newest > 0 && verdict.faults.length === 0 && verdict.historyRows > 0;
    rows.push({ pointId, consistency, frozenMs, dataBytes, verdict, isRight });
    const { stamps, faults } = verdict;
    say(
      `${isRight ? "✔" : "✖"} ${consistency.padEnd(11)} frozen ${Math.round(frozenMs)} ms; ${stamps.stampCount} stamps show the moment of ${stamps.newest}, ${stamps.wrong.length} do not; ` +
        `${Math.round(dataBytes / 1e6)} MB; PostgreSQL up after ${verdict.recoveryMs} ms with ${verdict.historyRows} transactions` +
        `${application === undefined ? "" : `, ${verdict.restRows} rows of the script`}${[...stamps.wrong.slice(0, 3), ...faults].map((fault) => `\n    ${fault}`).join("")}`,
    );
  }
  return rows;
}

const { points, churned, hostStall, ways } = await takePoints();
const rows = await checkPoints(choose(points));
const frozen = spreadOf(points.map(({ frozenMs }) => frozenMs));
const gaps = points.slice(1).map(({ timeMs }, index) => timeMs - (points[index]?.timeMs ?? 0));
const application = points.filter((point) => point.application !== undefined);
const parts = {
  freezeMs: spreadOf(points.map(({ pause }) => pause?.freezeMs ?? 0)),
  readMs: spreadOf(points.map(({ pause }) => pause?.readMs ?? 0)),
  heldBytes: spreadOf(points.map(({ pause }) => pause?.heldBytes ?? 0)),
  freezeCount: spreadOf(points.map(({ pause }) => pause?.freezeCount ?? 0)),
};
const results = points.length < 2 ? [] : claimsOf({ gaps: spreadOf(gaps), frozen, reading: parts.readMs, rounds: points.length });
const result = {
  ...{ points: points.length, checked: rows.length, wrong: rows.filter(({ isRight }) => !isRight).length },
  ...{ intervalSeconds, churnBytesPerSecond: Math.round(churned), gapMs: spreadOf(gaps), freezeMsMax, frozenMs: frozen },
  ...{ parts, hostStall, cpuCount, agentCores },
  application: { asked: application.length, made: application.filter((point) => point.application?.isConsistent === true).length },
  ways: Object.fromEntries(Object.entries(ways).map(([way, pauses]) => [way, spreadOf(pauses)])),
  rows,
  results,
};
say(`${points.length} points; between them ${textOf(result.gapMs)}; wanted every ${intervalSeconds * 1000} ms`);
say(
  `frozen ${textOf(frozen)}: kernel ${textOf(parts.freezeMs)}; reading ${textOf(parts.readMs)}, ${parts.heldBytes.p99} bytes (p99); freezes for a point: ${parts.freezeCount.p50} (p50), ${parts.freezeCount.max} (max)`,
);
for (const [way, spread] of Object.entries(result.ways)) say(`standstill by "${way}" without reading: ${textOf(spread)}`);
say(`application-consistent: ${result.application.made} of ${result.application.asked} asked for`);
say(`${rows.length} points checked, ${result.wrong} wrong`);
for (const { claim, ours, theirs, bar, met } of results)
  say(`${met ? "met   " : "MISSED"} ${claim}: ${ours} ms of ${theirs} ms${bar === 1 ? "" : ` (at most ${bar} of it)`}`);
if (values.json === true) process.stdout.write(`${JSON.stringify(result)}\n`);
/** The promises of times are those of a machine that has its processors for itself; without --quick they are asked for on any. */
const isBusyHost = hostStall > hostStallMax;
say(
  `this machine's programs waited for a processor in ${Math.round(hostStall * 100)} % of the time${isQuick && isBusyHost ? ": times are not judged" : ""}`,
);
const isHeld = isQuick ? isBusyHost || frozen.p99 <= freezeMsMax : results.length > 0 && results.every(({ met }) => met);
const isProved = rows.length > 1 && result.wrong === 0 && result.application.made > 0 && isHeld;
process.exitCode = isProved ? 0 : 1;
