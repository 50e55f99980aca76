// Measures memory for each TB, looks into the index and pauses, while a vault with a large disk is opened, asked for its blocks and sealed.
// Blocks have digests and places but no content. Run: node bench/vault-index.ts [--quick | --tb 10] [--folder DIR] [--json FILE]

import { createHash, randomUUID } from "node:crypto";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { systemClock } from "../src/base/clock.ts";
import { silentLog } from "../src/base/log.ts";
import { systemRandom } from "../src/base/random.ts";
import { parseAreaId, parseDiskId, parseMachineId, parsePackId, parsePointId, parseVaultId, type AreaId } from "../src/contract/ids.ts";
import { blockBytes, digestBytes } from "../src/disk/geometry.ts";
import type { Store } from "../src/store/store.ts";
import { Entries } from "../src/vault/entries.ts";
import { openVault } from "../src/vault/open-vault.ts";
import { packKeyOf, RememberedPack } from "../src/vault/pack.ts";
import { toVaultSecret } from "../src/vault/sealing.ts";
import { extra, formatClaims, withinLimit } from "./claim.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    tb: { type: "string" },
    folder: { type: "string", default: tmpdir() },
    json: { type: "string" },
  },
});
const tb = Number(values.tb ?? (values.quick ? 0.2 : 10));
/** What is kept whatever the disk's size shows beside a disk of this part. */
const smallPart = 1 / 5;
/** On less, what grows with the disk is lost in what a heap happens to hold: of a quick run the figure says nothing. */
const tbMin = 1;
/** A pack of 64 MiB with blocks that shrink to half. */
const blocksPerPack = 2000;
const blocksPerFrame = 64;
/** 1 TB; what is set of a larger disk lies in a file as that does, so that more would only take longer. */
const askedFramesMax = 240_000;
const [vaultId, machineId, diskId] = [parseVaultId(randomUUID()), parseMachineId(randomUUID()), parseDiskId("disk-1")];
const areaId: AreaId = parseAreaId(vaultId);
const key = Buffer.alloc(32, 1);
/** Objects of the store and their sizes. */
const names = new Map<string, number>();

/** Keeps names and sizes, no content. */
const store: Store = {
  put: async (objectKey, bytes) => void names.set(await Promise.resolve(objectKey), bytes.length),
  get: async () => await Promise.resolve(undefined),
  head: async (objectKey) => {
    const size = names.get(objectKey);
    return await Promise.resolve(size === undefined ? undefined : { key: objectKey, sizeBytes: size });
  },
  async *list(prefix) {
    for (const [objectKey, size] of names)
      if (objectKey.startsWith(prefix)) yield await Promise.resolve({ key: objectKey, sizeBytes: size });
  },
  remove: async (objectKey) => void names.delete(await Promise.resolve(objectKey)),
  [Symbol.asyncDispose]: async () => await Promise.resolve(),
};

/** Digest of a block of the simulated disk: as good as one of content. */
function digestOf(block: number, salt = "kept"): Uint8Array {
  return createHash("sha256").update(`${salt} ${block}`).digest();
}

/** Used for each frame again, so that what is measured is not this benchmark's own garbage. */
const frameWords = new Uint32Array((blocksPerFrame * digestBytes) / 4);
const frameDigests = Array.from(
  { length: blocksPerFrame },
  (_, index) => new Uint8Array(frameWords.buffer, index * digestBytes, digestBytes),
);

/** A frame's digests in one go, so that making them costs less than what is measured: one hash, then its words stirred. Until the next call. */
function digestsOf(firstBlock: number, count: number, salt: string): Uint8Array[] {
  const seed = Uint8Array.from(digestOf(Math.floor(firstBlock / blocksPerFrame), salt));
  const seedWords = new Uint32Array(seed.buffer);
  const words = frameWords;
  for (let at = 0; at < count * seedWords.length; at++) {
    const word = at % seedWords.length;
    words[at] = stir((seedWords[word] ?? 0) ^ (Math.imul(firstBlock + (at - word) / seedWords.length + 1, 0x9e3779b1) + word));
  }
  return frameDigests.slice(0, count);
}

function stir(value: number): number {
  let mixed = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

interface Stage {
  readonly stage: string;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly perCpuSecond: number;
  readonly stallP99Ms: number;
  readonly stallMaxMs: number;
  /** Resident memory at the most, looked at often. */
  readonly residentMib: number;
}
let stages: Stage[] = [];
let residentMax = 0;
const lookAtMemory = (): void => void (residentMax = Math.max(residentMax, process.memoryUsage.rss()));

async function measure(stage: string, count: number, work: () => Promise<void>): Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  residentMax = 0;
  const startedMs = performance.now();
  const cpu = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(cpu);
  const cpuSeconds = (user + system) / 1e6;
  lookAtMemory();
  const seconds = (performance.now() - startedMs) / 1000;
  delay.disable();
  const row = {
    stage,
    seconds,
    cpuSeconds,
    perCpuSecond: Math.round(count / cpuSeconds),
    stallP99Ms: delay.percentile(99) / 1e6 - 5,
    stallMaxMs: delay.max / 1e6 - 5,
  };
  stages.push({ ...row, residentMib: residentMax / 2 ** 20 });
  console.error(JSON.stringify(stages.at(-1)));
}

