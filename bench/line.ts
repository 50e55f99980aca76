// Initial copies over lines that are shaped or long: beside plain copiers on 1 and 10 Gbit/s, and the share of a line of 150 and 270 ms that is used.
// Run as root: node bench/line.ts [--quick | --size-mib 4096] [--rounds 3] [--json FILE]
//
// Shaped lines are the loopback of a network namespace made for it, under tc's token bucket. Long lines are carried by a program between agent
// and appliance (long-line.ts), because not every kernel has netem: they show what the protocol keeps under way, not TCP's own windows.

import { mkdir, mkdtemp, rm, writeFile, open, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { randomFillSync } from "node:crypto";
import { spawn } from "node:child_process";
import { parseArgs } from "node:util";
import { z } from "zod";
import { runCommand, tryCommand } from "../src/base/run-command.ts";
import { extra, formatClaims, timesLess, timesMore, withinLimit, type Claim } from "./claim.ts";
import { agentMegabytesMax, bundleAgent, DataPathPair, rootOfImage, type AgentFiles } from "./data-path-pair.ts";
import { freePort, missingProgram, waitForNbd } from "./data-path-peers.ts";
import { measureChildren, runToEnd, stopChild } from "./measured.ts";
import { openLongLine } from "./long-line.ts";
import { carryRawStream, lineErrorMax, type CarriedStream } from "./raw-stream.ts";
import { referenceImage } from "./reference-image.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    "size-mib": { type: "string" },
    rounds: { type: "string" },
    json: { type: "string" },
    /** Set by this program when it calls itself inside a namespace: what to measure, for whom to write it down. */
    inside: { type: "string" },
  },
});
const sizeMib = Number(values["size-mib"] ?? (values.quick ? 512 : 4096));
const roundCount = Number(values.rounds ?? (values.quick ? 1 : 3));
const cores = availableParallelism();
const bitsPerMegabit = 1e6;
/** What the shaper lets pass at once: longer than a processor's timers may be late, short beside a copy. */
const burstSeconds = 0.005;
const lines = [
  { name: "1 Gbit/s", rate: "1gbit", megabits: 1000 },
  { name: "10 Gbit/s", rate: "10gbit", megabits: 10_000 },
] as const;
/** A quick run takes half the bandwidth, so that a busy machine is not what is measured. */
const longMegabits = values.quick ? 500 : 1000;
const roundTripsMs = [150, 270];

/** Wall seconds by program, and what the line carried of a plain stream. */
const shapedShape = z.object({
  seconds: z.record(z.string(), z.array(z.number()).min(1)),
  carried: z.object({ bytesPerSecond: z.number(), endsCpuShare: z.number(), ownCpuShare: z.number() }),
});

const cache = join(process.env["WATARI_CACHE"] ?? "/var/cache/watari", "bench");
await mkdir(cache, { recursive: true });
const folder = await mkdtemp(join(cache, "line-"));
try {
  if (values.inside !== undefined) await writeFile(values.inside, JSON.stringify(await measureShaped()));
  else await measureAll();
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function measureAll(): Promise<void> {
  const claims: Claim[] = [];
  for (const line of lines) claims.push(...(await inNamespace(line)));
  for (const roundTripMs of roundTripsMs) claims.push(...(await measureLong(roundTripMs)));
  console.log(`lines, ${sizeMib} MiB, ${roundCount} round(s), ${cores} processors; medians`);
  console.log(formatClaims(claims));
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ results: claims }, undefined, 1)}\n`);
}

/** Runs this program where the loopback has that bandwidth. */
async function inNamespace({ name, rate, megabits }: (typeof lines)[number]): Promise<readonly Claim[]> {
  const namespace = `wbl-${process.pid}`;
  const made = await tryCommand("ip", ["netns", "add", namespace], { timeoutMs: 10_000 });
  if (made.exitCode !== 0) {
    console.error(`not measured: the line of ${name}; this user may make no network namespace`);
    return [];
  }
  try {
    await runCommand("ip", ["-n", namespace, "link", "set", "lo", "up"]);
    const burstBytes = (megabits * bitsPerMegabit * burstSeconds) / 8;
    const shape = ["tbf", "rate", rate, "burst", String(burstBytes), "latency", "20ms"];
    await runCommand("tc", ["-n", namespace, "qdisc", "add", "dev", "lo", "root", ...shape]);
    const answer = join(folder, `${rate}.json`);
    const own = ["--disable-warning=ExperimentalWarning", join(import.meta.dirname, "line.ts"), "--inside", answer];
    const size = ["--size-mib", String(sizeMib), "--rounds", String(roundCount)];
    await runToEnd({ command: "ip", args: ["netns", "exec", namespace, process.execPath, ...own, ...size] });
    const { seconds, carried } = shapedShape.parse(JSON.parse(await readFile(answer, "utf8")));
    const ours = seconds["ours"] ?? [];
    const beside = Object.entries(seconds).flatMap(([peer, theirs]) =>
      peer === "ours" ? [] : timesLess({ claim: `initial copy on ${name}`, ours, unit: "s", peer, theirs, bar: 1 }),
    );
    return [...beside, lineClaim(name, { carried, megabits })];
  } finally {
    await runCommand("ip", ["netns", "del", namespace]);
  }
}

/** The line by itself. Throws when it carries more than it was given, because then nothing was measured on it. */
function lineClaim(name: string, { carried, megabits }: { readonly carried: CarriedStream; readonly megabits: number }): Claim {
  const ours = (carried.bytesPerSecond * 8) / bitsPerMegabit;
  const cpu = `processors: both ends ${carried.endsCpuShare.toFixed(2)}, this program ${carried.ownCpuShare.toFixed(2)}`;
  console.error(`the line of ${name} carries ${ours.toFixed(0)} of ${megabits} Mbit/s of a plain stream; ${cpu}`);
  if (ours > megabits * (1 + lineErrorMax)) throw new Error(`the line of ${name} carries ${ours.toFixed(0)} Mbit/s`);
  const claim = `line of ${name} by itself, a plain stream`;
  return extra(timesMore({ claim, ours: [ours], unit: "Mbit/s", peer: "nominal", theirs: [megabits], bar: 1 - lineErrorMax }));
}

/** Wall seconds of each program, by round, interleaved. */
async function measureShaped(): Promise<z.infer<typeof shapedShape>> {
  const carried = await carryRawStream(async (port) => await Promise.resolve(port));
  const image = await referenceImage(cache, sizeMib, (line) => console.error(line));
  const files = await bundleAgent(folder);
  const root = await rootOfImage(image.path);
  const seconds: Record<string, number[]> = { ours: [] };
  for (let round = 0; round < roundCount; round++) {
    for (const [peer, args] of [
      ["nbdcopy, plain", (uri: string) => ["nbdcopy", image.path, uri]],
      [
        "qemu-img convert, plain",
        (uri: string) => ["qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", image.path, uri],
      ],
    ] as const) {
      const missing = await missingProgram(["nbdkit", args("")[0] ?? ""]);
      if (missing !== undefined) console.error(`not measured: ${peer}, because ${missing} is not installed`);
      else (seconds[peer] ??= []).push(await copyPlain(image.sizeBytes, args));
    }
    const own = await mkdtemp(join(folder, "pair-"));
    {
      await using pair = await DataPathPair.start({ folder: own, image: image.path, files, cores });
      seconds["ours"]?.push((await pair.point(root)).wallSeconds);
    }
    await rm(own, { recursive: true });
  }
  return { seconds, carried };
}

/** To a server that keeps nothing, over TCP without TLS. */
async function copyPlain(sizeBytes: number, command: (uri: string) => readonly string[]): Promise<number> {
  const port = await freePort();
  const uri = `nbd://127.0.0.1:${port}/`;
  const server = spawn("nbdkit", ["-f", "-i", "127.0.0.1", "-p", String(port), "null", `size=${sizeBytes}`], { stdio: "ignore" });
  try {
    await waitForNbd(uri, server);
    const [program = "", ...args] = command(uri);
    return (await measureChildren(async () => await runToEnd({ command: program, args }))).wallSeconds;
  } finally {
    await stopChild(server);
  }
}

