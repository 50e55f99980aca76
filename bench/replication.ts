// The claims of replication on one machine, beside the programs of the field: first copy, changes, changes without tracking, restore, NBD.
// Run: node bench/replication.ts [--quick | --size-mib 8192] [--rounds 5] [--json FILE]
//
// Rounds are interleaved: each has every program and us once on the same bytes. The agent and the appliance are the real parts in processes
// of their own, joined by TLS; every root is compared with the image's. A peer that is not installed is named and left out.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runCommand } from "../src/base/run-command.ts";
import { granuleBytes } from "../src/disk/geometry.ts";
import { backupPeers } from "./backup-peers.ts";
import { BitmapPeer } from "./bitmap-peer.ts";
import { extra, formatClaims, withinLimit, type Claim } from "./claim.ts";
import { agentMegabytesMax, bundleAgent, copyGranules, DataPathPair, rootOfImage, type AgentFiles } from "./data-path-pair.ts";
import { compressedSize, missingProgram, peers } from "./data-path-peers.ts";
import { toClaims, type Figures, type Round } from "./replication-claims.ts";
import { changedImage, referenceImage } from "./reference-image.ts";
import { copyToFile, copyToNowhere, randomReads, serveCompressed } from "./restore-peers.ts";
import { measureProcess } from "./measured.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    "size-mib": { type: "string" },
    rounds: { type: "string" },
    json: { type: "string" },
  },
});
const sizeMib = Number(values["size-mib"] ?? (values.quick ? 2048 : 8192));
const roundCount = Number(values.rounds ?? (values.quick ? 1 : 5));
const cores = availableParallelism();