/** What a first copy leaves in the index: packs that are durable, and their blocks. */
async function fill(entries: Entries, blockCount: number): Promise<void> {
  for (let firstBlock = 0; firstBlock < blockCount; firstBlock += blocksPerPack) {
    const entryCount = Math.min(blocksPerPack, blockCount - firstBlock);
    const facts = {
      packId: parsePackId(randomUUID()),
      areaId,
      ownerId: machineId,
      writtenAtMs: 1,
      sizeBytes: 64 << 20,
      entryBytes: 62 << 20,
      digestBytes: 1 << 20,
    };
    const sealHead = { generation: 1, salt: Buffer.alloc(32, firstBlock % 251) };
    const pack = new RememberedPack({ store, secret: toVaultSecret(vaultId, key) }, { ...facts, sealHead, number: 0, entryCount: 0 });
    entries.addPack(pack);
    names.set(packKeyOf(areaId, facts.packId), facts.sizeBytes);
    let ordinal = 0;
    for (let block = firstBlock; block < firstBlock + entryCount;) {
      const count = Math.min(blocksPerFrame - (block % blocksPerFrame), firstBlock + entryCount - block);
      const frameStart = block - (block % blocksPerFrame);
      const digests = digestsOf(frameStart, blocksPerFrame, "kept").slice(block - frameStart, block - frameStart + count);
      await entries.prefetch("block", digests);
      for (const id of digests) {
        const offset = ordinal++ * 32_000;
        entries.addEntry({ id, offset, length: 32_000, kind: "block", form: "full", method: "zstd", depth: 0 }, pack);
      }
      block += count;
    }
    lookAtMemory();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

interface Report {
  readonly tb: number;
  readonly blockCount: number;
  readonly fileBytes: number;
  readonly residentMib: number;
  readonly stages: readonly Stage[];
}

async function measureDisk(tb: number): Promise<Report> {
  stages = [];
  names.clear();
  const blockCount = Math.floor((tb * 1e12) / blockBytes);
  const indexFolder = await mkdtemp(join(values.folder, "watari-index-"));
  try {
    await measure("insert into the index", blockCount, async () => {
      await using entries = await Entries.open({ store, secret: toVaultSecret(vaultId, key), indexFolder });
      await fill(entries, blockCount);
    });
    let fileBytes = 0;
    for (const name of await readdir(indexFolder)) fileBytes += (await stat(join(indexFolder, name))).size;
    await useVault(indexFolder, blockCount);
    const residentMib = Math.max(...stages.map((stage) => stage.residentMib));
    return { tb, blockCount, fileBytes, residentMib, stages };
  } finally {
    await rm(indexFolder, { recursive: true });
  }
}

async function useVault(indexFolder: string, blockCount: number): Promise<void> {
  const parts = { clock: systemClock, random: systemRandom, log: silentLog };
  await using vault = await openVault({ store, vaultId, key, indexFolder, ...parts });
  const disks = [{ diskId, sizeBytes: blockCount * blockBytes, isBoot: true, excluded: [] }];
  const pointId = parsePointId(randomUUID());
  const writers: Awaited<ReturnType<typeof vault.beginPoint>>[] = [];
  await measure("open the vault, begin a point", 1, async () => void writers.push(await vault.beginPoint({ pointId, machineId, disks })));
  const [writer] = writers;
  if (writer === undefined) throw new Error("there is a writer");
  const frames = Math.min(Math.ceil(blockCount / blocksPerFrame), askedFramesMax);
  const missFrames = Math.min(frames, 40_000);
  await measure("ask for blocks that are not there", missFrames * blocksPerFrame, async () => {
    for (let frame = 0; frame < missFrames; frame++) {
      const need = await writer.need(diskId, 0, digestsOf(frame * blocksPerFrame, blocksPerFrame, "missing"));
      if (need.includes(false)) throw new Error("the vault says that it has what it has not");
      await new Promise((resolve) => setImmediate(resolve)); // As frames come from a socket.
    }
  });
  const askedCount = Math.min(blockCount, frames * blocksPerFrame);
  await measure("ask for blocks that are there and set them", askedCount, async () => {
    for (let frame = 0; frame < frames; frame++) {
      const firstBlock = frame * blocksPerFrame;
      const ids = digestsOf(firstBlock, Math.min(blocksPerFrame, blockCount - firstBlock), "kept");
      const need = await writer.need(diskId, firstBlock, ids);
      if (need.includes(true)) throw new Error("the vault asks for what it has");
      for (const [index, id] of ids.entries()) writer.setBlock(diskId, firstBlock + index, id);
      if (frame % 4096 === 0) lookAtMemory();
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
  await measure("seal", askedCount, async () => void (await writer.seal({ timeMs: 1, consistency: "crash" })));
  await writer[Symbol.asyncDispose]();
}

// The small disk first: it warms the program up, and what it takes is the fixed base.
const small = await measureDisk(tb * smallPart);
const large = await measureDisk(tb);
const perTb = (large.residentMib - small.residentMib) / (tb * (1 - smallPart));
const worst = Math.max(...large.stages.map(({ stallP99Ms }) => stallP99Ms));
const memory = withinLimit(`appliance, memory beside a disk of ${tb} TB`, { ours: [perTb], unit: "MiB for a TB", limit: 64e6 / 2 ** 20 });
const claims = [
  tb < tbMin ? extra(memory) : memory,
  withinLimit(`appliance, pauses beside a disk of ${tb} TB, p99`, { ours: [worst], unit: "ms", limit: 50 }),
];
console.log(JSON.stringify(large, undefined, 1));
console.log(formatClaims(claims));
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ results: claims, small, large }, undefined, 1)}\n`);
