// The disks of a landed machine at one moment, for reading: beside the guest that runs on, or at rest when it is off.

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { runCommand, tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import type { ByteRange } from "../../disk/excluded-disk.ts";
import { openFileDisk } from "../../disk/file-disk.ts";
import { detachUnder, openRawView } from "../hydration/raw-view.ts";
import type { HelperImage } from "../helper/helper-image.ts";
import type { LandedDisk, LandedDisks, LandedReading } from "../target.ts";
import { makeSourceClones, restingGraph, type SourceClones } from "./source-clones.ts";
import { exportNameOf, qcow2Node } from "./emulator.ts";
import type { Machine } from "./machine.ts";
import { hasSoundBitmap, writesBitmap } from "./overlay.ts";
import { killProcess } from "./process-identity.ts";
import type { Qmp } from "./qmp.ts";

export interface LandedDisksOptions extends LandedReading {
  readonly clock: Clock;
  /** Asked for when a guest's volumes need the helper machine; absent: such guests cannot be made ready for their source. */
  readonly helperImage?: () => Promise<HelperImage>;
}

/** Lives as long as the view; it says what was written up to the moment. */
const momentBitmap = "watari-moment";
const viewNode = (index: number): string => `view${index}`;
const jobPollMs = 20;
const jobEndMsMax = 30_000;
/** More ranges than these are told as unknown: reading all is then not much more. */
const mapBytesMax = 32 << 20;

/**
 * While it runs: what the guest overwrites is copied aside first (a backup job that copies nothing by itself), for all disks from the same
 * moment. NOTE: when the host has no room for such a copy, the guest's write fails and the guest stops, as it does when its overlay finds no room.
 */
export async function openLandedDisks(machine: Machine, options: LandedDisksOptions): Promise<LandedDisks> {
  await clearView(machine, options);
  if ((await machine.dependencies()).includes(true))
    throw new Fault("StateConflict", `could not read the disks of machine ${machine.record.name}: it still depends on its recovery point`, {
      action: "wait until it is filled",
    });
  await mkdir(machine.paths.viewFolder, { recursive: true, mode: 0o700 });
  await using opening = new AsyncDisposableStack();
  opening.defer(async () => await clearView(machine, options));
  const timeMs = options.clock.nowMs();
  const isRunning = (await machine.findEmulator()) !== undefined;
  if (isRunning && options.shape === "forSource")
    throw new Fault("StateConflict", `could not make the disks of machine ${machine.record.name} ready for its source: it runs`);
  const sound = isRunning ? await beginMoment(machine) : await soundBitmaps(machine);
  const clones = options.shape === "forSource" ? await makeSourceClones(machine, options) : undefined;
  const view = opening.use(await openView(machine, { ...options, sound, isRunning, clones }));
  const disks: LandedDisk[] = [];
  for (const [index, { diskId, isBoot, sizeBytes }] of machine.record.disks.entries()) {
    const content = opening.use(await openFileDisk(view.paths[index] ?? "", { access: "read" }));
    if (content.sizeBytes !== sizeBytes)
      throw new Fault("DataDamaged", `could not read the disks of machine ${machine.record.name}: a disk has another size`, {
        evidence: { diskId, sizeBytes: content.sizeBytes, expectedBytes: sizeBytes },
      });
    // The bitmap is the landed disk's: of a clone nothing is known.
    const isKnown = sound[index] === true && clones === undefined;
    const bitmap = isRunning ? momentBitmap : writesBitmap;
    disks.push({ diskId, isBoot, content, written: isKnown ? await readBitmap(machine, index, bitmap) : "unknown" });
  }
  const closing = opening.move();
  return {
    disks,
    timeMs,
    isAtRest: !isRunning,
    undone: clones?.undone ?? [],
    [Symbol.asyncDispose]: async () => await closing.disposeAsync(),
  };
}

async function soundBitmaps(machine: Machine): Promise<readonly boolean[]> {
  return await Promise.all(machine.record.disks.map(async (_, index) => await hasSoundBitmap(machine.paths.overlay(index))));
}

/** The daemon has the overlays open while they are read, so that no emulator can start on them. */
async function openView(
  { record, paths }: Machine,
  given: LandedDisksOptions & {
    readonly sound: readonly boolean[];
    readonly isRunning: boolean;
    readonly clones: SourceClones | undefined;
  },
) {
  const { sound, isRunning, clones, clock, signal } = given;
  const server = { type: "unix", path: paths.viewSocket };
  const live = (index: number) => ({
    nodes: [{ driver: "nbd", server, export: exportNameOf(index), "read-only": true, "node-name": viewNode(index) }],
    topNode: viewNode(index),
  });
  const resting = (index: number) => restingGraph(paths, { index, topNode: viewNode(index), clone: clones?.paths[index] });
  const graphs = record.disks.map((_, index) => (isRunning ? live(index) : resting(index)));
  const bitmapServer =
    isRunning || clones !== undefined
      ? []
      : [
          ...["--nbd-server", JSON.stringify({ addr: server })],
          ...record.disks.flatMap((_, index) => ["--export", JSON.stringify(exportOf(index, sound[index] === true ? [writesBitmap] : []))]),
        ];
  return await openRawView({
    graphs,
    access: "read",
    moreArgs: bitmapServer,
    folder: paths.viewFolder,
    clock,
    ...(signal === undefined ? {} : { signal }),
  });
}

function exportOf(index: number, bitmaps: readonly unknown[]): object {
  return { type: "nbd", id: `bits${index}`, "node-name": viewNode(index), name: exportNameOf(index), bitmaps };
}

const jobsShape = z.array(z.object({ device: z.string() }));
const nodesShape = z.array(
  z.object({
    "node-name": z.string().optional(),
    "dirty-bitmaps": z
      .array(z.object({ name: z.string().optional(), recording: z.boolean(), inconsistent: z.boolean().optional() }))
      .optional(),
  }),
);

/** Begins the moment in the running emulator, and serves it; answers whose bitmap tells of every write. */
async function beginMoment(machine: Machine): Promise<readonly boolean[]> {
  const { paths, record } = machine;
  await using qmp = await machine.openQmp();
  if (qmp === undefined) throw ended(machine);
  const nodes = nodesShape.parse(await qmp.execute("query-named-block-nodes", { flat: true }));
  const sound = record.disks.map((_, index) =>
    (nodes.find((node) => node["node-name"] === qcow2Node(index))?.["dirty-bitmaps"] ?? []).some(
      ({ name, recording, inconsistent = false }) => name === writesBitmap && recording && !inconsistent,
    ),
  );
  const actions: object[] = [];
  for (const [index, { sizeBytes }] of record.disks.entries()) {
    const aside = join(paths.viewFolder, `aside-${index}.qcow2`);
    await runCommand("qemu-img", ["create", "-q", "-f", "qcow2", aside, String(sizeBytes)]);
    const file = { driver: "file", filename: aside, discard: "unmap" };
    await qmp.execute("blockdev-add", { driver: "qcow2", file, backing: qcow2Node(index), "node-name": viewNode(index) });
    if (sound[index] === true) {
      const node = qcow2Node(index);
      actions.push(
        { type: "block-dirty-bitmap-add", data: { node, name: momentBitmap, disabled: true } },
        { type: "block-dirty-bitmap-merge", data: { node, target: momentBitmap, bitmaps: [writesBitmap] } },
      );
    }
    const data = { "job-id": viewNode(index), device: qcow2Node(index), target: viewNode(index), sync: "none" };
    actions.push({ type: "blockdev-backup", data });
  }
  await qmp.execute("transaction", { actions });
  await qmp.execute("nbd-server-start", { addr: { type: "unix", data: { path: paths.viewSocket } } });
  for (const index of record.disks.keys()) {
    const bitmaps = sound[index] === true ? [{ node: qcow2Node(index), name: momentBitmap }] : [];
    await qmp.execute("block-export-add", exportOf(index, bitmaps) as Record<string, unknown>);
  }
  return sound;
}

/** Ends a view, whole or begun, also one of a process before this; nothing to do where there is none. */
async function clearView(machine: Machine, { clock }: LandedDisksOptions): Promise<void> {
  const { paths } = machine;
  await killProcess(join(paths.viewFolder, "storage-daemon.pid"), machine.mark, clock);
  await detachUnder(paths.viewFolder);
  {
    await using qmp = await machine.openQmp();
    if (qmp !== undefined) await endMoment(machine, qmp, clock);
  }
  await rm(paths.viewSocket, { force: true });
  await rm(paths.viewFolder, { recursive: true, force: true });
}

async function endMoment(machine: Machine, qmp: Qmp, clock: Clock): Promise<void> {
  const indexes = [...machine.record.disks.keys()];
  const nodes = nodesShape.parse(await qmp.execute("query-named-block-nodes", { flat: true }));
  const running = async () => jobsShape.parse(await qmp.execute("query-block-jobs")).filter(({ device }) => device.startsWith("view"));
  if (nodes.some((node) => node["node-name"]?.startsWith("view"))) await stopServing(qmp);
  for (const { device } of await running()) await qmp.execute("block-job-cancel", { device, force: true });
  const endsAtMs = clock.monotonicMs() + jobEndMsMax;
  while ((await running()).length > 0) {
    if (clock.monotonicMs() > endsAtMs)
      throw new Fault("LandingFailed", `could not end the reading of machine ${machine.record.name}: its copies aside do not end`);
    await clock.sleep(jobPollMs);
  }
  for (const index of indexes) {
    const bitmaps = nodes.find((node) => node["node-name"] === qcow2Node(index))?.["dirty-bitmaps"] ?? [];
    if (bitmaps.some(({ name }) => name === momentBitmap))
      await qmp.execute("block-dirty-bitmap-remove", { node: qcow2Node(index), name: momentBitmap });
    if (nodes.some((node) => node["node-name"] === viewNode(index))) await qmp.execute("blockdev-del", { "node-name": viewNode(index) });
  }
}

/** All exports end with the server. */
async function stopServing(qmp: Qmp): Promise<void> {
  try {
    await qmp.execute("nbd-server-stop");
  } catch (error) {
    if (!(error instanceof Fault)) throw error; // It was never started: a view that broke off before.
  }
}

const mapShape = z.array(z.object({ start: z.number(), length: z.number(), data: z.boolean() }));

/** QEMU's own client reads the bitmap: what is dirty it tells as a hole, `data: false`. */
async function readBitmap(machine: Machine, index: number, bitmap: string): Promise<readonly ByteRange[] | "unknown"> {
  const path = machine.paths.viewSocket.replaceAll(",", ",,");
  const source = `driver=nbd,server.type=unix,server.path=${path},export=${exportNameOf(index)},x-dirty-bitmap=qemu:dirty-bitmap:${bitmap}`;
  const { exitCode, stdout, stderr } = await tryCommand("qemu-img", ["map", "--output=json", "--image-opts", source], {
    outputBytesMax: mapBytesMax,
  });
  if (exitCode !== 0)
    throw new Fault("LandingFailed", `could not read what was written to machine ${machine.record.name}`, {
      evidence: { output: stderr.slice(-1000) },
    });
  if (stdout.length >= mapBytesMax) return "unknown";
  return mapShape.parse(JSON.parse(stdout)).flatMap(({ start, length, data }) => (data ? [] : [{ offset: start, length }]));
}

function ended({ record }: Machine): Fault {
  return new Fault("LandingFailed", `could not read the disks of machine ${record.name}: its emulator ended`, { retry: "later" });
}
