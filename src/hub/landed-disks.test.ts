// What a guest writes is tracked through fill, restart and stop, is read as of one moment, and is never trusted after a power cut.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { Fault } from "../contract/errors.ts";
import { parseAreaId, parseDiskId } from "../contract/ids.ts";
import { computeRoot } from "../disk/compute-root.ts";
import { blockBytes } from "../disk/geometry.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import { openNbdServer } from "../nbd/server.ts";
import type { Disk } from "../disk/disk.ts";
import type { ExportDisk, LandedDisk, LandedDisks, LandingDisk } from "../landing/target.ts";
import { fillMachine } from "../landing/qemu/fill.ts";
import { openLandedDisks } from "../landing/qemu/landed-disks.ts";
import { writeRecord, type MachineRecord } from "../landing/qemu/machine-record.ts";
import { Machine } from "../landing/qemu/machine.ts";
import { writingGuestDone, writingGuestSector, writtenBlocks } from "../landing/qemu/writing-guest.ts";

import { MemoryStore } from "../store/memory-store.ts";
import { newMachine, newPoint, openTestVault, sealFacts, sendAll } from "../vault/test-vault.ts";
import type { RecoveryPoint, Vault, VaultReader } from "../vault/vault.ts";
import { openAuthority } from "./pki/authority.ts";
import { createDocumentSigner } from "./pki/document-signer.ts";
import { copyLanded } from "./replication/copy-landed.ts";
import { applyDelta } from "./reverse/apply-delta.ts";
import { writeDelta } from "./reverse/write-delta.ts";

const clock = systemClock;
const sizeBytes = 16 << 20;
const guest = { firstOffset: 1 << 20, strideBytes: 512 << 10, writeCount: 16 };
const waitMsMax = 60_000;

const missing = ["qemu-system-x86_64", "qemu-storage-daemon", "qemu-img"].filter((each) => spawnSync(each, ["--version"]).status !== 0);
const skip =
  missing.length > 0 ? `not installed: ${missing.join(" ")}` : spawnSync("test", ["-w", "/dev/fuse"]).status === 0 ? false : "no /dev/fuse";

const gateOffset = 4 << 20;

interface Landed {
  readonly machine: Machine;
  readonly content: Uint8Array;
  readonly disks: readonly LandingDisk[];
  /** The guest's first write behind the gate waits for the rest of its cluster. */
  readonly gateReached: Promise<void>;
  readonly openGate: () => void;
}

async function landWriter(stateFolder: string): Promise<Landed> {
  const content = new Uint8Array(sizeBytes).fill(0x5a, 4096);
  content.set(writingGuestSector(guest));
  const diskId = parseDiskId("boot");
  const record: MachineRecord = {
    ...{ version: 1, state: "landed", name: "writer", cpuCount: 1, memoryBytes: 64 << 20, firmware: "bios" },
    ...{ disks: [{ diskId, isBoot: true, sizeBytes }], nics: [], network: { kind: "isolated" }, tracksWrites: true },
    hydration: { seconds: 0, changes: [] },
  };
  await mkdir(join(stateFolder, "s"), { recursive: true });
  const exportDisk: ExportDisk = async (disk, { socketPath, exportName }) =>
    await openNbdServer({
      listen: { kind: "unix", path: socketPath },
      exports: [{ name: exportName, access: "read-only", disk }],
      ...{ clock, log: silentLog },
    });
  const helperImage = async (): Promise<never> => await Promise.reject(new Error("nothing is hydrated here"));
  const around = { stateFolder, networks: {}, accelerator: "tcg", clock, served: new Map(), exportDisk, helperImage } as const;
  const machine = new Machine(record, around);
  await mkdir(machine.paths.folder, { recursive: true });
  await writeRecord(machine.paths, record);
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const plain = new MemoryDisk(content);
  const gated: Disk = {
    sizeBytes,
    read: async (offset, into, signal) => {
      if (offset + into.length > gateOffset) {
        reached.resolve();
        await gate.promise;
      }
      await plain.read(offset, into, signal);
    },
    extents: async (offset, length) => [{ offset, length, kind: "data" }],
    [Symbol.asyncDispose]: async () => undefined,
  };
  const disks = [{ diskId, isBoot: true, content: gated }];
  return { machine, content, disks, gateReached: reached.promise, openGate: gate.resolve };
}

