// Makes a clone ready for Azure before it is uploaded, and keeps it, so that an upload that was killed goes on with the same bytes.

import { access, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Clock } from "../../base/clock.ts";
import { runCommand } from "../../base/run-command.ts";
import type { Disk, Extent } from "../../disk/disk.ts";
import { openFileDisk } from "../../disk/file-disk.ts";
import type { HelperImage } from "../helper/helper-image.ts";
import type { DriverPlans } from "../hydration/driver-plans.ts";
import { hydrate } from "../hydration/hydrate.ts";
import { hyperVHardware } from "../hydration/hyper-v.ts";
import { detachUnder, openRawView } from "../hydration/raw-view.ts";
import { blockGraph, exportNameOf, qcow2Node } from "../qemu/emulator.ts";
import type { MachinePaths } from "../qemu/machine-record.ts";
import { createOverlay } from "../qemu/overlay.ts";
import type { ExportDisk, HydrationReport, LandingDisk, LandingNic } from "../target.ts";

export interface PreparedDisk {
  /** As it is to stand in Azure. */
  readonly content: Disk;
  /** As it is at the recovery point. */
  readonly point: Disk;
  /** Whether hydration may have changed anything of a range; "true" may be said of what is the same, never the reverse. */
  isChanged(offset: number, length: number): boolean;
}

export interface PreparedDisks extends AsyncDisposable {
  readonly disks: readonly PreparedDisk[];
  readonly hydration: HydrationReport;
}

export interface PrepareWish {
  /** Where the clone is kept; the same ones after a restart. */
  readonly paths: MachinePaths;
  readonly disks: readonly LandingDisk[];
  readonly nics: readonly LandingNic[];
  readonly hasSerialConsole?: boolean;
  readonly unlockKeys?: readonly Uint8Array[];
  readonly signal?: AbortSignal;
}

/** May be called again after any failure or kill: a clone that was hydrated is answered as it is. */
export type PrepareDisks = (wish: PrepareWish) => Promise<PreparedDisks>;

/** Addresses of cards are Azure's own, so a card is known by its driver. */
const azureHardware = { ...hyperVHardware, hasOwnAddresses: true };

const hydrationShape = z.object({ seconds: z.number(), changes: z.array(z.string()) });

interface PreparerParts {
  readonly exportDisk: ExportDisk;
  readonly clock: Clock;
  /** As of hydration: asked for only when the guest needs the helper machine. */
  readonly helperImage?: () => Promise<HelperImage>;
  readonly plans?: DriverPlans;
}

export function createPreparer(parts: PreparerParts): PrepareDisks {
  return async (wish) => {
    const { paths, disks } = wish;
    await using opening = new AsyncDisposableStack();
    await mkdir(paths.folder, { recursive: true, mode: 0o700 });
    await detachUnder(paths.folder); // A program that was killed leaves its view of the clone.
    await mkdir(join(paths.nbdSocket(0), ".."), { recursive: true, mode: 0o700 });
    for (const [index, { content }] of disks.entries()) {
      await rm(paths.nbdSocket(index), { force: true });
      opening.use(await parts.exportDisk(content, { socketPath: paths.nbdSocket(index), exportName: exportNameOf(index) }));
    }
    const donePath = join(paths.folder, "hydrated.json");
    if (!(await isThere(donePath))) await hydrateClone(wish, parts, donePath);
    const hydration = hydrationShape.parse(JSON.parse(await readFile(donePath, "utf8")));
    const changes = await Promise.all(disks.map(async (_, index) => await changedExtents(paths.overlay(index))));
    await mkdir(paths.scratch, { recursive: true, mode: 0o700 });
    const view = opening.use(await openRawView({ ...viewOf(wish), clock: parts.clock }));
    const prepared: PreparedDisk[] = [];
    for (const [index, { content: point }] of disks.entries()) {
      const merged = opening.use(await openFileDisk(view.paths[index] ?? "", { access: "read" }));
      prepared.push(toPrepared(point, merged, changes[index] ?? []));
    }
    const closing = opening.move();
    return { disks: prepared, hydration, [Symbol.asyncDispose]: async () => await closing.disposeAsync() };
  };
}

