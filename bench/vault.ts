// Measures the vault against `zstd -1 -T0` on one image with real content: ingest, 1 % random 4 KiB changes, read back.
// Run: node bench/vault.ts --size-mib 1024 [--folder DIR] [--json FILE]

import { randomBytes, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdtemp, open, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock } from "../src/base/clock.ts";
import { silentLog } from "../src/base/log.ts";
import { systemRandom } from "../src/base/random.ts";
import { runCommand } from "../src/base/run-command.ts";
import { parseDiskId, parseMachineId, parsePointId, parseVaultId } from "../src/contract/ids.ts";
import { idOf } from "../src/disk/digest.ts";
import { openFileDisk } from "../src/disk/file-disk.ts";
import { blockBytes, granuleBytes } from "../src/disk/geometry.ts";
import { openDirectoryStore } from "../src/store/directory-store.ts";
import { openVault } from "../src/vault/open-vault.ts";
import type { PointWriter, Vault } from "../src/vault/vault.ts";

const { values } = parseArgs({
  options: { "size-mib": { type: "string", default: "1024" }, folder: { type: "string", default: tmpdir() }, json: { type: "string" } },
});
const sizeBytes = Number(values["size-mib"]) * 2 ** 20;
const diskId = parseDiskId("disk-1");
const machineId = parseMachineId(randomUUID());
const disks = [{ diskId, sizeBytes, isBoot: true, excluded: [] }];

/** Files of this system, one after the other, then zeros: three quarters content, one quarter empty. */
async function makeImage(path: string): Promise<void> {
  await using image = await open(path, "wx");
  const contentBytes = Math.floor(sizeBytes * 0.75);
  let written = 0;
  async function* files(folder: string): AsyncGenerator<string> {
    for (const entry of (await readdir(folder, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (entry.isDirectory()) yield* files(join(folder, entry.name));
      else if (entry.isFile()) yield join(folder, entry.name);
    }
  }
  for (const root of ["/usr/lib", "/usr/bin", "/usr/share", "/usr/sbin", "/var/cache/watari"])
    for await (const file of files(root)) {
      for await (const chunk of createReadStream(file)) {
        const part = (chunk as Buffer).subarray(0, contentBytes - written);
        await image.write(part, 0, part.length, written);
        written += part.length;
      }
      written += (granuleBytes - (written % granuleBytes)) % granuleBytes;
      if (written >= contentBytes) return await image.truncate(sizeBytes);
    }
  await image.truncate(sizeBytes);
}

interface Measured {
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
}

async function measure(task: () => Promise<void>): Promise<Measured> {
  const [before, start] = [process.cpuUsage(), performance.now()];
  await task();
  const used = process.cpuUsage(before);
  return { wallSeconds: (performance.now() - start) / 1000, cpuSeconds: (used.user + used.system) / 1e6 };
}

async function ingest(writer: PointWriter, path: string): Promise<void> {
  await using image = await openFileDisk(path, { access: "read" });
  const buffer = Buffer.allocUnsafe(4 << 20);
  for (let offset = 0; offset < sizeBytes; offset += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, sizeBytes - offset));
    await image.read(offset, part);
    const blocks = Array.from({ length: part.length / blockBytes }, (_, index) =>
      part.subarray(index * blockBytes, (index + 1) * blockBytes),
    );
    const ids = blocks.map(idOf);
    const firstBlock = offset / blockBytes;
    const needed = await writer.need(diskId, firstBlock, ids);
    await Promise.all(
      blocks.map(async (bytes, index) => {
        const id = ids[index] as Uint8Array;
        if (needed[index] === true) await writer.putBlock(diskId, firstBlock + index, id, bytes);
        else writer.setBlock(diskId, firstBlock + index, id);
      }),
    );
  }
}

async function patch(writer: PointWriter): Promise<void> {
  const granuleCount = sizeBytes / granuleBytes;
  const changed = new Map<number, Uint8Array>();
  for (let count = Math.floor(granuleCount / 100); count > 0; count--) {
    const granule = Math.floor(Math.random() * granuleCount);
    const text = Buffer.from(`line ${count} of a log that grows\n`.repeat(250).slice(0, granuleBytes));
    changed.set(granule, count % 2 === 0 ? randomBytes(granuleBytes) : text);
  }
  const rising = [...changed].sort(([one], [other]) => one - other);
  for (let from = 0; from < rising.length; from += 256) {
    const part = rising.slice(from, from + 256);
    const bytes = Buffer.concat(part.map((each) => each[1]));
    await writer.changeGranules(diskId, { granules: part.map(([granule]) => granule), bytes, packing: "raw" });
  }
}

async function makePoint(
  vault: Vault,
  parentPointId: ReturnType<typeof parsePointId> | undefined,
  fill: (writer: PointWriter) => Promise<void>,
) {
  const pointId = parsePointId(randomUUID());
  let storedBytes = 0;
  const measured = await measure(async () => {
    await using writer = await vault.beginPoint({ pointId, machineId, disks, ...(parentPointId === undefined ? {} : { parentPointId }) });
    await fill(writer);
    ({ storedBytes } = await writer.seal({ timeMs: systemClock.nowMs(), consistency: "crash" }));
  });
  return { pointId, storedBytes, ...measured };
}

const folder = await mkdtemp(join(values.folder, "watari-bench-"));
try {
  const path = join(folder, "image.raw");
  await makeImage(path);
  await runCommand("cat", [path, "/dev/null"], { outputBytesMax: 0 }); // Into the page cache, for both.
  const zstdStart = performance.now();
  await runCommand("zstd", ["-1", "-T0", "-q", "-f", path, "-o", join(folder, "image.zst")], { timeoutMs: 600_000 });
  const zstd = { wallSeconds: (performance.now() - zstdStart) / 1000, storedBytes: (await stat(join(folder, "image.zst"))).size };
  await using store = await openDirectoryStore(join(folder, "store"));
  await using vault = await openVault({
    store,
    vaultId: parseVaultId(randomUUID()),
    key: randomBytes(32),
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  });
  const initial = await makePoint(vault, undefined, async (writer) => await ingest(writer, path));
  const changes = await makePoint(vault, initial.pointId, patch);
  const readBack = await measure(async () => {
    await using disk = await vault.openDisk(changes.pointId, diskId);
    const buffer = Buffer.allocUnsafe(4 << 20);
    for (let offset = 0; offset < sizeBytes; offset += buffer.length)
      await disk.read(offset, buffer.subarray(0, Math.min(buffer.length, sizeBytes - offset)));
  });
  const mib = sizeBytes / 2 ** 20;
  const report = {
    sizeMib: mib,
    zstd,
    initial,
    changes,
    readBack,
    initialMibPerSecond: mib / initial.wallSeconds,
    initialWallPerZstdWall: initial.wallSeconds / zstd.wallSeconds,
    initialBytesPerZstdBytes: initial.storedBytes / zstd.storedBytes,
    storedPerChangedByte: changes.storedBytes / (sizeBytes / 100),
    readMibPerSecond: mib / readBack.wallSeconds,
    residentMib: process.memoryUsage().rss / 2 ** 20,
  };
  console.log(JSON.stringify(report, undefined, 2));
  if (values.json !== undefined) await writeFile(values.json, JSON.stringify(report));
} finally {
  await rm(folder, { recursive: true });
}