async function untilWritten(machine: Machine, times: number): Promise<void> {
  const endsAtMs = clock.monotonicMs() + waitMsMax;
  for (;;) {
    const said = await readFile(machine.paths.serial, "utf8").catch(() => "");
    if (said.split(writingGuestDone).length > times) return;
    if (clock.monotonicMs() > endsAtMs) throw new Error(`the guest did not write: ${await machine.lastWords()}`);
    await clock.sleep(20);
  }
}

/** Blocks of 64 KiB. */
function blocksOf({ written }: LandedDisk): readonly number[] | "unknown" {
  if (written === "unknown") return written;
  return written.flatMap(({ offset, length }) => Array.from({ length: length / 65_536 }, (_, index) => offset / 65_536 + index));
}

async function assertContent({ content: disk }: LandedDisk, before: Uint8Array): Promise<void> {
  const expected = Buffer.from(before);
  const sector = writingGuestSector(guest);
  const read = Buffer.alloc(sizeBytes);
  await disk.read(0, read);
  for (const [index, block] of writtenBlocks(guest).entries()) {
    const at = block * 65_536;
    // The guest counts in the sector that it writes.
    expected.set(read.subarray(at, at + 512), at);
    assert.deepEqual(read.subarray(at, at + 0x50), sector.subarray(0, 0x50), `write ${index}`);
  }
  assert.equal(Buffer.compare(read, expected), 0, "all else is the point's");
}

