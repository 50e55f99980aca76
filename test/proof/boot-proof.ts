// Lands real guests of every kind of disk layout on QEMU: from a vault's point, hydrated, booted and probed; prints the matrix.
// Run: npm run proof -- boot [--guest NAME] [--hydration] [--json]. --hydration boots nothing and measures only that. Needs root; builds each guest once, into the cache.

import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog as log } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import { Fault } from "../../src/contract/errors.ts";
import { parseDiskId, parseMachineId, parsePointId, parseVaultId, type DiskId } from "../../src/contract/ids.ts";
import { computeRoot } from "../../src/disk/compute-root.ts";
import { blockIdOf } from "../../src/disk/block-id.ts";
import { openFileDisk } from "../../src/disk/file-disk.ts";
import { blockBytes } from "../../src/disk/geometry.ts";
import { openQemuTarget } from "../../src/landing/qemu/qemu-target.ts";
import { openNbdServer } from "../../src/nbd/server.ts";
import { openDirectoryStore } from "../../src/store/directory-store.ts";
import { openVault } from "../../src/vault/open-vault.ts";
import type { PointWriter } from "../../src/vault/vault.ts";
import { buildGuests, guestDisks } from "./boot/build-guests.ts";
import { guestPort } from "./boot/guest-tree.ts";
import { answerOf, bootGuests, cardsOf, luksKey, type BootGuest } from "./boot/guests.ts";
import { measureHydration } from "./boot/measure-hydration.ts";

const bootSecondsMax = 600;
const pieceBytes = 4 << 20;
const { values } = parseArgs({
  options: {
    guest: { type: "string", multiple: true },
    json: { type: "boolean" },
    quick: { type: "boolean" },
    hydration: { type: "boolean" },
  },
});
const cacheFolder = process.env["WATARI_CACHE"] ?? "/var/cache/watari";
const say = (line: string): void => void process.stderr.write(`${line}\n`);

interface Row {
  readonly guest: string;
  readonly changes: readonly string[];
  readonly hydrationSeconds: number;
  /** From order to answer. */
  readonly bootSeconds: number;
  readonly probe: string;
  readonly hasEqualRoots: boolean;
  readonly isRight: boolean;
}