function viewOf({ paths, disks, signal }: PrepareWish) {
  const graphs = disks.map((_, index) => ({ nodes: blockGraph(paths, index, true), topNode: qcow2Node(index) }));
  return { graphs, folder: paths.scratch, ...(signal === undefined ? {} : { signal }) };
}

/** A clone that a crash left half hydrated is made anew; the journals of its upload go first, because they tell of its bytes. */
async function hydrateClone(wish: PrepareWish, { clock, helperImage, plans }: PreparerParts, donePath: string): Promise<void> {
  const { paths, disks, nics, hasSerialConsole = false, unlockKeys = [], signal } = wish;
  await rm(join(paths.folder, "journals"), { recursive: true, force: true });
  for (const [index, { content }] of disks.entries()) {
    await rm(paths.overlay(index), { force: true });
    const uri = `nbd+unix:///${exportNameOf(index)}?socket=${paths.nbdSocket(index)}`;
    await createOverlay(paths.overlay(index), { uri, sizeBytes: content.sizeBytes });
  }
  await rm(paths.scratch, { recursive: true, force: true });
  await mkdir(paths.scratch, { recursive: true, mode: 0o700 });
  const startedMs = clock.monotonicMs();
  let changes: readonly string[];
  {
    await using view = await openRawView({ ...viewOf(wish), clock });
    const bootDiskIndex = disks.findIndex(({ isBoot }) => isBoot);
    const known = { ...(helperImage === undefined ? {} : { helperImage }), ...(plans === undefined ? {} : { plans }) };
    const common = { clock, ...known, ...(signal === undefined ? {} : { signal }) };
    const guest = { imagePaths: view.paths, bootDiskIndex, hardware: azureHardware, scratchFolder: paths.scratch };
    const given = { ...guest, nics, hasSerialConsole, unlockKeys };
    ({ changes } = await hydrate({ ...given, ...common }));
  }
  await rm(paths.scratch, { recursive: true });
  for (const index of disks.keys()) await flush(paths.overlay(index));
  await writeFileAtomic(donePath, `${JSON.stringify({ seconds: (clock.monotonicMs() - startedMs) / 1000, changes })}\n`);
}

async function flush(path: string): Promise<void> {
  await using file = await openFileDisk(path, { access: "write" });
  await file.flush();
}

const mapShape = z.array(z.object({ start: z.number(), length: z.number(), present: z.boolean() }));

/** What stands in the overlay itself. */
async function changedExtents(path: string): Promise<readonly Pick<Extent, "offset" | "length">[]> {
  const alone = { driver: "qcow2", file: { driver: "file", filename: path }, backing: null };
  const { stdout } = await runCommand("qemu-img", ["map", "-U", "--output=json", `json:${JSON.stringify(alone)}`]);
  const mapped = mapShape.parse(JSON.parse(stdout));
  return mapped.filter(({ present }) => present).map(({ start, length }) => ({ offset: start, length }));
}

/** What was not touched is read from the recovery point itself. */
function toPrepared(point: Disk, merged: Disk, changes: readonly Pick<Extent, "offset" | "length">[]): PreparedDisk {
  const isChanged = (offset: number, length: number): boolean =>
    changes.some((each) => each.offset < offset + length && each.offset + each.length > offset);
  const content: Disk = {
    sizeBytes: point.sizeBytes,
    read: async (offset, into, signal) => await (isChanged(offset, into.length) ? merged : point).read(offset, into, signal),
    extents: async (offset, length, signal) =>
      isChanged(offset, length) ? [{ offset, length, kind: "data" }] : await point.extents(offset, length, signal),
    [Symbol.asyncDispose]: async () => undefined,
  };
  return { content, point, isChanged };
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