describe("openLandedDisks", { skip }, () => {
  it("reads what the guest wrote while it runs, filled or restarted, and trusts no bitmap after a power cut", async () => {
    const folder = await mkdtemp(join(tmpdir(), "watari-landed-"));
    const { machine, content, disks, gateReached, openGate } = await landWriter(folder);
    try {
      await machine.exportContents(disks);
      await machine.createOverlays();
      await machine.startEmulator();
      // Some writes come before the fill, which then meets their blocks; the others go on beside it.
      await gateReached;
      const filling = fillMachine(machine, { clock, onProgress: () => undefined });
      openGate();
      await untilWritten(machine, 1);
      await filling;
      const expected = writtenBlocks(guest);
      {
        // As a process leaves it that was killed while it read: the next call clears it away.
        const left = await openLandedDisks(machine, { clock });
        assert.equal(left.isAtRest, false);
        assert.deepEqual(left.disks.map(blocksOf), [expected], "the fill neither marks blocks nor hides them");
        for (const disk of left.disks) await disk.content[Symbol.asyncDispose]();
      }
      {
        await using live = await openLandedDisks(machine, { clock });
        assert.deepEqual(live.disks.map(blocksOf), [expected]);
        for (const disk of live.disks) await assertContent(disk, content);
      }
      await tellQuit(machine);
      {
        await using rest = await openLandedDisks(machine, { clock });
        assert.equal(rest.isAtRest, true);
        assert.deepEqual(rest.disks.map(blocksOf), [expected], "the bitmap is in the overlay's file");
        for (const disk of rest.disks) await assertContent(disk, content);
        await assert.rejects(machine.startEmulator(), Fault, "nobody writes while it is read at rest");
      }
      await machine.startEmulator();
      await untilWritten(machine, 2);
      await machine.kill();
      {
        await using cut = await openLandedDisks(machine, { clock });
        assert.deepEqual(cut.disks.map(blocksOf), ["unknown"]);
        for (const disk of cut.disks) await assertContent(disk, content);
      }
      await machine.startEmulator();
      await untilWritten(machine, 3);
      await using again = await openLandedDisks(machine, { clock });
      assert.deepEqual(again.disks.map(blocksOf), ["unknown"], "what was lost is not believed later");
    } finally {
      openGate();
      await machine.erase();
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describe("the way back on QEMU", { skip }, () => {
  it("gives the old source, on its own hardware, what the landed machine wrote, and reads no more than that", async () => {
    const folder = await mkdtemp(join(tmpdir(), "watari-back-"));
    const { machine, content, disks, openGate } = await landWriter(folder);
    try {
      await using store = new MemoryStore();
      await using site = await openTestVault(store);
      await using host = await openTestVault(store, { areaId: parseAreaId(randomUUID()) });
      const basis = await sealSource(site, content);
      openGate();
      await machine.exportContents(disks);
      await machine.createOverlays();
      await machine.startEmulator();
      await untilWritten(machine, 1);
      await fillMachine(machine, { clock, onProgress: () => undefined });
      await tellQuit(machine);
      await using landed = await openLandedDisks(machine, { clock });
      const { point, readBytes } = await sealLanded(host, landed, basis);
      assert.equal(readBytes, guest.writeCount * blockBytes);
      const source = join(folder, "source.raw");
      await writeFile(source, content);
      await applyPoint(host, { folder, basis, point, source });
      const read = Buffer.alloc(sizeBytes);
      await landed.disks[0]?.content.read(0, read);
      assert.equal(Buffer.compare(await readFile(source), read), 0);
      await bootsOnVmware(folder, source);
    } finally {
      openGate();
      await machine.erase();
      await rm(folder, { recursive: true, force: true });
    }
  });
});

const writerDisk = { diskId: parseDiskId("boot"), sizeBytes, isBoot: true, excluded: [] };

async function sealSource(vault: Vault, content: Uint8Array): Promise<RecoveryPoint> {
  await using writer = await vault.beginPoint({ pointId: newPoint(), machineId: newMachine(), disks: [writerDisk] });
  await sendAll(writer, Buffer.from(content), writerDisk.diskId);
  return (await writer.seal(sealFacts)).point;
}

async function sealLanded(
  vault: Vault,
  { disks }: LandedDisks,
  { machineId, pointId: parentPointId }: RecoveryPoint,
): Promise<{ readonly point: RecoveryPoint; readonly readBytes: number }> {
  const [disk] = disks;
  assert.ok(disk !== undefined);
  await using writer = await vault.beginPoint({ pointId: newPoint(), machineId, parentPointId, disks: [writerDisk] });
  const { readBytes } = await copyLanded(writer, disk, { onRead: () => undefined, signal: new AbortController().signal });
  const root = await computeRoot(disk.content);
  const { point } = await writer.seal({ ...sealFacts, expectedRoots: [{ diskId: disk.diskId, root }] });
  return { point, readBytes };
}

async function applyPoint(
  reader: VaultReader,
  {
    folder,
    basis,
    point,
    source,
  }: { readonly folder: string; readonly basis: RecoveryPoint; readonly point: RecoveryPoint; readonly source: string },
): Promise<void> {
  const authority = await openAuthority({ folder: join(folder, "pki"), clock, random: systemRandom });
  const signer = createDocumentSigner({ authority, clock });
  const { signal } = new AbortController();
  const wish = { basis, point, vaultId: "v", itemId: "i", machineName: "writer", path: join(folder, "delta") };
  const sign = async (type: string, document: object): Promise<string> => await signer.sign(type, document);
  await writeDelta(wish, { reader, sign, onProgress: () => undefined, signal });
  const diskPaths = new Map([["boot", source]]);
  await applyDelta({ deltaPath: wish.path, caPem: authority.caPem, diskPaths, undoPath: join(folder, "undo"), signal });
}

/** A pvscsi controller, as the source had it. */
async function bootsOnVmware(folder: string, source: string): Promise<void> {
  const serial = join(folder, "source.log");
  const machine = ["-nodefaults", "-machine", "pc", "-accel", "tcg", "-m", "64M", "-display", "none"];
  const disk = ["-device", "pvscsi", "-drive", `if=none,id=d,format=raw,file=${source}`, "-device", "scsi-hd,drive=d"];
  const emulator = spawn("qemu-system-x86_64", [...machine, ...disk, "-serial", `file:${serial}`], { stdio: "ignore" });
  const exited = once(emulator, "exit");
  try {
    const endsAtMs = clock.monotonicMs() + waitMsMax;
    while (!(await readFile(serial, "utf8").catch(() => "")).includes(writingGuestDone)) {
      assert.ok(clock.monotonicMs() < endsAtMs && emulator.exitCode === null, "the source boots");
      await clock.sleep(20);
    }
  } finally {
    emulator.kill("SIGKILL");
    await exited;
  }
}

async function tellQuit(machine: Machine): Promise<void> {
  {
    await using qmp = await machine.openQmp();
    await qmp?.execute("quit");
  }
  while ((await machine.findEmulator()) !== undefined) await clock.sleep(20);
}