/** Puts a guest's disks into a vault, as a replication does, and lands the machine from the point. */
async function prove(guest: BootGuest): Promise<Row> {
  const folder = await mkdtemp(join(tmpdir(), "wb-"));
  try {
    await using store = await openDirectoryStore(join(folder, "store"));
    const vaultParts = { vaultId: parseVaultId(randomUUID()), key: randomBytes(32), clock, random: systemRandom, log };
    await using vault = await openVault({ store, ...vaultParts });
    const [pointId, machineId] = [parsePointId(randomUUID()), parseMachineId(randomUUID())];
    const paths = guestDisks(cacheFolder, guest);
    await using opened = new AsyncDisposableStack();
    const files = await Promise.all(paths.map(async (path) => opened.use(await openFileDisk(path, { access: "read" }))));
    const disks = files.map(({ sizeBytes }, index) => ({
      diskId: parseDiskId(`disk-${index}`),
      sizeBytes,
      isBoot: index === 0,
      excluded: [],
    }));
    {
      await using writer = await vault.beginPoint({ pointId, machineId, disks });
      for (const [index, file] of files.entries()) await ingest(writer, disks[index]?.diskId ?? parseDiskId("none"), file);
      await writer.seal({ timeMs: clock.nowMs(), consistency: "final" });
    }
    const contents = await Promise.all(disks.map(async ({ diskId }) => opened.use(await vault.openDisk(pointId, diskId))));
    const point = await vault.point(pointId);
    const roots = await Promise.all(files.map(async (file) => await computeRoot(file)));
    const hasEqualRoots = roots.every((root, index) => point?.disks[index]?.root === root);
    const landing = disks.map((disk, index) => ({ ...disk, content: contents[index] }));
    await using target = await openQemuTarget({
      ...{ stateFolder: join(folder, "t"), cacheFolder, networks: {}, clock, log, stopMsMax: 1_000 },
      exportDisk: async (content, { socketPath, exportName }) =>
        await openNbdServer({
          ...{ listen: { kind: "unix", path: socketPath }, clock, log },
          exports: [{ name: exportName, access: "read-only", disk: content }],
        }),
    });
    const commands = target.under({ kind: "job", fence: 1 });
    const startedMs = clock.monotonicMs();
    try {
      const { hydration } = await commands.launch({
        ...{ name: guest.name, cpuCount: 2, memoryBytes: 1024 * 2 ** 20, firmware: guest.firmware, network: { kind: "isolated" } },
        disks: landing.flatMap(({ diskId, isBoot, content }) => (content === undefined ? [] : [{ diskId, isBoot, content }])),
        nics: cardsOf(guest).map(({ mac, guestName, address }) => ({ mac, guestName, address })),
        hasSerialConsole: true,
        ...(guest.layout === "luks" ? { unlockKeys: [Buffer.from(luksKey)] } : {}),
      });
      const outcome = await target.probe(guest.name, { port: guestPort, path: "/index.html" }, bootSecondsMax);
      const bootSeconds = (clock.monotonicMs() - startedMs) / 1000;
      const isAnswer = outcome.kind === "answered" && outcome.body?.trim() === answerOf(guest);
      const probe = isAnswer ? "answers" : outcome.kind === "answered" ? "answers something else" : outcome.reason;
      return {
        ...{ guest: guest.name, changes: hydration.changes, hydrationSeconds: hydration.seconds, bootSeconds, probe, hasEqualRoots },
        isRight: isAnswer && hasEqualRoots,
      };
    } finally {
      await commands.remove(guest.name);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function ingest(writer: PointWriter, diskId: DiskId, disk: Awaited<ReturnType<typeof openFileDisk>>): Promise<void> {
  for (let offset = 0; offset < disk.sizeBytes; offset += pieceBytes) {
    const part = Buffer.alloc(Math.min(pieceBytes, disk.sizeBytes - offset));
    await disk.read(offset, part);
    const blocks = Array.from({ length: Math.ceil(part.length / blockBytes) }, (_, index) =>
      part.subarray(index * blockBytes, (index + 1) * blockBytes),
    );
    const ids = blocks.map((block) => blockIdOf(block));
    const firstBlock = offset / blockBytes;
    const needed = await writer.need(diskId, firstBlock, ids);
    for (const [index, bytes] of blocks.entries()) {
      const id = ids[index];
      if (id === undefined) continue;
      if (needed[index] === true) await writer.putBlock(diskId, firstBlock + index, id, bytes);
      else writer.setBlock(diskId, firstBlock + index, id);
    }
  }
}

function failed(guest: BootGuest, error: unknown): Row {
  const probe = error instanceof Fault ? `${error.message} ${JSON.stringify(error.evidence)}` : String(error);
  return { guest: guest.name, changes: [], hydrationSeconds: 0, bootSeconds: 0, probe, hasEqualRoots: false, isRight: false };
}

const chosen =
  values.quick === true
    ? bootGuests.slice(0, 2)
    : bootGuests.filter(({ name }) => values.guest === undefined || values.guest.includes(name));
if (process.getuid?.() !== 0 || chosen.length === 0) {
  say(
    chosen.length === 0
      ? `there is no such guest; there are: ${bootGuests.map(({ name }) => name).join(", ")}`
      : "cannot run here: needs root",
  );
  process.exit(2);
}
await buildGuests(cacheFolder, chosen, say);
if (values.hydration === true) {
  for (const guest of chosen) for (const line of await measureHydration(cacheFolder, guest)) say(line);
  process.exit(0);
}
const rows: Row[] = [];
for (const guest of chosen) {
  const row = await prove(guest).catch((error: unknown) => failed(guest, error));
  rows.push(row);
  for (const change of row.changes) say(`    ${change}`);
  const figures = `hydration ${row.hydrationSeconds.toFixed(1)} s, order to answer ${row.bootSeconds.toFixed(1)} s`;
  say(
    `${row.isRight ? "✔" : "✖"} ${row.guest}: ${row.changes.length} changes, ${figures}, roots ${row.hasEqualRoots ? "equal" : "not compared"}, ${row.probe}`,
  );
}
say(`${rows.filter(({ isRight }) => isRight).length} of ${rows.length} guests landed`);
if (values.json === true) process.stdout.write(`${JSON.stringify({ rows }, undefined, 2)}\n`);
process.exitCode = rows.every(({ isRight }) => isRight) ? 0 : 1;