/** Content that does not compress, so that bytes on the wire are bytes of the disk. */
async function measureLong(roundTripMs: number): Promise<readonly Claim[]> {
  const way = { roundTripMs, bytesPerSecond: (longMegabits * bitsPerMegabit) / 8 };
  await using cleanup = new AsyncDisposableStack();
  const carried = await carryRawStream(async (port) => cleanup.use(await openLongLine(port, way)).port);
  const name = `${longMegabits} Mbit/s with ${roundTripMs} ms round trip`;
  const image = join(folder, "random.raw");
  await writeRandom(image);
  const files = await bundleAgent(folder);
  const root = await rootOfImage(image);
  const copies: CopiedLong[] = [];
  for (let round = 0; round < roundCount; round++) copies.push(await copyLong({ image, files, root, roundTripMs }));
  const claim = `initial copy on ${name}, share of the line`;
  const share = timesMore({
    claim,
    ours: copies.map(({ megabits }) => megabits),
    unit: "Mbit/s",
    peer: "the line",
    theirs: [longMegabits],
    bar: 0.9,
  });
  const memory = { ours: copies.map(({ agentMegabytes }) => agentMegabytes), unit: "MB", limit: agentMegabytesMax };
  return [share, withinLimit(`agent, memory over ${name}`, memory), lineClaim(name, { carried, megabits: longMegabits })];
}

interface CopiedLong {
  readonly megabits: number;
  readonly agentMegabytes: number;
}

/** By an agent as it is installed, on one processor. */
async function copyLong(of: {
  readonly image: string;
  readonly files: AgentFiles;
  readonly root: string;
  readonly roundTripMs: number;
}): Promise<CopiedLong> {
  const own = await mkdtemp(join(folder, "pair-"));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(async () => await rm(own, { recursive: true }));
  const bytesPerSecond = (longMegabits * bitsPerMegabit) / 8;
  let inFlight = (): number => 0;
  const line = async (dataPort: number): Promise<number> => {
    const opened = cleanup.use(await openLongLine(dataPort, { roundTripMs: of.roundTripMs, bytesPerSecond }));
    inFlight = () => opened.inFlightBytesMax;
    return opened.port;
  };
  const pair = cleanup.use(await DataPathPair.start({ folder: own, image: of.image, files: of.files, cores: 1, line }));
  const { sentBytes, wallSeconds, agentResidentMib } = await pair.point(of.root);
  const agentMegabytes = (agentResidentMib * 2 ** 20) / 1e6;
  const megabits = (sentBytes * 8) / wallSeconds / bitsPerMegabit;
  const seen = `${(inFlight() / 2 ** 20).toFixed(0)} MiB under way at most, agent ${agentMegabytes.toFixed(0)} MB`;
  console.error(`${of.roundTripMs} ms: ${megabits.toFixed(0)} of ${longMegabits} Mbit/s, ${wallSeconds.toFixed(1)} s, ${seen}`);
  return { megabits, agentMegabytes };
}

async function writeRandom(path: string): Promise<void> {
  await using file = await open(path, "w");
  const piece = Buffer.alloc(8 << 20);
  // A long line takes its time to fill: a quick run has twice the bytes here.
  for (let left = sizeMib * (values.quick ? 2 : 1); left > 0; left -= 8) await file.write(randomFillSync(piece));
}