const cache = join(process.env["WATARI_CACHE"] ?? "/var/cache/watari", "bench");
await mkdir(cache, { recursive: true });
const image = await referenceImage(cache, sizeMib, (line) => console.error(line));
const changes = await changedImage(image);
const folder = await mkdtemp(join(cache, "run-"));
let claims: readonly Claim[] = [];
try {
  const work = join(folder, "work.raw");
  await runCommand("cp", ["--sparse=always", image.path, work], { timeoutMs: 600_000 });
  const files = await bundleAgent(folder);
  const roots = { initial: await rootOfImage(work), changed: await rootOfImage(changes.path) };
  const bitmap = { image: image.path, sizeBytes: image.sizeBytes, changes, folder: join(folder, "bitmap") };
  await using bitmapPeer = (await isThere("qemu-storage-daemon", "nbdkit", "nbdinfo", "openssl"))
    ? await BitmapPeer.start(bitmap)
    : undefined;
  const rounds: Round[] = [];
  for (let number = 0; number < roundCount; number++) {
    console.error(`round ${number + 1} of ${roundCount}`);
    const scratch = await mkdtemp(join(folder, "round-"));
    rounds.push(await measureRound({ work, scratch, files, roots, bitmapPeer }));
    await rm(scratch, { recursive: true });
  }
  const compressedBytes = (await isThere("zstd")) ? await compressedSize(work) : undefined;
  const facts = { changedBytes: changes.granules.length * granuleBytes, isFull: sizeMib >= 8192, compressedBytes };
  claims = [...toClaims(rounds, facts), ...(await measureInstalled({ work, files, root: roots.initial }))];
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log(`replication, ${sizeMib} MiB with real content, ${roundCount} round(s), ${cores} processors; medians`);
console.log(formatClaims(claims));
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ results: claims }, undefined, 1)}\n`);

async function isThere(...programs: readonly string[]): Promise<boolean> {
  const missing = await missingProgram(programs);
  if (missing !== undefined) console.error(`not measured: what needs ${missing}, which is not installed`);
  return missing === undefined;
}

/** The agent as it is installed, on one processor: memory over a whole copy, and beside it that of the agent with a thread for each processor. */
async function measureInstalled(of: {
  readonly work: string;
  readonly files: AgentFiles;
  readonly root: string;
}): Promise<readonly Claim[]> {
  const megabytes: number[] = [];
  for (const count of [1, cores]) {
    const own = await mkdtemp(join(folder, "installed-"));
    {
      await using pair = await DataPathPair.start({ folder: own, image: of.work, files: of.files, cores: count });
      megabytes.push(((await pair.point(of.root)).agentResidentMib * 2 ** 20) / 1e6);
    }
    await rm(own, { recursive: true });
  }
  const [installed = Number.NaN, threaded = Number.NaN] = megabytes;
  const of1 = { ours: [installed], unit: "MB", limit: agentMegabytesMax };
  return [
    withinLimit("agent, memory over a first copy", of1),
    extra(withinLimit(`agent, memory over a first copy with ${cores} threads`, { ...of1, ours: [threaded] })),
  ];
}

interface RoundOptions {
  readonly work: string;
  readonly scratch: string;
  readonly files: { readonly agentFile: string; readonly threadFile: string };
  readonly roots: { readonly initial: string; readonly changed: string };
  readonly bitmapPeer: BitmapPeer | undefined;
}

async function measureRound({ work, scratch, files, roots, bitmapPeer }: RoundOptions): Promise<Round> {
  const first: Record<string, Figures> = {};
  const again: Record<string, Figures> = {};
  for (const peer of peers) {
    if (!(await isThere(...peer.programs))) continue;
    const own = await mkdtemp(join(scratch, "peer-"));
    first[peer.name] = await peer.measure(work, own);
    await rm(own, { recursive: true });
  }
  const restore: Record<string, Figures> = {};
  // One after the other with all that it does, so that the disk holds the repository of one at a time.
  for (const peer of backupPeers) {
    if (!(await isThere(peer.program))) continue;
    const own = await mkdtemp(join(scratch, "peer-"));
    await peer.prepare(own);
    first[peer.name] = await peer.backup(work, own, "first");
    if (peer.restore !== undefined) restore[peer.restore.name] = await peer.restore.measure(work, own, "first");
    await copyGranules(changes.path, work, changes.granules);
    again[peer.name] = await peer.backup(work, own, "second");
    await copyGranules(image.path, work, changes.granules);
    await rm(own, { recursive: true });
  }
  const pairFolder = join(scratch, "pair");
  await mkdir(pairFolder);
  await using pair = await DataPathPair.start({ folder: pairFolder, image: work, files, cores });
  const initial = await pair.point(roots.initial);
  const restored = await measureRestores(pair, initial.pointId, { work, scratch, restore });
  await pair.write(changes.path, changes.granules);
  const changed = await pair.point(roots.changed);
  await pair.loseTracking();
  await copyGranules(image.path, work, changes.granules);
  const rescan = await pair.point(roots.initial);
  const bitmapCopy = await bitmapPeer?.copy();
  return { first, again, initial, changed, rescan, ...restored, ...(bitmapCopy === undefined ? {} : { bitmapCopy }) };
}

async function measureRestores(
  pair: DataPathPair,
  pointId: Parameters<DataPathPair["serve"]>[0],
  { work, scratch, restore }: { readonly work: string; readonly scratch: string; readonly restore: Record<string, Figures> },
): Promise<Pick<Round, "restore" | "nbd">> {
  const nbd: Record<string, { readonly seconds: number; readonly iops: number }> = {};
  const { uri } = await pair.serve(pointId);
  const watch = { cpuSeconds: async () => await pair.applianceCpuSeconds() };
  restore["ours, to nowhere"] = await measureProcess(watch, async () => await copyToNowhere(uri));
  restore["ours, to a file"] = await measureProcess(watch, async () => await copyToFile(uri, join(scratch, "restored.raw")));
  nbd["ours"] = { seconds: restore["ours, to nowhere"].wallSeconds, iops: await randomReads(uri) };
  await rm(join(scratch, "restored.raw"));
  await using served = await serveCompressed(work, scratch);
  restore["qemu-img convert from compressed qcow2, to a file"] = await served.convert(join(scratch, "restored.raw"));
  await rm(join(scratch, "restored.raw"));
  const seconds = (await measureProcess(watch, async () => await copyToNowhere(served.compressedUri))).wallSeconds;
  nbd["qemu-nbd, compressed qcow2"] = { seconds, iops: await randomReads(served.compressedUri) };
  const raw = (await measureProcess(watch, async () => await copyToNowhere(served.rawUri))).wallSeconds;
  nbd["qemu-nbd, raw"] = { seconds: raw, iops: await randomReads(served.rawUri) };
  return { restore, nbd };
}
